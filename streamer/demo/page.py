"""The page: Gradio draws its frame and tabs, `static/` holds what is in them and what they do."""

from __future__ import annotations

import os

# Before the import: Gradio reads these when it is loaded. Nothing is sent to anybody.
os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
os.environ["HF_HUB_OFFLINE"] = "1"

import gradio as gr
from fastapi import FastAPI
from gradio.themes import Base

from streamer.demo.app import SENSITIVITY, STATIC
from streamer.sinks.panel import LEGEND

TITLE = "Micro-expressions, live"

HEAD = """
<link rel="stylesheet" href="/demo/style.css">
<script type="module" src="/demo/app.js"></script>
<meta name="viewport" content="width=device-width, initial-scale=1">
"""

TABS = (("Live", "live.html"), ("Clip", "clip.html"), ("Camera of the server", "camera.html"))

# The system's own fonts: others would be fetched from another host.
FONT, FONT_MONO = ("system-ui", "sans-serif"), ("ui-monospace", "monospace")


def with_page(app: FastAPI) -> FastAPI:
    """The server of `create_app` with the page at its root."""
    with gr.Blocks(title=TITLE, analytics_enabled=False, fill_width=True) as page:
        gr.Markdown(f"# {TITLE}")
        with gr.Tabs():
            for name, file in TABS:
                with gr.Tab(name):
                    gr.HTML(_section(file))
            with gr.Tab("What it can and cannot know"):
                gr.HTML(_section("about.html"))
    return gr.mount_gradio_app(
        app,
        page,
        path="",
        theme=Base(font=FONT, font_mono=FONT_MONO),
        head=HEAD,
        footer_links=[],
        ssr_mode=False,
        pwa=False,
        mcp_server=False,
        enable_monitoring=False,
        app_kwargs={"docs_url": None, "redoc_url": None, "openapi_url": None},
    )


def _section(file: str) -> str:
    html = (STATIC / file).read_text(encoding="utf-8")
    return html.replace("{legend}", LEGEND).replace("{sensitivity}", SENSITIVITY)
