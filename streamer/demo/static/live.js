// The live tab: camera -> frames -> server -> overlay, and everything that can go wrong on the way.
import { CameraError, listCameras, openCamera } from "./camera.js";
import { showEvent } from "./cards.js";
import { Chart } from "./chart.js";
import { FrameSender } from "./frames.js";
import { make, median, parts, percent, save, socketUrl, tell } from "./page.js";
import { Stage } from "./stage.js";

const STRIP_S = 8;
const MOST_CARDS = 30;
const STALL_MS = 5000; // frames went out and nothing came back for so long: the connection is given up
const RETRY_MS = [500, 1000, 2000, 4000, 4000, 4000, 4000, 4000, 4000, 4000, 4000, 4000, 4000, 4000, 4000, 4000];
const FRESH_MS = 600; // an overlay older than that is taken away: the plain picture goes on below
const TEXT_MS = 250; // figures change no faster than they can be read

export function startLive(root) {
  const live = new Live(root);
  // For whoever measures the page from outside.
  (window.gtsgnDemo ??= {}).live = live;
}

class Live {
  constructor(root) {
    Object.assign(this, parts(root));
    this.video = root.querySelector("video");
    this.stage = new Stage(this.show.stage);
    this.chart = new Chart(this.show.chart, STRIP_S);
    this.state = "idle"; // idle, opening, connecting, running, paused, lost
    this.stream = this.socket = this.sender = null;
    this.lines = []; // events of this visit, as JSON lines
    this.events = [];
    this.latencies = [];
    this.measured = { latencies: [], answers: 0 };
    this.attempt = 0;
    this.pausedByTab = false;
    const { press, set } = this;
    press.start.onclick = () => this.start();
    press.pause.onclick = () => (this.state === "paused" ? this.resume() : this.pause());
    press.stop.onclick = () => this.stop("Stopped. Press Start to go on.");
    press.download.onclick = () => save("events.jsonl", this.lines.join("\n") + "\n", "application/x-ndjson");
    set.camera.onchange = set.resolution.onchange = () => this.state !== "idle" && this.restart();
    set.magnify.oninput = () => (this.show.magnify.textContent = `×${set.magnify.value}`);
    set.sensitivity.oninput = () => (this.show.sensitivity.textContent = Number(set.sensitivity.value).toFixed(2));
    set.sensitivity.onchange = () => this.send({ type: "sensitivity", value: Number(set.sensitivity.value) });
    set.mirror.onchange = () => this.mirror();
    this.mirror();
    this.video.addEventListener("resize", () => this.onSize());
    document.addEventListener("visibilitychange", () => this.onVisibility());
    navigator.mediaDevices?.addEventListener("devicechange", () => listCameras(set.camera));
    window.addEventListener("pagehide", () => this.release());
    listCameras(set.camera);
    this.setState("idle");
    setInterval(() => this.watch(), 500);
  }

  // What a visitor asks for

  async start() {
    this.release();
    this.setState("opening");
    tell(this.show.message, "The browser asks for the camera: allow it.", "working");
    let stream;
    try {
      stream = await openCamera(this.set.camera.value, this.set.resolution.value);
    } catch (error) {
      if (!(error instanceof CameraError)) throw error;
      this.fail(error.message);
      return;
    }
    if (this.state !== "opening") {
      stream.getTracks().forEach((track) => track.stop());
      return;
    }
    this.stream = stream;
    stream.getVideoTracks()[0].onended = () => {
      if (this.stream === stream) this.fail("The camera has gone: it was unplugged or its permission was taken back. Connect it, then press Start.");
    };
    this.video.srcObject = stream;
    await this.video.play().catch(() => {});
    listCameras(this.set.camera);
    this.attempt = 0;
    this.connect("The camera is on. Connecting to the server.");
  }

  pause() {
    if (this.state !== "running") return;
    this.sender.stop();
    this.send({ type: "pause" });
    this.setState("paused");
    tell(this.show.message, "Paused: no picture leaves the browser. The session is kept for five minutes.", "info");
  }

  resume() {
    if (this.state !== "paused") return;
    this.send({ type: "resume" });
    this.sender.start();
    this.setState("running");
    this.answeredAt = performance.now();
    this.runningMessage();
  }

