// Finds the sections when Gradio has drawn them (a tab's content may come only when the tab is opened).
import { startCamera } from "./camera_view.js";
import { startClip } from "./clip.js";
import { startLive } from "./live.js";

const starters = { live: startLive, clip: startClip, "server-camera": startCamera };
const started = new WeakSet();

function look() {
  for (const [id, start] of Object.entries(starters)) {
    const root = document.getElementById(id);
    if (root && !started.has(root)) {
      started.add(root);
      start(root);
    }
  }
}

new MutationObserver(look).observe(document.documentElement, { childList: true, subtree: true });
look();
