// The tab that watches the server's own camera.
import { showEvent } from "./cards.js";
import { parts, socketUrl, tell } from "./page.js";

const MOST_CARDS = 20;
const STILL_MS = 3000; // without a new picture for so long, the one that is shown is no live one

const WATCHING = "You watch the server's camera.";

export function startCamera(root) {
  const { show, press } = parts(root);
  let socket = null;
  let picturedAt = 0;
  let still = false;

  function leave(text, kind = "info") {
    const old = socket;
    socket = null;
    old?.close();
    press.watch.disabled = false;
    press.leave.disabled = true;
    show.picture.hidden = true;
    still = false;
    if (text) tell(show.message, text, kind);
  }

  setInterval(() => {
    if (!socket || show.picture.hidden || still || performance.now() - picturedAt < STILL_MS) return;
    still = true;
    tell(show.message, "No new picture comes from the server: what is shown stands still. It goes on by itself if the server does.", "warning");
  }, 500);
  press.leave.onclick = () => leave("You no longer watch.");
  window.addEventListener("pagehide", () => leave());
  press.watch.disabled = false;
  press.watch.onclick = () => {
    press.watch.disabled = true;
    press.leave.disabled = false;
    tell(show.message, "Connecting to the server.", "working");
    const own = (socket = new WebSocket(socketUrl("/server-camera")));
    let said = "";
    own.onmessage = ({ data }) => {
      if (own !== socket) return;
      const message = JSON.parse(data);
      if (message.type === "picture") {
        picturedAt = performance.now();
        if (still) tell(show.message, WATCHING, "good");
        still = false;
        show.picture.src = `data:image/jpeg;base64,${message.jpeg}`;
        show.picture.hidden = false;
      } else if (message.type === "event") {
        showEvent(show.events, message.event, MOST_CARDS);
      } else {
        said = message.message;
        tell(show.message, said || WATCHING, said ? "warning" : "good");
      }
    };
    own.onclose = () => own === socket && leave(said || "The connection to the server is lost. Press Watch to try again.", "warning");
  };
}