  stop(text) {
    this.send({ type: "stop" });
    this.release();
    tell(this.show.message, text, "info");
  }

  async restart() {
    this.send({ type: "stop" });
    await this.start();
  }

  fail(text) {
    this.release();
    tell(this.show.message, text, "error");
  }

  /** Give back camera and connection. */
  release() {
    clearTimeout(this.retry);
    this.sender?.stop();
    const socket = this.socket;
    this.socket = this.sender = null;
    // Not at once: a stop that was just sent shall arrive.
    if (socket) setTimeout(() => socket.close(), 300);
    this.stream?.getTracks().forEach((track) => track.stop());
    this.stream = null;
    this.video.srcObject = null;
    this.freshen(false);
    this.show.hints.replaceChildren();
    this.pausedByTab = false;
    this.setState("idle");
  }

  // The connection

  connect(text) {
    this.setState("connecting");
    if (text) tell(this.show.message, text, "working");
    const socket = new WebSocket(socketUrl("/live"));
    socket.binaryType = "arraybuffer";
    this.socket = socket;
    this.sender?.stop();
    this.sender = new FrameSender(this.video, this.stream.getVideoTracks()[0], socket);
    this.refused = false;
    this.answeredAt = performance.now();
    socket.onopen = () => this.send({ type: "start", sensitivity: Number(this.set.sensitivity.value) });
    socket.onmessage = (message) => this.socket === socket && this.onMessage(JSON.parse(message.data));
    socket.onclose = () => this.socket === socket && !this.refused && this.onLost("The connection to the server is lost.");
  }

  onLost(why) {
    this.sender?.stop();
    const socket = this.socket;
    this.socket = null;
    socket?.close();
    const wait = RETRY_MS[this.attempt++];
    if (wait === undefined) {
      this.fail(`${why} The server does not answer: check that it runs and that the network is there, then press Start.`);
      return;
    }
    this.setState("lost");
    tell(this.show.message, `${why} Trying again (${this.attempt} of ${RETRY_MS.length}). The camera stays on; Stop ends it.`, "warning");
    this.retry = setTimeout(() => this.connect(""), wait);
  }

  send(message) {
    if (this.socket?.readyState === WebSocket.OPEN) this.socket.send(JSON.stringify(message));
  }

  onMessage(message) {
    this.answeredAt = performance.now();
    if (message.type === "motion") this.onMotion(message);
    else if (message.type === "event") this.onEvent(message.event);
    else if (message.type === "ready") this.onReady(message);
    // Coming back, the place that is taken may be this page's own, which the server has not missed yet.
    else if (message.type === "error" && message.code === "full" && this.attempt) this.onLost("The server has no place yet.");
    else if (message.type === "error") {
      this.refused = true;
      this.fail(message.message);
    } else if (message.type === "ended") this.lines.push(JSON.stringify(message.event));
  }

  onReady(about) {
    this.about = about;
    this.stage.describe(about);
    this.chart.clear();
    this.chart.names = about.regions.map((region) => region.name);
    this.latencies = [];
    this.attempt = 0;
    this.setState("running");
    this.runningMessage();
    if (document.hidden) this.onVisibility();
    else this.sender.start();
  }

  onMotion(message) {
    const now = performance.now();
    this.sender.answered(message.number, (picture) => this.stage.draw(picture, message, Number(this.set.magnify.value)));
    this.drawnAt = performance.now();
    this.freshen(true);
    this.measured.answers += 1;
    this.latencies.push(this.drawnAt - message.captured_ms);
    if (this.latencies.length > 90) this.latencies.shift();
    this.measured.latencies.push(this.drawnAt - message.captured_ms);
    if (this.measured.latencies.length > 100_000) this.measured.latencies.shift();
    if (message.regions) this.chart.add([message.time_s, ...message.regions]);
    this.latest = message;
    if (!this.chartDue) {
      this.chartDue = true;
      requestAnimationFrame(() => {
        this.chartDue = false;
        this.chart.draw();
      });
    }
    if (now - (this.textAt ?? 0) > TEXT_MS) {
      this.textAt = now;
      this.figures(message);
    }
  }

