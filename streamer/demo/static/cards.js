// Event cards: faces at onset and apex under a wipe, category, action units, duration.
import { make, percent } from "./page.js";

const LEAST_AU = 0.2;

/** A card for an expression; `jump`, if given, is called with the event when its time is clicked. */
export function eventCard(event, jump = null, role = "article") {
  const micro = event.type === "micro_expression";
  const duration = Math.round(1000 * (event.offset.time_s - event.onset.time_s));
  const title = micro ? `${event.label} · ${event.name}` : "Longer movement";
  const when = `${event.apex.time_s.toFixed(2)} s`;
  const time = jump
    ? make("button", { type: "button", className: "gd-jump", "aria-label": `Jump to the event at ${when}`, onclick: () => jump(event) }, when)
    : make("span", { className: "gd-dim" }, when);
  const rows = make("div", { className: "gd-card-text" }, make("div", { className: "gd-head" }, make("h3", {}, title), time));
  if (micro) {
    rows.append(
      bar("Category", event.scores[event.label], "How sure the engine is of this category, if it is an expression"),
      bar("Expression", event.confidence, "How sure the spotter is that this is an expression"),
    );
    const units = Object.entries(event.action_units).filter(([, p]) => p >= LEAST_AU);
    for (const [name, p] of units.sort((a, b) => b[1] - a[1]).slice(0, 5)) rows.append(bar(name, p, `Action unit ${name}`, "au"));
  } else {
    rows.append(make("p", { className: "gd-dim" }, "Longer than half a second: not classified."));
  }
  rows.append(
    make("p", { className: "gd-dim" }, `${duration} ms · ${(100 * event.strength).toFixed(1)} % of the distance between the eyes`),
  );
  const label = `${title}, at ${when}, ${duration} milliseconds`;
  const card = make("div", { className: `gd-card gd-${micro ? "micro" : "macro"}`, role, "aria-label": label });
  const wipe = faces(event);
  if (wipe) card.append(wipe);
  card.append(rows);
  return card;
}

function bar(name, share, title, kind = "") {
  const fill = make("span", { className: "gd-fill" });
  fill.style.width = percent(share).replace(" ", "");
  return make(
    "div",
    { className: `gd-share ${kind}`, title },
    make("span", {}, name),
    make("span", { className: "gd-track", role: "img", "aria-label": `${title}: ${percent(share)}` }, fill),
    make("span", { className: "gd-number" }, percent(share)),
  );
}

/** Onset and apex on top of each other; the slider says how much of the apex shows. */
function faces(event) {
  if (!event.faces?.onset || !event.faces?.apex) return null;
  const apex = make("img", { src: event.faces.apex, alt: "The face at the apex", className: "gd-apex" });
  const box = make("div", { className: "gd-wipe" }, make("img", { src: event.faces.onset, alt: "The face at the onset" }), apex);
  const slider = make("input", { type: "range", min: 0, max: 100, value: 50, "aria-label": "Wipe from the face at the onset to the face at the apex" });
  const set = () => box.style.setProperty("--gd-wipe", `${slider.value}%`);
  slider.addEventListener("input", set);
  set();
  const labels = make("div", { className: "gd-wipe-labels", "aria-hidden": "true" }, make("span", {}, "apex"), make("span", {}, "onset"));
  return make("div", { className: "gd-faces" }, box, slider, labels);
}

/** A line for an event that is no expression; null for those that a visitor need not see. */
function eventLine(event) {
  const at = `${(event.time_s ?? 0).toFixed(1)} s`;
  const text = {
    face_found: `Face found at ${at}`,
    face_lost: `Face lost at ${at}`,
    stream_gap: `No pictures for ${(event.gap_s ?? 0).toFixed(2)} s at ${at}`,
  }[event.type];
  if (!text) return null;
  const line = make("p", { className: "gd-line gd-dim" }, text);
  line.dataset.kind = event.type;
  return line;
}

/** Put an event on top of a list of at most `most`. Holes in a row take one line, with their number. */
export function showEvent(list, event, most) {
  const element = event.type.endsWith("expression") ? eventCard(event) : eventLine(event);
  if (!element) return;
  list.querySelector(".gd-empty")?.remove();
  const last = list.firstElementChild;
  if (event.type === "stream_gap" && last?.dataset.kind === "stream_gap") {
    const count = Number(last.dataset.count ?? 1) + 1;
    element.dataset.count = count;
    element.append(` (${count} times in a row)`);
    last.remove();
  }
  list.prepend(element);
  while (list.children.length > most) list.lastElementChild.remove();
}
