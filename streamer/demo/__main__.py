"""`python -m streamer.demo`: serve the browser demo. Exit codes as the command line's: 0, 2, 4, 130."""

from __future__ import annotations

import logging
import socket
import sys
from collections.abc import Sequence

import tyro

from streamer.demo.settings import OWN_MACHINE, DemoConfig, check
from streamer.errors import EngineError, StreamerError, UsageError

log = logging.getLogger(__name__)


def main(argv: Sequence[str] | None = None) -> int:
    """Serve until Ctrl-C; returns the exit code. `argv` is by default the command line's."""
    logging.basicConfig(level="WARNING", format="%(levelname)s: %(message)s", stream=sys.stderr)
    try:
        config = tyro.cli(DemoConfig, prog="python -m streamer.demo", args=argv)
        check(config)
        return _serve(config)
    except StreamerError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        return 130


def _serve(config: DemoConfig) -> int:
    try:
        import uvicorn

        from streamer.demo.page import with_page
    except ImportError as error:
        raise EngineError(
            f"a library cannot be loaded ({error}): set the project up with 'make run' or 'pip install -e .'"
        ) from error
    from streamer.config import Config
    from streamer.demo.app import create_app
    from streamer.engine import load_engine
    from streamer.landmarker_model import find_landmarker
    from streamer.pipeline import warm_up

    landmarker = find_landmarker(config.landmarker)
    engine = load_engine(config.engine, "cpu")
    warm_up(Config(), engine)  # kernels are compiled before the first visitor
    engine.close()
    app = with_page(create_app(config, landmarker))
    scheme = "https" if config.tls_cert else "http"
    server = uvicorn.Server(
        uvicorn.Config(
            app,
            host=config.host,
            port=config.port,
            ssl_certfile=config.tls_cert,
            ssl_keyfile=config.tls_key,
            ws="websockets-sansio",
            ws_max_size=2 * config.limits.frame_bytes,
            ws_max_queue=2 * config.limits.buffer_frames,
            ws_per_message_deflate=False,  # JPEGs do not get smaller
            log_level="warning",
            access_log=False,
            timeout_graceful_shutdown=3,
        )
    )
    try:
        sockets = [server.config.bind_socket()]
        # Else an answer waits for the browser's acknowledgement, which comes with its next frame.
        sockets[0].setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sockets[0].listen()  # who comes before the server is ready waits
    except SystemExit:
        raise UsageError(
            f"--host {config.host} --port {config.port} cannot be used: another program may have the port; "
            "choose another --port"
        ) from None
    print(f"The demo is at {scheme}://{config.host}:{config.port}/ (Ctrl-C ends it)", file=sys.stderr)
    if config.host not in OWN_MACHINE and not config.tls_cert:
        log.warning("without --tls-cert and --tls-key, browsers of other machines will not give their camera")
    server.run(sockets)
    return 0


if __name__ == "__main__":
    sys.exit(main())