  figures(message) {
    const { show } = this;
    show.fps.textContent = message.fps ? `${message.fps.toFixed(1)} / s` : "–";
    show.latency.textContent = `${Math.round(median(this.latencies))} ms`;
    const server = Object.values(message.drops).reduce((a, b) => a + b, 0);
    const page = Object.values(this.sender.drops).reduce((a, b) => a + b, 0);
    show.drops.textContent = `${server + page}`;
    show.drops.title = JSON.stringify({ ...this.sender.drops, server: message.drops });
    show.quality.textContent = message.quality === undefined ? "–" : percent(message.quality);
    const hints = message.hints.map((key) => this.about.hints[key] ?? key);
    if (hints.join() !== this.shownHints) {
      this.shownHints = hints.join();
      show.hints.replaceChildren(...hints.map((text) => make("li", {}, text)));
    }
  }

  onEvent(event) {
    const { faces, ...line } = event;
    this.lines.push(JSON.stringify(line));
    if (this.lines.length > 5000) this.lines.shift();
    this.press.download.disabled = false;
    if (event.type.endsWith("expression")) {
      this.events.push(line);
      if (this.events.length > 5000) this.events.shift();
      this.chart.events.push(event);
    }
    showEvent(this.show.events, event, MOST_CARDS);
  }

  // What happens by itself

  onVisibility() {
    if (document.hidden && this.state === "running") {
      this.pause();
      this.pausedByTab = true;
      tell(this.show.message, "This tab is hidden, and browsers stop the camera's pictures then: paused until you come back.", "warning");
    } else if (!document.hidden && this.state === "paused" && this.pausedByTab) {
      this.pausedByTab = false;
      this.resume();
    }
  }

  onSize() {
    const { videoWidth: width, videoHeight: height } = this.video;
    const size = `${width}x${height}`;
    const changed = this.size && this.size !== size && ["running", "paused"].includes(this.state);
    this.size = size;
    this.video.parentElement.style.aspectRatio = width && height ? `${width} / ${height}` : "";
    if (changed) {
      // A phone was turned: pictures of two sizes cannot be compared.
      this.send({ type: "stop" });
      this.refused = true;
      this.connect("The picture's size has changed: starting anew.");
    }
  }

  watch() {
    const now = performance.now();
    if (this.drawnAt && now - this.drawnAt > FRESH_MS) {
      this.freshen(false);
      this.drawnAt = 0;
    }
    if (this.state === "connecting" && now - this.answeredAt > 3 * STALL_MS) this.onLost("The server does not answer.");
    if (this.state !== "running") return;
    const waiting = this.sender.waiting.size;
    if (waiting && now - this.answeredAt > STALL_MS) this.onLost("The network has stalled: no answer for five seconds.");
    else if (!waiting && now - this.answeredAt > STALL_MS && !document.hidden) {
      tell(this.show.message, "The camera gives no pictures. If its light is off, press Stop and Start; if it has a lid, open it.", "warning");
      this.silent = true;
    } else if (this.silent && now - this.answeredAt < 1000) {
      this.silent = false;
      this.runningMessage();
    }
  }

  /** Whether the overlay covers the video: what nobody sees need not be drawn. */
  freshen(fresh) {
    if (this.fresh === fresh) return;
    this.fresh = fresh;
    if (!fresh) this.stage.clear();
    this.video.style.visibility = fresh && FrameSender.needsNoVideo ? "hidden" : "";
  }

  runningMessage() {
    const { width, height } = this.stream?.getVideoTracks()[0]?.getSettings() ?? {};
    tell(this.show.message, `Running${width ? ` at ${width} × ${height}` : ""}. Look into the camera and keep your head fairly still.`, "good");
  }

  mirror() {
    this.video.parentElement.classList.toggle("gd-mirror", this.set.mirror.checked);
  }

  setState(state) {
    this.state = state;
    const { press } = this;
    press.start.disabled = state !== "idle";
    press.stop.disabled = state === "idle";
    press.pause.disabled = !["running", "paused"].includes(state);
    press.pause.textContent = state === "paused" ? "Resume" : "Pause";
  }
}
