"""Several visitors at once, without browsers: `python -m streamer.demo.crowd --visitors 4 --seconds 40`.

Each visitor sends the bundled sample's frames at their own pace over a WebSocket, as the page does, and
begins at another place of the clip, so that no two may have the same events. Prints, for each, the frames a
second that were worked on, the time from sending a frame to its answer, and the events beside those of the
command line; and what the visitor beyond the limit is told. A browser on the same machine costs four times
as much as the server: see `measure` for the two together.
"""

from __future__ import annotations

import asyncio
import json
import os
import struct
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import tyro
from websockets.asyncio.client import connect

from streamer.config import Config
from streamer.demo.local_browser import Server, cpu_seconds, family, memory_mb
from streamer.demo.measure import command_line, compare, percentiles
from streamer.demo.settings import Limits
from streamer.errors import StreamerError
from streamer.messages import Frame
from streamer.sources import open_source


@dataclass(frozen=True)
class CrowdConfig:
    """Several visitors of the demo at once, without browsers."""

    visitors: int = Limits().visitors
    """How many."""
    seconds: float = 40.0
    """How long they stay."""


def main() -> int:
    """Measure and print; returns the exit code."""
    try:
        config = tyro.cli(CrowdConfig, prog="python -m streamer.demo.crowd")
        expected, clip_s = command_line()
        jpegs = _jpegs()
        with Server() as server:
            figures = asyncio.run(_crowd(config, server, jpegs, expected, clip_s))
    except StreamerError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    print(json.dumps(figures, indent=1))
    return 0


def _jpegs() -> list[bytes]:
    with open_source(Config(source="sample")) as source:
        frames = [message for message in source.frames() if isinstance(message, Frame)]
    quality = [cv2.IMWRITE_JPEG_QUALITY, 95]
    return [cv2.imencode(".jpg", frame.image, quality)[1].tobytes() for frame in frames]


async def _crowd(
    config: CrowdConfig,
    server: Server,
    jpegs: list[bytes],
    expected: list[dict[str, Any]],
    clip_s: float,
) -> dict[str, Any]:
    at_server = family(server.process.pid)
    cpu_s, begun = cpu_seconds(at_server), time.monotonic()
    places = [i * len(jpegs) // config.visitors for i in range(config.visitors)]
    visits = [asyncio.create_task(_visit(server.url, jpegs, place, config.seconds)) for place in places]
    await asyncio.sleep(config.seconds / 2)
    used_mb = memory_mb(at_server)
    refusal = await _one_more(server.url) if config.visitors >= Limits().visitors else None
    results = await asyncio.gather(*visits)
    return {
        "visitors": config.visitors,
        "seconds": config.seconds,
        "load": os.getloadavg()[0],
        "server_cores": round((cpu_seconds(at_server) - cpu_s) / (time.monotonic() - begun), 2),
        "server_memory_mb": round(used_mb),
        "one_too_many_is_told": refusal,
        "each": [
            {
                "begins_at_s": round(place / 30, 2),
                "frames_s": round(result["answers"] / result["streamed_s"], 2),
                "answer_p50_ms": round(percentiles(result["latencies"])[0], 1),
                "answer_p95_ms": round(percentiles(result["latencies"])[1], 1),
                "dropped": result["drops"],
                "events": compare(expected, result["events"], clip_s, result["streamed_s"]),
            }
            for place, result in zip(places, results, strict=True)
        ],
    }


async def _visit(url: str, jpegs: Sequence[bytes], place: int, seconds: float) -> dict[str, Any]:
    """Stream for so many seconds from a place of the clip on; what came back."""
    result: dict[str, Any] = {"answers": 0, "latencies": [], "events": [], "drops": {}}
    async with connect(url.replace("http", "ws", 1) + "live", max_size=None, compression=None) as socket:
        await socket.send(json.dumps({"type": "start", "sensitivity": Config.sensitivity}))
        while json.loads(await socket.recv())["type"] != "ready":
            pass
        sent_s: list[float] = []

        async def send() -> None:
            begun = time.monotonic()
            for i in range(int(seconds * 30)):
                await asyncio.sleep(max(0.0, begun + i / 30 - time.monotonic()))
                sent_s.append(time.monotonic())
                jpeg = jpegs[(place + i) % len(jpegs)]
                await socket.send(struct.pack("<Id", i, 1e3 * i / 30) + jpeg)
            await socket.send(json.dumps({"type": "stop"}))

        sending = asyncio.create_task(send())
        async for text in socket:
            message = json.loads(text)
            if message["type"] == "motion":
                result["answers"] += 1
                result["latencies"].append(1e3 * (time.monotonic() - sent_s[message["number"]]))
                result["drops"] = message["drops"]
            elif message["type"] == "event" and message["event"]["type"].endswith("expression"):
                result["events"].append(message["event"])
        await sending
    result["streamed_s"] = time.monotonic() - sent_s[0]
    return result


async def _one_more(url: str) -> str:
    async with connect(url.replace("http", "ws", 1) + "live") as socket:
        return json.loads(await socket.recv())["message"]


if __name__ == "__main__":
    sys.exit(main())
