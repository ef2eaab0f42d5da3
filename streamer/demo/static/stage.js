// Draws the face's 14 nodes and how they move over the picture that they were measured in.
import { colour } from "./page.js";

const REGION_COLOURS = ["brows", "nose", "mouth"];

export class Stage {
  constructor(canvas) {
    this.canvas = canvas;
    this.context = canvas.getContext("2d", { alpha: true });
    this.about = null;
  }

  /** about: the server's description of nodes, edges and regions. */
  describe(about) {
    this.about = about;
    this.region = [];
    about.regions.forEach((region, i) => region.nodes.forEach((node) => (this.region[node] = REGION_COLOURS[i])));
  }

  clear() {
    this.context.clearRect(0, 0, this.canvas.width, this.canvas.height);
  }

  /** Draw a frame and, where the face was measured, its motion times `magnify`. */
  draw(picture, message, magnify) {
    const { canvas, context: pen } = this;
    if (canvas.width !== picture.width || canvas.height !== picture.height) {
      canvas.width = picture.width;
      canvas.height = picture.height;
    }
    pen.drawImage(picture, 0, 0);
    if (!message.points || !this.about) return;
    const unit = picture.width / 640;
    const at = (i) => [message.points[2 * i] + 0.5, message.points[2 * i + 1] + 0.5];
    pen.lineCap = pen.lineJoin = "round";
    pen.globalAlpha = 0.55;
    for (const [width, style] of [[2.4, "#101010"], [1, "#ffffff"]]) {
      pen.beginPath();
      for (const [i, j] of this.about.edges) {
        pen.moveTo(...at(i));
        pen.lineTo(...at(j));
      }
      pen.lineWidth = width * unit;
      pen.strokeStyle = style;
      pen.stroke();
    }
    pen.globalAlpha = 1;
    for (let i = 0; i < this.about.nodes.length; i++) {
      const [x, y] = at(i);
      this.arrow(x, y, magnify * message.moved[2 * i], magnify * message.moved[2 * i + 1], unit);
      for (const [radius, style] of [[4.2, "#101010"], [3.1, colour(canvas, `node-${this.region[i]}`)]]) {
        pen.beginPath();
        pen.arc(x, y, radius * unit, 0, 2 * Math.PI);
        pen.fillStyle = style;
        pen.fill();
      }
    }
  }

  arrow(x, y, dx, dy, unit) {
    const length = Math.hypot(dx, dy);
    if (!(length > 4 * unit)) return; // shorter says nothing
    const head = Math.min(8 * unit, length / 2);
    const [ux, uy] = [dx / length, dy / length];
    const [tipX, tipY] = [x + dx, y + dy];
    const pen = this.context;
    for (const [width, style] of [[4.5, "#101010"], [2.2, "#F0E442"]]) {
      pen.beginPath();
      pen.moveTo(x, y);
      pen.lineTo(tipX, tipY);
      pen.moveTo(tipX - head * (ux - 0.6 * uy), tipY - head * (uy + 0.6 * ux));
      pen.lineTo(tipX, tipY);
      pen.lineTo(tipX - head * (ux + 0.6 * uy), tipY - head * (uy - 0.6 * ux));
      pen.lineWidth = width * unit;
      pen.strokeStyle = style;
      pen.stroke();
    }
  }
}
