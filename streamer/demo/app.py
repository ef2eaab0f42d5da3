"""The demo's own routes: static files, live WebSocket, clips, the server's camera. Without Gradio.

/live                   WebSocket, see live_socket.py
/server-camera          WebSocket, see viewer.py; only if the server was started with a camera
POST /clips             a clip as the body, ?name=...&sensitivity=0.6; {"key": ...}
POST /clips/sample      the bundled clip
GET  /clips/KEY         {"state", "frames", "of", "error", "before"}
GET  /clips/KEY/FILE    see clips.FILES
POST /clips/KEY/forget  delete it
GET  /health            {"live", "clips"}: how many there are
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from fastapi import FastAPI, Request, WebSocket
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Receive, Scope, Send

from streamer.config import Config
from streamer.demo.clips import FILES, ClipRefused, Clips
from streamer.demo.live import Models
from streamer.demo.live_socket import LiveSockets
from streamer.demo.settings import DemoConfig, allowed_names
from streamer.demo.viewer import ServerCamera
from streamer.sinks import printable

STATIC = Path(__file__).parent / "static"
SENSITIVITY = f"{Config.sensitivity:.2f}"
"""What the page begins with, and what counts where a request names none."""

HEADERS = {
    # Gradio's page configures itself in inline scripts; nothing comes from, or goes to, another host.
    "Content-Security-Policy": (
        "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; "
        "style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; media-src 'self' blob:; "
        "font-src 'self' data:; worker-src 'self' blob:; object-src 'none'; base-uri 'self'; "
        "form-action 'self'; frame-ancestors 'self'"
    ),
    "Permissions-Policy": "camera=(self), microphone=(), geolocation=()",
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
}

REPORT_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; sandbox"

NAME_CHARACTERS = 80


class Guard:
    """Around all routes: adds `HEADERS`, and turns away what another site's page sends to this server, what
    the page has no use for (Gradio would take files, too), and too many WebSockets.

    names: under which requests are served, None for all. most: WebSockets at once.
    """

    OWN = ("demo", "live", "server-camera", "clips", "health")
    GRADIO = ("", "assets", "static", "svelte", "theme.css", "favicon.ico")

    def __init__(self, app: ASGIApp, names: tuple[str, ...] | None, most: int) -> None:
        self.app = app
        self._names, self._most = names, most
        self._sockets = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        changes = scope["type"] == "websocket" or scope["method"] not in ("GET", "HEAD", "OPTIONS")
        if self._names is not None and host_name(headers.get("host")) not in self._names:
            await _refuse(scope, receive, send, f"Open this page as http://{self._names[0]} and its port.")
            return
        if changes and not same_origin(headers.get("origin"), headers.get("host")):
            await _refuse(scope, receive, send, "This page belongs to another site.")
            return
        first = scope["path"].lstrip("/").partition("/")[0]
        if first not in self.OWN and (changes or first not in self.GRADIO):
            await _refuse(scope, receive, send, "This is closed: the demo has no use for it.")
            return

        async def send_with_headers(message: Any) -> None:
            if message["type"] == "http.response.start":
                present = {name.lower() for name, _ in message["headers"]}
                message["headers"] = [
                    *message["headers"],
                    *(
                        (name.lower().encode(), value.encode())
                        for name, value in HEADERS.items()
                        if name.lower().encode() not in present
                    ),
                ]
            await send(message)

        if scope["type"] != "websocket":
            await self.app(scope, receive, send_with_headers)
        elif self._sockets >= self._most:
            await _refuse(scope, receive, send, "Too many connections.")
        else:
            self._sockets += 1
            try:
                await self.app(scope, receive, send)
            finally:
                self._sockets -= 1


def host_name(host: str | None) -> str | None:
    """The name in a Host header, without its port."""
    return urlsplit(f"//{host}").hostname if host else None


def same_origin(origin: str | None, host: str | None) -> bool:
    """Whether a request with this Origin header comes from a page of this server. Programs that are no
    browsers send none, and no page can make a browser leave it out."""
    return origin is None or (host is not None and urlsplit(origin).netloc.lower() == host.lower())


async def _refuse(scope: Scope, receive: Receive, send: Send, message: str) -> None:
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.close", "code": 1008, "reason": message})
        return
    await JSONResponse({"message": message}, 403)(scope, receive, send)


def create_app(config: DemoConfig, landmarker: Path) -> FastAPI:
    """The server's routes. landmarker: a checked model file."""
    models = Models(landmarker, config.engine)
    lives = LiveSockets(models, config.limits)

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        app.state.clips = Clips(models, config.limits)
        app.state.camera = None
        if config.camera is not None or config.source is not None:
            source = Config(camera=config.camera, source=config.source, engine=config.engine)
            app.state.camera = ServerCamera(source, landmarker, config.limits.viewers)
        try:
            yield
        finally:
            await app.state.clips.close()
            if app.state.camera is not None:
                app.state.camera.close()

    app = FastAPI(lifespan=lifespan, docs_url=None, redoc_url=None, openapi_url=None)
    app.state.lives = lives
    app.add_middleware(Guard, names=allowed_names(config), most=config.limits.sockets)
    app.mount("/demo", StaticFiles(directory=STATIC), name="demo")
    app.exception_handler(ClipRefused)(_refused)

    @app.websocket("/live")
    async def live(socket: WebSocket) -> None:
        await lives.serve(socket)

    @app.websocket("/server-camera")
    async def server_camera(socket: WebSocket) -> None:
        camera: ServerCamera | None = app.state.camera
        if camera is None:
            await socket.accept()
            await socket.send_json(
                {
                    "type": "state",
                    "message": "No camera of the server is shown: start it with --camera 0 to show one.",
                }
            )
            await socket.close()
        else:
            await camera.serve(socket)

    @app.post("/clips/sample")
    async def add_sample(sensitivity: str = SENSITIVITY) -> dict[str, str]:
        return {"key": await app.state.clips.add("sample", _sensitivity(sensitivity), None)}

    @app.post("/clips")
    async def add_clip(
        request: Request, name: str = "clip", sensitivity: str = SENSITIVITY
    ) -> dict[str, str]:
        shown = printable(name)[-NAME_CHARACTERS:].strip() or "clip"
        value = _sensitivity(sensitivity)
        length = request.headers.get("content-length", "0")
        if length.isdigit() and int(length) > config.limits.clip_bytes:
            limit = f"{config.limits.clip_bytes / 1e6:.0f} MB"
            raise ClipRefused(f"The clip is larger than {limit}: cut it or compress it first.", 413)
        return {"key": await app.state.clips.add(shown, value, request.stream())}

    @app.get("/clips/{key}")
    async def report(key: str) -> dict[str, Any]:
        return app.state.clips.report(key)

    @app.post("/clips/{key}/forget")
    async def forget(key: str) -> dict[str, str]:
        await app.state.clips.forget(key)
        return {}

    @app.get("/clips/{key}/{file}")
    async def file(key: str, file: str, download: bool = False) -> Response:
        path = app.state.clips.file(key, file)
        headers = {"Cache-Control": "no-store"}
        if file == "report.html":
            headers["Content-Security-Policy"] = REPORT_POLICY
        kind = "attachment" if download else "inline"
        return FileResponse(
            path, media_type=FILES[file], filename=file, content_disposition_type=kind, headers=headers
        )

    @app.get("/health")
    async def health() -> dict[str, int]:
        return {"live": lives.sessions, "clips": len(app.state.clips)}

    return app


def _sensitivity(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value <= 1:
        raise ClipRefused("The sensitivity has to be a number from 0 to 1.", 400)
    return value


async def _refused(request: Request, error: Exception) -> Response:
    status = error.status if isinstance(error, ClipRefused) else 400
    return JSONResponse({"message": str(error)}, status)
