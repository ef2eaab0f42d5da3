"""The demo's page in a real browser: Chromium, with a clip as its camera; skipped where there is no Chromium.

Screenshots of every state are left in build/demo-screenshots, to be looked at.
"""

from __future__ import annotations

import base64
import functools
import itertools
import json
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import av
import cv2
import pytest

from streamer.demo.local_browser import FAKE_CAMERA, SAMPLE, Server, camera_file, find_chromium, launch

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
pytestmark = pytest.mark.skipif(find_chromium() is None, reason="no Chromium here: apt-get install chromium")

SCREENSHOTS = Path(__file__).parent.parent / "build" / "demo-screenshots"
PATIENCE_MS = 120_000
"""A slow machine is no failure."""


@pytest.fixture(scope="module")
def server(landmarker) -> Iterator[Server]:
    # On every address, or it would turn away the name that test_a_page_that_is_not_secure gives it.
    with Server("--limits.visitors", "1", "--host", "0.0.0.0") as server:
        yield server


@pytest.fixture(scope="module")
def playwright() -> Iterator:
    with sync_api.sync_playwright() as playwright:
        yield playwright


@pytest.fixture(scope="module")
def browser(playwright, tmp_path_factory) -> Iterator:
    """Its camera shows the sample's first seconds, over and over."""
    camera = camera_file(tmp_path_factory.mktemp("camera") / "camera.y4m", 4)
    browser = launch(playwright, "--host-resolver-rules=MAP demo.example 127.0.0.1", camera=camera)
    yield browser
    browser.close()


@pytest.fixture
def open_page(browser) -> Iterator[Callable]:
    """Opens the page and asserts, at the end, that nothing went wrong in it and nothing left this machine."""
    contexts, problems = [], []

    def open_page(url: str, chromium=browser, init: str = "", **settings):
        context = chromium.new_context(viewport={"width": 1280, "height": 900}, **settings)
        contexts.append(context)
        page = context.new_page()
        page.add_init_script(init)
        page.set_default_timeout(PATIENCE_MS)
        own = url.split("/")[2]

        def on_request(request) -> None:
            if request.url.startswith(("http", "ws")) and request.url.split("/")[2] != own:
                problems.append(f"asks another host: {request.url}")

        page.on("request", on_request)
        page.on("websocket", lambda ws: ws.url.split("/")[2] == own or problems.append(ws.url))
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.goto(url)
        page.wait_for_selector("#live [data-do=start]:enabled")
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert not problems


def _wait(page, expression: str) -> None:
    page.wait_for_function(expression, timeout=PATIENCE_MS)


def _says(page, words: str, section: str = "live") -> None:
    page.locator(f"#{section} [data-show=message]", has_text=words).wait_for()


def _shot(page, name: str, **settings) -> None:
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=SCREENSHOTS / f"{name}.png", **settings)


def _start(page) -> None:
    page.click("#live [data-do=start]")
    _wait(page, "gtsgnDemo.live.state === 'running' && gtsgnDemo.live.measured.answers > 10")


PACED_CAMERA = """
navigator.mediaDevices.getUserMedia = async () => {
  const track = new MediaStreamTrackGenerator({ kind: "video" });
  const writer = track.writable.getWriter();
  window.show = async (jpeg, timestamp) => {
    const bytes = Uint8Array.from(atob(jpeg), (letter) => letter.charCodeAt(0));
    const bitmap = await createImageBitmap(new Blob([bytes], { type: "image/jpeg" }));
    await writer.write(new VideoFrame(bitmap, { timestamp }));
  };
  return new MediaStream([track]);
};
"""
"""A camera that waits for each answer: what is found does not depend on how fast the machine is."""


FACELESS_CAMERA = """
navigator.mediaDevices.getUserMedia = async () => {
  const canvas = document.createElement("canvas");
  const pen = canvas.getContext("2d");
  setInterval(() => pen.fillRect(0, 0, Math.random() * 300, 9), 30);
  return canvas.captureStream(30);
};
"""


def _play_first_expression(page) -> float:
    """Start, and show the sample until its first expression is told; the time of the first frame, seconds."""
    page.click("#live [data-do=start]")
    pictures, time_us, begun_s = _sample_jpegs(), 0, 0.0
    while page.evaluate("gtsgnDemo.live.state") != "running":  # a video without frames does not begin
        time_us += 1000
        page.evaluate("([jpeg, time]) => window.show?.(jpeg, time)", [pictures[0], time_us])
    for number, jpeg in enumerate(pictures):
        answers = page.evaluate("gtsgnDemo.live.measured.answers")
        stamp = time_us + 33_333 * (number + 1)
        page.evaluate("([jpeg, time]) => window.show(jpeg, time)", [jpeg, stamp])
        _wait(page, f"gtsgnDemo.live.measured.answers > {answers}")
        if number == 0:
            begun_s = page.evaluate("gtsgnDemo.live.latest.time_s")
    page.locator("#live .gd-micro").first.wait_for()
    return begun_s


