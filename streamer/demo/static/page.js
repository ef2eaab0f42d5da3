// What the parts of the page share: finding elements, showing messages, making elements.

/** The parts of a section by name: `show.message` is its [data-show=message], and so on. */
export function parts(root) {
  const of = (kind) =>
    Object.fromEntries([...root.querySelectorAll(`[data-${kind}]`)].map((e) => [e.dataset[kind], e]));
  return { show: of("show"), set: of("set"), press: of("do") };
}

/** An element with properties and children; text is never taken for HTML. */
export function make(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name in element) element[name] = value;
    else element.setAttribute(name, value);
  }
  element.append(...children);
  return element;
}

/** Show a message; kind: "info", "working", "warning" or "error". */
export function tell(element, text, kind = "info") {
  if (element.textContent !== text) element.textContent = text;
  element.dataset.kind = kind;
}

/** Offer data as a file. */
export function save(name, text, type) {
  const url = URL.createObjectURL(new Blob([text], { type }));
  make("a", { href: url, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(url), 10_000);
}

/** A colour of the style sheet, for drawing on a canvas. */
export function colour(element, name) {
  return getComputedStyle(element).getPropertyValue(`--gd-${name}`).trim() || "#888";
}

export const socketUrl = (path) => `${location.protocol === "https:" ? "wss" : "ws"}://${location.host}${path}`;

export const percent = (share) => `${Math.round(100 * share)} %`;

export function median(values) {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted.length ? sorted[sorted.length >> 1] : NaN;
}
