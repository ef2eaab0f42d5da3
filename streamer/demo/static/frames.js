// Carries the camera's frames to the server and its answers back; the work is done in frames_worker.js.
import { socketUrl } from "./page.js";

const MOST_QUEUED = 24; // frames that the browser keeps while the worker is busy
const LEAVE_MS = 3000; // a server that does not take its leave by then is left without

/**
 * One connection of the live page.
 *
 * Where the browser offers it, frames come from a MediaStreamTrackProcessor, which keeps every frame and its
 * capture time while the page is busy; elsewhere from requestVideoFrameCallback, which shows the newest.
 * Dropped frames are counted by cause in `drops`: "browser" (the camera's picture never came to the page), "page"
 * (too many on their way), "network".
 */
export class FrameLink {
  static everyFrame = "MediaStreamTrackProcessor" in window;

  /**
   * @param {object} start - the first message to the server.
   * @param {object} on - `message(message, picture)`: from the server; picture: the ImageBitmap that the answer
   *   is about, or null. `resize()`: the camera's pictures have another size now, and no more are sent.
   *   `close()`: the connection is lost, or never came about.
   */
  constructor(video, track, start, on) {
    this.video = video;
    this.track = track;
    this.on = on;
    this.state = { sent: 0, waiting: 0, drops: {} };
    this.lost = 0;
    this.running = false;
    this.worker = new Worker(new URL("./frames_worker.js", import.meta.url));
    this.left = new Promise((resolve) => (this.resolveLeft = resolve));
    this.worker.onmessage = ({ data }) => this.onWorker(data);
    const url = socketUrl("/live");
    this.worker.postMessage({ do: "connect", url, start, origin: performance.timeOrigin });
  }

  get drops() {
    return { browser: this.lost, ...this.state.drops };
  }

  /** Take frames from now on. */
  start() {
    if (this.running) return;
    this.running = true;
    if (FrameLink.everyFrame) {
      const frames = new MediaStreamTrackProcessor({ track: this.track, maxBufferSize: MOST_QUEUED }).readable;
      this.worker.postMessage({ do: "take", frames }, [frames]);
    } else {
      this.handle = this.video.requestVideoFrameCallback(this.onFrame);
    }
  }

  /** Take none for now. */
  stop() {
    this.running = false;
    this.worker.postMessage({ do: "halt" });
    if (this.handle) this.video.cancelVideoFrameCallback(this.handle);
  }

  send(message) {
    this.worker.postMessage({ do: "send", message });
  }

  /** Take leave of the server: what it still finds is told. The promise is kept when the place is free. */
  leave() {
    this.stop();
    this.send({ type: "stop" });
    setTimeout(() => this.end(), LEAVE_MS);
    return this.left;
  }

  /** End the connection at once. Nothing is told any more. */
  end() {
    this.running = false;
    this.worker.onmessage = null;
    this.worker.terminate(); // and with it goes its socket
    this.resolveLeft();
  }

  onWorker({ message, picture, state, resized, closed }) {
    if (state) this.state = state;
    if (message) {
      this.on.message(message, picture);
      picture?.close();
      if (picture) this.worker.postMessage({ do: "drawn" });
    }
    if (resized) this.on.resize();
    if (closed) {
      this.end();
      this.on.close();
    }
  }

  /** A frame from requestVideoFrameCallback. */
  onFrame = async (now, data) => {
    if (!this.running) return;
    this.handle = this.video.requestVideoFrameCallback(this.onFrame);
    const number = data.presentedFrames;
    if (this.number && number > this.number) this.lost += number - this.number - 1;
    this.number = number;
    const picture = await createImageBitmap(this.video);
    this.worker.postMessage({ do: "frame", picture, stamp: data.captureTime ?? now, number }, [picture]);
  };

  /** Ask the browser how many frames it has lost on the way from the camera. */
  count() {
    const stats = this.track.stats; // Chromium's
    if (stats) this.lost = stats.totalFrames - stats.deliveredFrames - stats.discardedFrames;
  }
}