@functools.cache
def _sample_jpegs() -> list[str]:
    """The sample's first three seconds."""
    with av.open(str(SAMPLE)) as container:
        images = [
            frame.to_ndarray(format="bgr24") for frame in itertools.islice(container.decode(video=0), 90)
        ]
    encoded = [cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 98])[1] for image in images]
    return [base64.b64encode(jpeg.tobytes()).decode("ascii") for jpeg in encoded]


def _next_report(page) -> None:
    """Wait until the worker has told the page where it stands, twice: the first may have been on its way."""
    for _ in range(2):
        page.evaluate("() => { window.seen = gtsgnDemo.live.link.state; }")
        _wait(page, "gtsgnDemo.live.link.state !== window.seen")


def test_live_shows_face_motion_and_events(server, open_page, tmp_path):
    page = open_page(server.url, init=PACED_CAMERA)
    begun_s = _play_first_expression(page)
    card = page.locator("#live .gd-micro").first
    _shot(page, "live-with-event")
    card.screenshot(path=SCREENSHOTS / "event-card.png")
    event = page.evaluate("gtsgnDemo.live.events.find(e => e.type === 'micro_expression')")
    assert event["label"] == "I"
    # The command line finds it from frame 60 to 72.
    for moment, frame in (("onset", 60), ("offset", 72)):
        assert 30 * (event[moment]["time_s"] - begun_s) == pytest.approx(frame, abs=2.1)
    assert card.locator("img").count() == 2
    wipe = card.locator("input[type=range]")
    wipe.fill("100")
    assert card.locator(".gd-wipe").evaluate("e => e.style.getPropertyValue('--gd-wipe')") == "100%"
    # The overlay is drawn over the very frame that it was measured in.
    assert page.evaluate("gtsgnDemo.live.show.stage.width") == 640
    assert page.locator("#live [data-show=fps]").inner_text().endswith("/ s")
    assert page.locator("#live [data-show=latency]").inner_text().endswith("ms")
    with page.expect_download() as download:
        page.click("#live [data-do=download]")
    download.value.save_as(tmp_path / "events.jsonl")
    lines = [json.loads(line) for line in (tmp_path / "events.jsonl").read_text().splitlines()]
    assert lines[0]["type"] == "stream_started" and event["id"] in [line.get("id") for line in lines]


def test_pause_resume_stop_and_everything_is_freed(server, open_page):
    page = open_page(server.url)
    _start(page)
    page.click("#live [data-do=pause]")
    _says(page, "Paused")
    _next_report(page)  # made after the frames were halted
    sent = page.evaluate("gtsgnDemo.live.link.state.sent")
    _next_report(page)
    assert page.evaluate("gtsgnDemo.live.link.state.sent") == sent
    page.click("#live [data-do=pause]")
    _wait(page, f"gtsgnDemo.live.link.state.sent > {sent + 5}")
    page.locator("#live [data-set=resolution]").select_option("320x240")
    _wait(page, "gtsgnDemo.live.video.videoWidth === 320 && gtsgnDemo.live.state === 'running'")
    page.click("#live [data-do=stop]")
    _says(page, "Stopped")
    assert page.evaluate("gtsgnDemo.live.stream === null && gtsgnDemo.live.video.srcObject === null")
    while server.health()["live"]:
        page.wait_for_timeout(50)


def test_a_browser_without_track_processors(server, browser, open_page):
    """Firefox has none: there, frames come from the video element, one at a time."""
    page = open_page(server.url, init="delete window.MediaStreamTrackProcessor")
    _start(page)
    assert page.evaluate("gtsgnDemo.live.link.constructor.everyFrame") is False
    _wait(page, "gtsgnDemo.live.latest.points && gtsgnDemo.live.latest.time_s > 1")
    page.click("#live [data-do=stop]")
    _says(page, "Stopped")


def test_sensitivity_and_magnification(server, open_page):
    page = open_page(server.url)
    _start(page)
    page.locator("#live [data-set=sensitivity]").fill("0")
    page.locator("#live [data-set=magnify]").fill("20")
    assert page.locator("#live [data-show=magnify]").inner_text().endswith("20")
    assert page.locator("#live [data-show=sensitivity]").inner_text() == "0.00"
    page.locator("#live [data-set=sensitivity]").dispatch_event("change")
    seen = page.evaluate("gtsgnDemo.live.events.length")
    answers = page.evaluate("gtsgnDemo.live.measured.answers")
    _wait(page, f"gtsgnDemo.live.measured.answers > {answers + 125}")  # the clip once over
    later = page.evaluate(f"gtsgnDemo.live.events.slice({seen}).filter(e => e.type === 'micro_expression')")
    assert not later


