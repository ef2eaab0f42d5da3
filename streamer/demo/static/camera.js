// The browser's camera: opening it, listing cameras, and what goes wrong, in words.

/** What failed, and the way on. */
export class CameraError extends Error {}

const CAUSES = {
  NotAllowedError:
    "The camera is not allowed. Click the camera or lock symbol beside the page's address, allow the camera, " +
    "then press Start. On a phone or a Mac, the system's settings must allow the browser the camera, too.",
  NotFoundError: "No camera was found. Connect one, then press Start. Without a camera, the Clip tab works.",
  NotReadableError:
    "The camera gives no picture: another program may be using it. Close that program, then press Start.",
  OverconstrainedError: "This camera cannot do that resolution, or is gone. Choose another one, then press Start.",
  AbortError: "The camera stopped while it was being opened. Press Start to try again.",
  SecurityError: "The browser forbids the camera on this page. Check its settings, then press Start.",
};

/**
 * Open a camera.
 * @param {string} id - of the device, or "" for the default.
 * @param {string} size - like "640x480".
 * @returns {Promise<MediaStream>}
 * @throws {CameraError}
 */
export async function openCamera(id, size) {
  if (!window.isSecureContext || !navigator.mediaDevices?.getUserMedia) {
    throw new CameraError(
      "Browsers give the camera only to pages of your own machine (http://localhost) or over https. Open the " +
        "page that way, or have its server started with --tls-cert and --tls-key.",
    );
  }
  const able = "MediaStreamTrackProcessor" in window || "requestVideoFrameCallback" in HTMLVideoElement.prototype;
  if (!able || !window.OffscreenCanvas?.prototype.convertToBlob) {
    throw new CameraError("This browser is too old to give every frame with its time: use a current Chrome, Edge, Firefox or Safari.");
  }
  const [width, height] = size.split("x").map(Number);
  const video = { width: { ideal: width }, height: { ideal: height }, frameRate: { ideal: 60, max: 60 } };
  if (id) video.deviceId = { exact: id };
  else video.facingMode = "user";
  try {
    return await navigator.mediaDevices.getUserMedia({ video, audio: false });
  } catch (error) {
    throw new CameraError(CAUSES[error.name] ?? `The camera cannot be opened (${error.name}). Press Start to try again.`);
  }
}

/** Fill a <select> with the cameras; their names are known once a camera has been allowed. */
export async function listCameras(select) {
  if (!navigator.mediaDevices?.enumerateDevices) return;
  const cameras = (await navigator.mediaDevices.enumerateDevices()).filter((d) => d.kind === "videoinput");
  const chosen = select.value;
  select.replaceChildren(
    new Option("Default", ""),
    ...cameras.filter((c) => c.deviceId).map((c, i) => new Option(c.label || `Camera ${i + 1}`, c.deviceId)),
  );
  select.value = cameras.some((c) => c.deviceId === chosen) ? chosen : "";
}
