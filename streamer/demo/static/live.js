// The live tab: camera -> frames -> server -> overlay, and everything that can go wrong on the way.
import { CameraError, listCameras, openCamera } from "./camera.js";
import { showEvent } from "./cards.js";
import { Chart } from "./chart.js";
import { FrameLink } from "./frames.js";
import { make, median, parts, percent, save, tell } from "./page.js";
import { Stage } from "./stage.js";

const STRIP_S = 8;
const MOST_CARDS = 30;
const STALL_MS = 5000; // frames went out and nothing came back for so long: the connection is given up
const RETRY_MS = [500, 1000, 2000, 4000]; // the last again and again
const RETRIES = 75; // five minutes: a busy machine may take one to start the server
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
    this.stream = this.link = null;
    this.left = null; // kept when the last connection has ended
    this.starts = 0;
    this.lines = []; // events of this visit, as JSON lines
    this.events = [];
    this.latencies = [];
    this.measured = { latencies: [], answers: 0 };
    this.attempt = 0;
    this.held = false; // paused by the visitor: stays so, whatever the connection does
    this.pausedByTab = false;
    const { press, set } = this;
    press.start.onclick = () => this.start();
    press.pause.onclick = () => (this.state === "paused" ? this.resume() : this.pause());
    press.stop.onclick = () => this.stop("Stopped. Press Start to go on.");
    press.download.onclick = () => save("events.jsonl", this.lines.join("\n") + "\n", "application/x-ndjson");
    set.camera.onchange = set.resolution.onchange = () => this.state !== "idle" && this.start();
    set.magnify.oninput = () => (this.show.magnify.textContent = `×${set.magnify.value}`);
    set.sensitivity.oninput = () => (this.show.sensitivity.textContent = Number(set.sensitivity.value).toFixed(2));
    set.sensitivity.onchange = () => this.link?.send({ type: "sensitivity", value: Number(set.sensitivity.value) });
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
    const start = ++this.starts;
    tell(this.show.message, "The browser asks for the camera: allow it.", "working");
    let stream;
    try {
      stream = await openCamera(this.set.camera.value, this.set.resolution.value);
    } catch (error) {
      if (!(error instanceof CameraError)) throw error;
      if (start === this.starts) this.fail(error.message);
      return;
    }
    if (start !== this.starts || this.state !== "opening") {
      stream.getTracks().forEach((track) => track.stop());
      return;
    }
    this.stream = stream;
    stream.getVideoTracks()[0].onended = () => {
      if (this.stream === stream) this.fail("The camera has gone: it was unplugged or its permission was taken back. Connect it, then press Start.");
    };
    this.video.srcObject = stream;
    this.video.play().catch(() => {}); // not awaited: a camera may be on and give no picture
    listCameras(this.set.camera);
    this.attempt = 0;
    await this.connectAnew("The camera is on. Connecting to the server.");
  }

  pause(byTab = false) {
    if (this.state !== "running") return;
    this.held = !byTab;
    this.pausedByTab = byTab;
    this.link.stop();
    this.link.send({ type: "pause" });
    this.setState("paused");
    tell(this.show.message, "Paused: no picture leaves the browser. The session is kept for five minutes.", "info");
  }

  resume() {
    if (this.state !== "paused") return;
    this.held = this.pausedByTab = false;
    this.link.send({ type: "resume" });
    this.link.start();
    this.setState("running");
    this.answeredAt = performance.now();
    this.runningMessage();
  }

  stop(text) {
    this.release();
    tell(this.show.message, text, "info");
  }

  fail(text) {
    this.release();
    tell(this.show.message, text, "error");
  }

  /** Give back camera and connection. */
  release() {
    clearTimeout(this.retry);
    this.leave();
    this.stream?.getTracks().forEach((track) => track.stop());
    this.stream = null;
    this.video.srcObject = null;
    this.freshen(false);
    this.show.hints.replaceChildren();
    this.shownHints = "";
    for (const name of ["fps", "latency", "quality"]) this.show[name].textContent = "–";
    this.held = this.pausedByTab = false;
    this.setState("idle");
  }

  // The connection

  leave() {
    if (this.link) this.left = this.link.leave();
    this.link = null;
  }

  /** Connect when the last connection has ended: the place that it holds may be the last free one. */
  async connectAnew(text) {
    const { stream } = this;
    if (!stream) return;
    this.leave();
    this.setState("connecting");
    this.answeredAt = performance.now();
    tell(this.show.message, text, "working");
    await this.left;
    if (this.stream === stream && this.state === "connecting") this.connect();
  }

  connect() {
    this.setState("connecting");
    this.answeredAt = performance.now();
    const start = { type: "start", sensitivity: Number(this.set.sensitivity.value) };
    const link = new FrameLink(this.video, this.stream.getVideoTracks()[0], start, {
      message: (message, picture) => this.onMessage(link, message, picture),
      resize: () => this.link === link && this.connectAnew("The picture's size has changed: starting anew."),
      close: () => this.link === link && this.onLost("The connection to the server is lost."),
    });
    this.link = link;
  }

  onLost(why) {
    this.link?.end();
    this.link = null;
    const wait = RETRY_MS[Math.min(this.attempt, RETRY_MS.length - 1)];
    if (++this.attempt > RETRIES) {
      this.fail(`${why} The server does not answer: check that it runs and that the network is there, then press Start.`);
      return;
    }
    this.setState("lost");
    tell(this.show.message, `${why} Trying again (${this.attempt} of ${RETRIES}). The camera stays on; Stop ends it.`, "warning");
    this.retry = setTimeout(() => this.connect(), wait);
  }

  onMessage(link, message, picture) {
    if (message.type === "event") this.onEvent(message.event);
    else if (message.type === "ended") this.lines.push(JSON.stringify(message.event));
    if (link !== this.link) return; // it is taking its leave
    this.answeredAt = performance.now();
    if (message.type === "motion") this.onMotion(message, picture);
    else if (message.type === "ready") this.onReady(message);
    // Coming back, the place that is taken may be this page's own, which the server has not missed yet.
    else if (message.type === "error" && message.code === "full" && this.attempt) this.onLost("The server has no place yet.");
    else if (message.type === "error") this.fail(message.message);
  }

  onReady(about) {
    this.about = about;
    this.stage.describe(about);
    this.chart.clear();
    this.chart.names = about.regions.map((region) => region.name);
    this.latencies = [];
    this.attempt = 0;
    this.setState("running");
    if (this.held) return this.pause();
    this.pausedByTab = false;
    this.runningMessage();
    if (document.hidden) this.onVisibility();
    else this.link.start();
  }

  onMotion(message, picture) {
    const now = performance.now();
    this.measured.answers += 1;
    if (picture) {
      this.stage.draw(picture, message, Number(this.set.magnify.value));
      this.drawnAt = performance.now();
      this.freshen(true);
      for (const [latencies, most] of [[this.latencies, 90], [this.measured.latencies, 100_000]]) {
        latencies.push(this.drawnAt - message.captured_ms);
        if (latencies.length > most) latencies.shift();
      }
    }
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
    this.link.count();
    const page = Object.values(this.link.drops).reduce((a, b) => a + b, 0);
    show.drops.textContent = `${server + page}`;
    show.drops.title = JSON.stringify({ ...this.link.drops, server: message.drops });
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
      this.pause(true);
      tell(this.show.message, "This tab is hidden, and browsers stop the camera's pictures then: paused until you come back.", "warning");
    } else if (!document.hidden && this.state === "paused" && this.pausedByTab) {
      this.resume();
    }
  }

  onSize() {
    const { videoWidth: width, videoHeight: height } = this.video;
    this.video.parentElement.style.aspectRatio = width && height ? `${width} / ${height}` : "";
  }

  watch() {
    const now = performance.now();
    if (this.drawnAt && now - this.drawnAt > FRESH_MS) {
      this.freshen(false);
      this.drawnAt = 0;
    }
    if (this.state === "connecting" && now - this.answeredAt > 3 * STALL_MS) this.onLost("The server does not answer.");
    if (this.state !== "running") return;
    const { waiting } = this.link.state;
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
    this.video.style.visibility = fresh && FrameLink.everyFrame ? "hidden" : "";
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
    const focused = document.activeElement; // a button that is disabled loses the focus
    press.start.disabled = state !== "idle";
    press.stop.disabled = state === "idle";
    press.pause.disabled = !["running", "paused"].includes(state);
    press.pause.textContent = state === "paused" ? "Resume" : "Pause";
    if (focused?.disabled && Object.values(press).includes(focused)) (state === "idle" ? press.start : press.stop).focus();
  }
}