def test_one_visitor_too_many_is_told_so(server, open_page):
    first, second = open_page(server.url), open_page(server.url)
    _start(first)
    second.click("#live [data-do=start]")
    _says(second, "places are taken")
    assert second.evaluate("gtsgnDemo.live.state") == "idle"
    _shot(second, "server-full")
    first.click("#live [data-do=stop]")
    while server.health()["live"]:
        first.wait_for_timeout(50)
    _start(second)


def test_camera_refused_and_no_camera(server, playwright, open_page):
    for flags, words, name in (
        (
            (FAKE_CAMERA[0], "--use-fake-ui-for-media-stream=deny"),
            "not allowed",
            "refused",
        ),
        (("--use-fake-ui-for-media-stream",), "No camera was found", "no-camera"),
    ):
        browser = launch(playwright, *flags)
        page = open_page(server.url, browser)
        page.click("#live [data-do=start]")
        _says(page, words)
        assert page.locator("#live [data-do=start]").is_enabled()
        _shot(page, f"camera-{name}")
        page.context.close()
        browser.close()


def test_a_page_that_is_not_secure_is_told_what_to_do(server, open_page):
    page = open_page(f"http://demo.example:{server.port}/")
    page.click("#live [data-do=start]")
    _says(page, "--tls-cert")


def test_camera_unplugged(server, open_page):
    page = open_page(server.url)
    _start(page)
    # A file cannot be pulled out: the event that the browser would send is sent.
    page.evaluate("gtsgnDemo.live.stream.getVideoTracks()[0].dispatchEvent(new Event('ended'))")
    _says(page, "camera has gone")
    _shot(page, "camera-unplugged")
    _start(page)


def test_hidden_tab_pauses_and_goes_on(server, open_page):
    page = open_page(server.url)
    _start(page)
    # Without a window no tab is ever hidden: the browser's state is put on.
    hide = "Object.defineProperty(document, 'hidden', {value: %s, configurable: true});"
    change = "document.dispatchEvent(new Event('visibilitychange'))"
    page.evaluate(hide % "true" + change)
    _says(page, "tab is hidden")
    _shot(page, "tab-hidden")
    answers = page.evaluate("gtsgnDemo.live.measured.answers")
    page.evaluate(hide % "false" + change)
    _wait(page, f"gtsgnDemo.live.measured.answers > {answers + 10}")
    _says(page, "Running")


def test_stalled_and_restarted_server(server, open_page):
    page = open_page(server.url)
    _start(page)
    server.process.send_signal(signal.SIGSTOP)
    _wait(page, "gtsgnDemo.live.link.drops.page > 0")  # no more than are allowed wait for an answer
    _says(page, "stalled")
    _shot(page, "network-stalled")
    server.process.send_signal(signal.SIGCONT)
    answers = page.evaluate("gtsgnDemo.live.measured.answers")
    _wait(page, f"gtsgnDemo.live.state === 'running' && gtsgnDemo.live.measured.answers > {answers + 10}")
    server.end()
    _says(page, "connection to the server is lost")
    _shot(page, "server-gone")
    server.start()
    answers = page.evaluate("gtsgnDemo.live.measured.answers")
    _wait(page, f"gtsgnDemo.live.state === 'running' && gtsgnDemo.live.measured.answers > {answers + 10}")
    _says(page, "Running")


def test_a_visitors_pause_outlives_the_connection(server, open_page):
    page = open_page(server.url)
    _start(page)
    page.click("#live [data-do=pause]")
    server.end()
    _says(page, "connection to the server is lost")
    server.start()
    _says(page, "Paused")
    _next_report(page)
    sent = page.evaluate("gtsgnDemo.live.link.state.sent")
    _next_report(page)
    assert page.evaluate("gtsgnDemo.live.link.state.sent") == sent
    page.click("#live [data-do=pause]")
    _wait(page, f"gtsgnDemo.live.link.state.sent > {sent}")


def test_a_camera_without_pictures(server, open_page):
    page = open_page(server.url, init=PACED_CAMERA)
    page.click("#live [data-do=start]")
    _says(page, "The camera gives no pictures")
    page.click("#live [data-do=stop]")
    _says(page, "Stopped")
    assert page.evaluate("document.activeElement === gtsgnDemo.live.press.start")


def test_a_hint_can_be_read_and_comes_again(server, open_page):
    page = open_page(server.url, init=FACELESS_CAMERA)
    for _ in range(2):
        page.click("#live [data-do=start]")
        hint = page.locator("#live .gd-hints li", has_text="No face is found")
        hint.wait_for()
        assert hint.evaluate("e => getComputedStyle(e).color") == "rgb(255, 233, 138)"
        _shot(page, "no-face")
        page.click("#live [data-do=stop]")
        _says(page, "Stopped")


