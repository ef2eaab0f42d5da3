// Motion of the regions over time, with events: a strip of the last seconds, or a whole clip.
import { colour } from "./page.js";

const LINES = ["brows", "nose", "mouth"];
const STEPS = [1, 2, 5, 10, 20, 50]; // possible heights, % of the distance between the eyes
const GAP_S = 0.25; // a longer hole is not bridged by a line
const LEFT = 34, RIGHT = 8, TOP = 22, BOTTOM = 20;

export class Chart {
  /** windowS: length of the strip, seconds; null shows everything. */
  constructor(canvas, windowS = null) {
    this.canvas = canvas;
    this.windowS = windowS;
    this.clear();
    new ResizeObserver(() => this.draw()).observe(canvas);
  }

  clear() {
    this.rows = []; // [seconds, brows, nose, mouth]
    this.events = [];
    this.endS = 0; // of a whole clip: it may go on without a face
    this.playS = null;
    this.names = ["Brows", "Nose", "Mouth"];
    this.draw();
  }

  add(row) {
    this.rows.push(row);
    if (this.windowS === null) return;
    const start = row[0] - this.windowS;
    let old = 0;
    while (old < this.rows.length && this.rows[old][0] < start) old += 1;
    if (old > 30) this.rows.splice(0, old); // not one by one
    this.events = this.events.filter((event) => event.offset.time_s > start);
  }

  get span() {
    const end = this.rows.length ? this.rows[this.rows.length - 1][0] : 0;
    return this.windowS === null ? [0, Math.max(end, this.endS, 0.1)] : [end - this.windowS, end];
  }

  /** The largest value to be shown. Of a whole clip, a few frames of a face that goes away do not flatten all others. */
  peak(rows) {
    const largest = (some) => some.reduce((most, row) => Math.max(most, ...row.slice(1)), 0);
    if (this.windowS !== null) return largest(rows);
    const usual = rows.map((row) => Math.max(...row.slice(1))).sort((a, b) => a - b)[Math.ceil(0.99 * rows.length) - 1] ?? 0;
    const inside = (row) => this.events.some(({ onset, offset }) => onset.time_s <= row[0] && row[0] <= offset.time_s);
    return Math.max(usual, largest(rows.filter(inside)));
  }

  timeAt(clientX) {
    const box = this.canvas.getBoundingClientRect();
    const [start, end] = this.span;
    const share = (clientX - box.left - LEFT) / (box.width - LEFT - RIGHT);
    return start + Math.min(Math.max(share, 0), 1) * (end - start);
  }

  draw() {
    const { canvas } = this;
    const [width, height] = [canvas.clientWidth, canvas.clientHeight];
    if (!width || !height) return;
    const ratio = window.devicePixelRatio || 1;
    if (canvas.width !== Math.round(width * ratio) || canvas.height !== Math.round(height * ratio)) {
      canvas.width = Math.round(width * ratio);
      canvas.height = Math.round(height * ratio);
    }
    const pen = canvas.getContext("2d");
    pen.setTransform(ratio, 0, 0, ratio, 0, 0);
    pen.clearRect(0, 0, width, height);
    pen.font = "12px system-ui, sans-serif";
    const [start, end] = this.span;
    const first = Math.max(0, this.rows.findIndex((row) => row[0] >= start));
    const peak = this.peak(this.rows.slice(first));
    const top = STEPS.find((step) => step >= 1.05 * peak) ?? STEPS[STEPS.length - 1];
    const x = (time) => LEFT + ((time - start) / (end - start || 1)) * (width - LEFT - RIGHT);
    const y = (value) => height - BOTTOM - (Math.min(value, top) / top) * (height - TOP - BOTTOM);
    this.grid(pen, x, y, start, end, top, width, height);
    pen.save();
    pen.beginPath();
    pen.rect(LEFT, 0, width - LEFT - RIGHT, height - BOTTOM);
    pen.clip();
    for (const event of this.events) this.mark(pen, event, x, height);
    LINES.forEach((name, column) => {
      pen.beginPath();
      for (let i = first; i < this.rows.length; i++) {
        const row = this.rows[i];
        const joined = i > first && row[0] - this.rows[i - 1][0] < GAP_S;
        if (joined) pen.lineTo(x(row[0]), y(row[column + 1]));
        else pen.moveTo(x(row[0]), y(row[column + 1]));
      }
      pen.strokeStyle = colour(canvas, name);
      pen.lineWidth = 1.6;
      pen.stroke();
    });
    if (this.playS !== null) {
      pen.fillStyle = colour(canvas, "text");
      pen.fillRect(x(this.playS) - 0.75, 0, 1.5, height);
    }
    pen.restore();
  }

  grid(pen, x, y, start, end, top, width, height) {
    const { canvas } = this;
    const dim = colour(canvas, "dim");
    pen.textAlign = "right";
    for (const share of [0, 0.5, 1]) {
      pen.fillStyle = colour(canvas, "grid");
      pen.fillRect(LEFT, y(share * top), width - LEFT - RIGHT, 1);
      pen.fillStyle = dim;
      pen.fillText(`${share * top}`, LEFT - 5, y(share * top) + 4);
    }
    const step = [1, 2, 5, 10, 20, 30, 60].find((s) => (width / (end - start)) * s > 46) ?? 60;
    pen.textAlign = "center";
    for (let t = Math.max(0, Math.ceil(start / step) * step); t <= end; t += step) {
      pen.fillText(`${t} s`, Math.min(Math.max(x(t), LEFT + 8), width - 14), height - 5);
    }
    pen.textAlign = "left";
    let left = LEFT;
    LINES.forEach((name, i) => {
      pen.fillStyle = colour(canvas, name);
      pen.fillRect(left, 6, 12, 3);
      pen.fillStyle = colour(canvas, "text");
      pen.fillText(this.names[i], left + 16, 12);
      left += 26 + pen.measureText(this.names[i]).width;
    });
    pen.fillStyle = dim;
    if (width > 420) pen.fillText("% of the distance between the eyes", left + 4, 12);
  }

  mark(pen, event, x, height) {
    const micro = event.type === "micro_expression";
    pen.fillStyle = pen.strokeStyle = colour(this.canvas, micro ? "micro" : "macro");
    const [left, apex, right] = [event.onset, event.apex, event.offset].map((key) => x(key.time_s));
    pen.globalAlpha = 0.22;
    pen.fillRect(left, TOP - 6, Math.max(right - left, 1), height - TOP - BOTTOM + 6);
    pen.globalAlpha = 1;
    pen.fillRect(left, TOP - 6, 1, height - TOP - BOTTOM + 6);
    pen.fillRect(right, TOP - 6, 1, height - TOP - BOTTOM + 6);
    pen.beginPath();
    pen.setLineDash([3, 3]);
    pen.moveTo(apex, TOP);
    pen.lineTo(apex, height - BOTTOM);
    pen.stroke();
    pen.setLineDash([]);
    pen.beginPath();
    pen.moveTo(apex - 4, TOP - 6);
    pen.lineTo(apex + 4, TOP - 6);
    pen.lineTo(apex, TOP);
    pen.fill();
    if (micro) pen.fillText(event.label, right + 3, TOP + 6);
  }
}
