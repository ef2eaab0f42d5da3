// Carries the camera's frames to the server, each with its number and its capture time.

const HEADER_BYTES = 12; // uint32 number, float64 capture time in ms, little endian
const QUALITY = 0.95; // stronger compression hides small movements
const MOST_BUFFERED = 1_500_000; // bytes that wait for the network before frames are dropped
const SLOTS = 24; // frames on their way at once: 0.8 s; a hole costs the spotter more than a late overlay

/**
 * Takes every frame of a camera, and keeps its picture until the answer is there.
 *
 * Where the browser offers it, frames come from a MediaStreamTrackProcessor, which keeps them while the page is
 * busy; elsewhere from requestVideoFrameCallback, which shows the newest. `captured` is on the clock of
 * performance.now(). Dropped frames keep their numbers and are counted by cause in `drops`:
 * "browser" (the camera's picture never came to the page), "page" (too many on their way), "network".
 */
export class FrameSender {
  static needsNoVideo = "MediaStreamTrackProcessor" in window;

  constructor(video, track, socket) {
    this.video = video;
    this.track = track;
    this.socket = socket;
    this.drops = { browser: 0, page: 0, network: 0 };
    this.sent = 0;
    this.running = false;
    this.free = [];
    this.slots = 0;
    this.waiting = new Map(); // number -> canvas
    this.last = null; // { number, captured } of the last frame seen
    this.order = Promise.resolve();
    this.number = 0;
    this.behind = Infinity; // ms from the frames' own clock to performance.now()
  }

  start() {
    if (this.running) return;
    this.running = true;
    if (FrameSender.needsNoVideo) this.read();
    else this.handle = this.video.requestVideoFrameCallback(this.onFrame);
  }

  stop() {
    this.running = false;
    this.reader?.cancel().catch(() => {});
    if (this.handle) this.video.cancelVideoFrameCallback(this.handle);
  }

  /** Frames from a MediaStreamTrackProcessor, until stopped. */
  async read() {
    const reader = new MediaStreamTrackProcessor({ track: this.track, maxBufferSize: SLOTS }).readable.getReader();
    this.reader = reader;
    for (;;) {
      const { done, value: frame } = await reader.read().catch(() => ({ done: true }));
      if (done) return;
      if (this.running && this.reader === reader) {
        // The frames' clock has an origin of its own. The quickest frame took next to no time to get here.
        const stamp = frame.timestamp / 1000;
        this.behind = Math.min(this.behind, performance.now() - stamp);
        this.number += 1;
        this.take(frame, frame.displayWidth, frame.displayHeight, this.number, stamp + this.behind);
      }
      frame.close();
    }
  }

  /** A frame from requestVideoFrameCallback. */
  onFrame = (now, data) => {
    if (!this.running) return;
    this.handle = this.video.requestVideoFrameCallback(this.onFrame);
    const number = data.presentedFrames;
    if (this.last && number > this.last.number) this.drops.browser += number - this.last.number - 1;
    this.take(this.video, this.video.videoWidth, this.video.videoHeight, number, data.captureTime ?? now);
  };

  take(picture, width, height, number, captured) {
    if (this.last && (number <= this.last.number || captured <= this.last.captured)) return; // seen already
    this.last = { number, captured };
    if (this.socket.readyState !== WebSocket.OPEN) return;
    if (this.socket.bufferedAmount > MOST_BUFFERED) {
      this.drops.network += 1;
      return;
    }
    const canvas = this.slot();
    if (!canvas) {
      this.drops.page += 1;
      return;
    }
    canvas.width = width;
    canvas.height = height;
    canvas.getContext("2d", { willReadFrequently: true, alpha: false }).drawImage(picture, 0, 0);
    this.waiting.set(number, canvas);
    const encoded = canvas.convertToBlob({ type: "image/jpeg", quality: QUALITY }).then((b) => b.arrayBuffer());
    // Encoders may overtake each other; frames leave in order.
    this.order = this.order
      .then(async () => this.send(number, captured, await encoded))
      .catch(() => this.giveBack(number));
  }

  send(number, captured, jpeg) {
    if (this.socket.readyState !== WebSocket.OPEN) {
      this.giveBack(number);
      return;
    }
    const packet = new Uint8Array(HEADER_BYTES + jpeg.byteLength);
    const header = new DataView(packet.buffer);
    header.setUint32(0, number, true);
    header.setFloat64(4, captured, true);
    packet.set(new Uint8Array(jpeg), HEADER_BYTES);
    this.socket.send(packet);
    this.sent += 1;
  }

  /** Use the picture of an answered frame: `use(canvas)`, at once. Frames before it will not be answered. */
  answered(number, use) {
    const canvas = this.waiting.get(number);
    if (canvas) use(canvas);
    for (const waiting of [...this.waiting.keys()]) if (waiting <= number) this.giveBack(waiting);
  }

  slot() {
    if (this.free.length) return this.free.pop();
    if (this.slots >= SLOTS) return null;
    this.slots += 1;
    return new OffscreenCanvas(1, 1);
  }

  giveBack(number) {
    const canvas = this.waiting.get(number);
    this.waiting.delete(number);
    if (canvas) this.free.push(canvas);
  }
}