def test_a_second_clip_takes_the_place_of_the_first(server, open_page):
    page = open_page(server.url)
    page.get_by_role("tab", name="Clip").click()
    page.locator("#clip [data-do=sample]:enabled").dblclick()
    page.locator("#clip [data-show=result]").wait_for()
    assert server.health()["clips"] == 1


def test_clip_is_shown_with_timeline_and_downloads(server, open_page, tmp_path):
    page = open_page(server.url, color_scheme="dark")
    page.get_by_role("tab", name="Clip").click()
    page.click("#clip [data-do=sample]:enabled")
    page.locator("#clip [data-show=result]").wait_for()
    cards = page.locator("#clip .gd-micro")
    assert cards.count() == 7
    _wait(page, "gtsgnDemo.clip.video.readyState >= 2")
    cards.nth(1).locator(".gd-jump").click()
    apex = page.evaluate("gtsgnDemo.clip.found[1].apex.time_s")
    assert page.evaluate("gtsgnDemo.clip.video.currentTime") == pytest.approx(apex, abs=0.01)
    page.locator("#clip [data-do=next]").click()
    later = page.evaluate("gtsgnDemo.clip.found[2].apex.time_s")
    assert page.evaluate("gtsgnDemo.clip.video.currentTime") == pytest.approx(later, abs=0.01)
    page.locator("#clip [data-show=chart]").focus()
    page.keyboard.press("ArrowRight")
    assert page.evaluate("gtsgnDemo.clip.video.currentTime") == pytest.approx(later + 1 / 30, abs=0.02)
    page.locator("#clip [data-set=speed]").select_option("0.25")
    assert page.evaluate("gtsgnDemo.clip.video.playbackRate") == 0.25
    _wait(page, "!gtsgnDemo.clip.video.seeking")
    _shot(page, "clip-timeline-dark")
    for name in ("events.jsonl", "events.csv", "annotated.mp4", "report.html"):
        with page.expect_download() as download:
            page.click(f"#clip a[download='{name}']")
        assert download.value.suggested_filename == name
        download.value.save_as(tmp_path / name)
    assert (tmp_path / "report.html").read_text().count('class="event"') == 7
    assert server.health()["clips"] == 1
    page.goto("about:blank")
    while server.health()["clips"]:
        page.wait_for_timeout(50)


def test_a_file_that_is_no_clip_says_so(server, open_page, tmp_path):
    page = open_page(server.url)
    page.get_by_role("tab", name="Clip").click()
    file = tmp_path / "notes.mp4"
    file.write_text("not a video\n" * 100)
    page.locator("#clip [data-set=file]:enabled").set_input_files(file)
    _says(page, "cannot be read as a video", "clip")
    _shot(page, "clip-refused")
    assert page.locator("#clip [data-show=result]").is_hidden()


def test_phone_width_and_dark(server, open_page):
    page = open_page(server.url, init=PACED_CAMERA, color_scheme="dark", is_mobile=True, has_touch=True)
    page.set_viewport_size({"width": 390, "height": 844})
    _play_first_expression(page)
    _shot(page, "live-phone-dark", full_page=True)
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    text = "getComputedStyle(document.querySelector('#live')).getPropertyValue('--gd-text')"
    assert page.evaluate(text) == "#edeff2"


def test_keyboard_and_names_for_screen_readers(server, open_page):
    page = open_page(server.url)
    page.locator("#live [data-do=start]").focus()
    page.keyboard.press("Enter")
    _wait(page, "gtsgnDemo.live.state === 'running'")
    page.locator("#live [data-do=stop]").focus()
    page.keyboard.press("Space")
    _says(page, "Stopped")
    page.get_by_role("tab", name="Live").focus()
    page.keyboard.press("Tab")
    nameless = """() => [...document.querySelectorAll('.gd :is(button, input, select, canvas, video, img)')]
        .filter(e => e.getAttribute('aria-hidden') !== 'true')
        .filter(e => !(e.getAttribute('aria-label') || e.alt || e.innerText?.trim() || e.labels?.length))
        .map(e => e.outerHTML)"""
    assert page.evaluate(nameless) == []
    for name in ("Start camera", "Pause", "Stop"):
        assert page.get_by_role("button", name=name, exact=True).count() == 1
    for name in ("Camera", "Resolution"):
        assert page.get_by_role("combobox", name=name).count() == 1


def test_scripts_are_the_pages_own(server, open_page):
    """Inline scripts are Gradio's settings only; every file comes from the demo's own server."""
    page = open_page(server.url)
    sources = page.evaluate("[...document.querySelectorAll('script[src]')].map(s => s.src)")
    assert sources and all(source.startswith(server.url) for source in sources)
    inline = page.evaluate("[...document.scripts].filter(s => !s.src).map(s => s.textContent)")
    assert all("gradio" in text for text in inline if text.strip())
