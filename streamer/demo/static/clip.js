// The clip tab: upload, progress, annotated video, timeline, events, downloads.
import { eventCard } from "./cards.js";
import { Chart } from "./chart.js";
import { make, parts, percent, tell } from "./page.js";

const POLL_MS = 400;
const MOST_BYTES = 200_000_000; // the server says so too; here it saves the upload
const FILES = [
  ["events.jsonl", "Events (JSONL)"],
  ["events.csv", "Table (CSV)"],
  ["annotated.mp4", "Annotated video (MP4)"],
  ["report.html", "Report (HTML)"],
];

/** Let the server delete a clip, also while the page is being left. */
function drop(key) {
  navigator.sendBeacon(`/clips/${key}/forget`);
}

export function startClip(root) {
  (window.gtsgnDemo ??= {}).clip = new ClipPage(root);
}

class ClipPage {
  constructor(root) {
    Object.assign(this, parts(root));
    this.video = this.show.video;
    this.chart = new Chart(this.show.chart);
    this.key = null;
    this.found = [];
    const { press, set, show } = this;
    set.file.onchange = () => {
      const file = set.file.files[0];
      set.file.value = ""; // the same file may be chosen again
      if (file) this.upload(file);
    };
    press.sample.onclick = () => this.begin("the sample", () => this.post(`/clips/sample?sensitivity=${set.sensitivity.value}`));
    press.cancel.onclick = () => this.cancel();
    set.sensitivity.oninput = () => (show.sensitivity.textContent = Number(set.sensitivity.value).toFixed(2));
    set.speed.onchange = () => (this.video.playbackRate = Number(set.speed.value));
    press.play.onclick = this.video.onclick = () => (this.video.paused ? this.video.play() : this.video.pause());
    this.video.onplay = () => (press.play.textContent = "Pause");
    this.video.onpause = () => (press.play.textContent = "Play");
    press.back.onclick = () => this.step(-1);
    press.forward.onclick = () => this.step(1);
    press.previous.onclick = () => this.neighbour(-1);
    press.next.onclick = () => this.neighbour(1);
    show.chart.onpointerdown = (event) => this.seek(this.chart.timeAt(event.clientX));
    show.chart.onkeydown = (event) => this.onKey(event);
    this.video.ontimeupdate = this.video.onseeked = () => this.playhead();
    this.video.onerror = () =>
      this.key && tell(show.message, "This browser cannot play the annotated video (H.264). The events and downloads are all here.", "warning");
    window.addEventListener("pagehide", () => this.forget());
    press.sample.disabled = set.file.disabled = false;
  }

  upload(file) {
    if (file.size > MOST_BYTES) {
      tell(this.show.message, `${file.name} is larger than 200 MB: cut it or compress it first.`, "error");
      return;
    }
    const query = `name=${encodeURIComponent(file.name)}&sensitivity=${this.set.sensitivity.value}`;
    this.begin(file.name, () => this.post(`/clips?${query}`, file));
  }

  /** Give a body to the server and tell of the upload's progress; resolves to the answer. */
  post(url, body = null) {
    return new Promise((resolve, reject) => {
      const request = (this.request = new XMLHttpRequest()); // fetch tells nothing of an upload's progress
      request.open("POST", url);
      request.given = body === null;
      request.upload.onload = () => (request.given = true);
      request.upload.onprogress = (event) => request === this.request && this.progress(event.loaded / event.total, `Uploading: ${percent(event.loaded / event.total)}`);
      request.onload = () => {
        let answer = {};
        try {
          answer = JSON.parse(request.responseText);
        } catch {
          // no JSON: the status says enough
        }
        if (request.status === 200) resolve(answer);
        else reject(new Error(answer.message ?? `The server refused the clip (${request.status}).`));
      };
      request.onerror = () => reject(new Error("The connection to the server broke: check that it runs, then try again."));
      request.onabort = () => reject(new Error("Cancelled."));
      request.send(body);
    });
  }

  async begin(name, give) {
    this.forget();
    const turn = (this.turn = Symbol(name)); // whoever begins anew takes the page over
    this.show.result.hidden = true;
    this.press.cancel.disabled = false;
    tell(this.show.message, `Giving ${name} to the server.`, "working");
    this.progress(null);
    try {
      const { key } = await give();
      if (this.turn !== turn) return drop(key);
      this.key = key;
      await this.follow(turn, key, name);
    } catch (error) {
      if (this.turn === turn) this.end(error.message, "error");
    }
  }

  async follow(turn, key, name) {
    for (;;) {
      const report = await ask(`/clips/${key}`);
      if (this.turn !== turn) return;
      if (report.state === "failed") throw new Error(report.error);
      if (report.state === "done") break;
      if (report.state === "waiting") this.progress(null, `Waiting: ${report.before} clips come first.`);
      else if (report.of) this.progress(report.frames / report.of, `${name}: ${report.frames} of about ${report.of} frames`);
      else this.progress(null, `${name}: ${report.frames} frames`);
      await new Promise((resolve) => setTimeout(resolve, POLL_MS));
    }
    const result = await ask(`/clips/${key}/result.json`);
    if (this.turn === turn) this.present(key, result);
  }

