// The way of the frames, in a worker: a busy page delays no frame, and a busy network no page.
// From the page: {do: "connect", url, start, origin}, {do: "take", frames} or {do: "frame", picture, stamp, number},
// {do: "halt"}, {do: "send", message}, {do: "drawn"}.
// To the page: {message, picture}, {state}, {resized}, {closed}.

const HEADER_BYTES = 12; // uint32 number, float64 capture time in ms, little endian
const QUALITY = 0.95; // stronger compression hides small movements
const MOST_BUFFERED = 1_500_000; // bytes that wait for the network before frames are dropped
const SLOTS = 24; // frames on their way at once: 0.8 s; a hole costs the spotter more than a late overlay
const STATE_MS = 250;
const MOST_UNDRAWN = 2; // pictures that the page has not drawn yet, before it is given none

const state = { sent: 0, waiting: 0, drops: { page: 0, network: 0 } };
const free = []; // canvases
const waiting = new Map(); // number -> canvas
let slots = 0, undrawn = 0, number = 0, lastStamp = -Infinity, size = "", behind = Infinity, toPage = 0;
let socket = null, reader = null, taking = false, order = Promise.resolve();

setInterval(() => {
  state.waiting = waiting.size;
  postMessage({ state }); // where no answers come, too
}, STATE_MS);

onmessage = ({ data }) => {
  if (data.do === "connect") connect(data);
  else if (data.do === "take") read(data.frames);
  else if (data.do === "frame") take(data.picture, data.picture.width, data.picture.height, data.stamp, data.number);
  else if (data.do === "halt") halt();
  else if (data.do === "send") send(data.message);
  else if (data.do === "drawn") undrawn -= 1;
};

function connect({ url, start, origin }) {
  toPage = performance.timeOrigin - origin;
  socket = new WebSocket(url);
  socket.binaryType = "arraybuffer";
  socket.onopen = () => send(start);
  socket.onmessage = ({ data }) => forward(JSON.parse(data));
  socket.onclose = () => {
    halt();
    postMessage({ closed: true });
  };
}

function send(message) {
  if (socket?.readyState === WebSocket.OPEN) socket.send(JSON.stringify(message));
}

/** Frames from a MediaStreamTrackProcessor, until halted. */
async function read(frames) {
  halt();
  taking = true;
  const own = (reader = frames.getReader());
  for (;;) {
    const { done, value: frame } = await own.read().catch(() => ({ done: true }));
    if (done) return;
    if (taking && reader === own) take(frame, frame.displayWidth, frame.displayHeight, frame.timestamp / 1000, number + 1);
    else frame.close();
  }
}

function halt() {
  taking = false;
  reader?.cancel().catch(() => {});
  reader = null;
}

/** A frame on its way. stamp: when it was captured, ms on a clock of the camera's own. */
function take(picture, width, height, stamp, count) {
  const canvas = slotFor(width, height, stamp, count);
  if (canvas) {
    canvas.width = width;
    canvas.height = height;
    canvas.getContext("2d", { willReadFrequently: true, alpha: false }).drawImage(picture, 0, 0);
  }
  picture.close(); // at once: the camera has few of them
  if (!canvas) return;
  waiting.set(count, canvas);
  const encoded = canvas.convertToBlob({ type: "image/jpeg", quality: QUALITY }).then((blob) => blob.arrayBuffer());
  // Encoders may overtake each other; frames leave in order.
  order = order.then(async () => leave(count, stamp, await encoded)).catch(() => giveBack(count));
}

/** A canvas to draw a frame on, or null where it goes no further. */
function slotFor(width, height, stamp, count) {
  if (stamp <= lastStamp || count <= number) return null; // seen already
  lastStamp = stamp;
  number = count;
  // The quickest frame took next to no time to get here: that ties the camera's clock to the page's.
  behind = Math.min(behind, performance.now() - stamp);
  if (socket?.readyState !== WebSocket.OPEN) return null;
  if (size && size !== `${width}x${height}`) {
    // A phone was turned: pictures of two sizes cannot be compared.
    halt();
    postMessage({ resized: true });
    return null;
  }
  size = `${width}x${height}`;
  if (socket.bufferedAmount > MOST_BUFFERED) {
    state.drops.network += 1;
    return null;
  }
  if (free.length) return free.pop();
  if (slots >= SLOTS) {
    state.drops.page += 1;
    return null;
  }
  slots += 1;
  return new OffscreenCanvas(1, 1);
}

function leave(count, stamp, jpeg) {
  if (socket.readyState !== WebSocket.OPEN) {
    giveBack(count);
    return;
  }
  const packet = new Uint8Array(HEADER_BYTES + jpeg.byteLength);
  const header = new DataView(packet.buffer);
  header.setUint32(0, count, true);
  header.setFloat64(4, stamp, true);
  packet.set(new Uint8Array(jpeg), HEADER_BYTES);
  socket.send(packet);
  state.sent += 1;
}

/** The server's message to the page; with the answer to a frame goes its picture, if the page keeps up. */
function forward(message) {
  let picture = null;
  if (message.type === "motion") {
    const canvas = waiting.get(message.number);
    if (canvas && undrawn < MOST_UNDRAWN) {
      undrawn += 1;
      picture = canvas.transferToImageBitmap();
    }
    for (const count of [...waiting.keys()]) if (count <= message.number) giveBack(count); // those before are lost
    message.captured_ms += behind + toPage; // on the page's clock
  }
  postMessage({ message, picture }, picture ? [picture] : []);
}

function giveBack(count) {
  const canvas = waiting.get(count);
  waiting.delete(count);
  if (canvas) free.push(canvas);
}