  present(key, result) {
    const { show } = this;
    this.found = result.events.filter((event) => event.type.endsWith("expression"));
    this.found.sort((a, b) => a.apex.time_s - b.apex.time_s);
    const micro = this.found.filter((event) => event.type === "micro_expression").length;
    const ended = result.events.find((event) => event.type === "stream_ended");
    const early = ended && ended.reason !== "end of source" ? ` It ended early: ${ended.reason}.` : "";
    const count = (number, name) => `${number} ${name}${number === 1 ? "" : "s"}`;
    const found = `${count(micro, "micro-expression")} and ${count(this.found.length - micro, "longer movement")}`;
    this.end(`${result.name}: ${found} in ${ended.frames} frames.${early}`, "good");
    show.result.hidden = false;
    this.chart.clear();
    this.chart.names = result.about.regions.map((region) => region.name);
    this.chart.rows = result.chart;
    this.chart.endS = ended.duration_s;
    this.chart.events = this.found;
    this.times = result.chart.map((row) => row[0]);
    this.frameS = ended.frames > 1 ? ended.duration_s / (ended.frames - 1) : 1 / 30;
    show.chart.setAttribute("aria-valuemax", ended.duration_s.toFixed(2));
    this.chart.draw();
    this.video.src = `/clips/${key}/annotated.mp4`;
    this.video.playbackRate = this.video.defaultPlaybackRate = Number(this.set.speed.value);
    show.downloads.replaceChildren(
      ...FILES.map(([file, label]) => make("a", { href: `/clips/${key}/${file}?download=true`, download: file }, label)),
    );
    show.events.replaceChildren(...this.found.map((event) => eventCard(event, (e) => this.jump(e), "listitem")));
    if (!this.found.length) show.events.append(make("p", { className: "gd-empty" }, "No event was found. A higher sensitivity finds more, right and wrong."));
    this.keepAlive(key);
  }

  /** The server deletes what nobody asks for; this page still shows it. */
  keepAlive(key) {
    clearInterval(this.alive);
    this.alive = setInterval(() => {
      ask(`/clips/${key}`).catch((error) => {
        clearInterval(this.alive);
        if (this.key === key) tell(this.show.message, `${error.message} What is shown can no longer be downloaded.`, "warning");
      });
    }, 60_000);
  }

  cancel() {
    this.turn = null;
    this.forget();
    this.end("Cancelled. Choose a clip, or use the sample.", "info");
  }

  forget() {
    clearInterval(this.alive);
    const { request } = this;
    this.request = null;
    // Once all is given, the answer is waited for: it says the key of the clip that is to be deleted.
    if (request && !request.given) request.abort();
    if (this.key) drop(this.key);
    this.key = null;
    this.video.removeAttribute("src");
  }

  end(text, kind) {
    this.show.progress.hidden = true;
    this.press.cancel.disabled = true;
    tell(this.show.message, text, kind);
  }

  progress(share, text) {
    this.show.progress.hidden = false;
    if (share === null) this.show.progress.removeAttribute("value");
    else this.show.progress.value = share;
    if (text) tell(this.show.message, text, "working");
  }

  // Moving in time

  seek(time) {
    this.video.currentTime = Math.max(0, time);
    this.chart.playS = Math.max(0, time);
    this.playhead(time);
  }

  jump(event) {
    this.video.pause();
    this.seek(event.apex.time_s + 1e-3); // a little into the frame
  }

  step(frames) {
    this.video.pause();
    this.seek(this.video.currentTime + frames * this.frameS);
  }

  neighbour(way) {
    const now = this.video.currentTime;
    const there = this.found.filter((e) => way * (e.apex.time_s - now) > 0.01);
    if (there.length) this.jump(way > 0 ? there[0] : there[there.length - 1]);
  }

  onKey(event) {
    const step = { ArrowLeft: -1, ArrowRight: 1, PageUp: 10, PageDown: -10 }[event.key];
    if (step === undefined) return;
    event.preventDefault();
    this.step(step);
  }

  playhead(time = this.video.currentTime) {
    this.chart.playS = time;
    this.show.chart.setAttribute("aria-valuenow", time.toFixed(2));
    this.show.chart.setAttribute("aria-valuetext", `${time.toFixed(2)} seconds`);
    this.chart.draw();
  }
}

async function ask(url) {
  let answer;
  try {
    answer = await fetch(url, { cache: "no-store" });
  } catch {
    throw new Error("The connection to the server broke: check that it runs, then try again.");
  }
  const content = await answer.json().catch(() => ({}));
  if (!answer.ok) throw new Error(content.message ?? `The server answered ${answer.status}.`);
  return content;
}
