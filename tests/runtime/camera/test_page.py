"""The page in real headless Chromium: what a person at the robot does with it."""

from __future__ import annotations

import functools
import threading
import time
import zlib

import cv2
import numpy as np
import pytest
from browser import check_on_a_phone, chromium
from browser import wait as wait_for
from standin import StandIn
from streams import RtspCamera

from cast_sdk.runtime.sources import opencv as capture

pytest.importorskip("uvicorn", reason="needs the extra serve")
from cast_sdk.runtime.camera.packet import pack
from cast_sdk.runtime.camera.server import WebView


class Camera:
    def __init__(self, source: str, *, track: bool = False, **options) -> None:
        self.rt = StandIn()
        self.view = WebView(self.rt, port=0, title=source, **options)
        self.results = self.rt.stream(source, on_status=self.view.status, track=track)
        self.thread = threading.Thread(target=lambda: [self.view.show(result) for result in self.results])
        self.thread.start()

    def close(self) -> None:
        self.results.close()
        self.thread.join()
        self.view.close()


@pytest.fixture(scope="module")
def desktop(tmp_path_factory):
    folder = tmp_path_factory.mktemp("desktop")
    with chromium(folder) as page:
        page.downloads = folder / "downloads"
        yield page


@pytest.fixture(scope="module")
def scene():
    camera = Camera("test://?width=320&height=240&rate=15")
    yield camera
    camera.close()


wait = functools.partial(wait_for, seconds=15.0)


def frames(page) -> int:
    return int(page.execute_script("return document.body.dataset.frames || 0"))


def open_page(page, url: str) -> None:
    page.get(url)
    wait(lambda: frames(page) > 2)


def pixels(page) -> int:
    """Checksum of what the canvas shows."""
    data = page.execute_script("return document.getElementById('view').toDataURL('image/png')")
    return zlib.crc32(data.encode())


def colours(page, *wanted: tuple[int, int, int]) -> list[int]:
    """How many pixels of the canvas have each RGB colour."""
    import base64

    data = page.execute_script("return document.getElementById('view').toDataURL('image/png')")
    image = cv2.imdecode(np.frombuffer(base64.b64decode(data.partition(",")[2]), np.uint8), cv2.IMREAD_COLOR)
    rgb = image[..., ::-1].astype(int)
    return [int((np.abs(rgb - colour).max(-1) < 12).sum()) for colour in wanted]


def slide(page, name: str, value: int) -> None:
    script = (
        "const s = document.getElementById(arguments[0]); s.value = arguments[1]; s.dispatchEvent(new Event('input'))"
    )
    page.execute_script(script, name, value)


def text(page, name: str) -> str:
    return page.execute_script("return document.getElementById(arguments[0]).textContent", name)


def visible(page, name: str) -> bool:
    return page.find_element("id", name).is_displayed()


def press(page, name: str) -> None:
    page.find_element("id", name).click()


def problems(page) -> list[str]:
    return [entry["message"] for entry in page.get_log("browser") if entry["level"] == "SEVERE"]


def test_it_shows_moving_frames(desktop, scene):
    open_page(desktop, scene.view.url)
    first = pixels(desktop)
    wait(lambda: pixels(desktop) != first)
    assert "live" in text(desktop, "state") and not visible(desktop, "note")
    assert text(desktop, "title").startswith("test://")
    wait(lambda: float(text(desktop, "rate").split()[0]) > 5)
    best = text(desktop, "best")
    assert any(name in best for name in ("red", "green", "blue")) and "%" in best
    for stage in ("superpixels", "model", "latency"):
        assert stage in text(desktop, "legend")
    painted = """const c = document.getElementById('chart');
        return c.getContext('2d').getImageData(0, 0, c.width, c.height).data.some(v => v)"""
    assert desktop.execute_script(painted)
    assert problems(desktop) == []


def test_level_and_opacity_are_composed_in_the_browser(desktop, scene):
    open_page(desktop, scene.view.url)
    press(desktop, "pause")
    time.sleep(0.5)
    assert text(desktop, "pause") == "Resume"
    still = pixels(desktop)
    time.sleep(0.3)
    assert pixels(desktop) == still, "paused"
    seen = {}
    for level in range(5):
        slide(desktop, "level", level)
        seen[level] = pixels(desktop)
        assert desktop.execute_script("return document.body.dataset.level") == str(level)
    assert len(set(seen.values())) == 5
    assert "superpixels" in desktop.execute_script(
        "setLevel(0); return document.getElementById('levelName').textContent"
    )
    shown = set()
    for percent in (0, 50, 100):
        slide(desktop, "opacity", percent)
        shown.add(pixels(desktop))
    assert len(shown) == 3
    slide(desktop, "level", 2)
    slide(desktop, "opacity", 45)
    before = pixels(desktop)
    press(desktop, "lines")
    assert pixels(desktop) != before
    press(desktop, "lines")
    assert pixels(desktop) == before
    press(desktop, "pause")
    count = frames(desktop)
    wait(lambda: frames(desktop) > count)


def test_pointing_highlights_a_segment_and_its_ancestors(desktop, scene):
    from selenium.webdriver import ActionChains

    open_page(desktop, scene.view.url)
    slide(desktop, "level", 1)
    rings = ((255, 255, 255), (253, 224, 71), (251, 146, 60), (244, 63, 94))  # levels 1 to 4
    assert "Point at the picture" in text(desktop, "tree")
    view = desktop.find_element("id", "view")
    ActionChains(desktop).move_to_element_with_offset(view, 30, -60).perform()
    wait(lambda: len(desktop.find_elements("css selector", "#tree .node")) == 5)
    assert all(count > 20 for count in colours(desktop, *rings)), colours(desktop, *rings)
    nodes = [node.text.replace("\n", " ") for node in desktop.find_elements("css selector", "#tree .node")]
    assert nodes[0].startswith("Level 4, segment 0") and nodes[-1].startswith("Superpixel ")
    shares = [float(node.split()[-2]) for node in nodes]
    assert shares == sorted(shares, reverse=True) and shares[0] == pytest.approx(50, abs=0.1)
    chosen = desktop.find_element("css selector", "#tree .node.here").text
    assert chosen.startswith("Level 1")
    slide(desktop, "level", 4)
    wait(lambda: colours(desktop, *rings[1:3]) == [0, 0])  # only what is coarser than the level is outlined


def point_at(page, across: float, down: float) -> None:
    """Put the mouse over the picture, at fractions of its size."""
    from selenium.webdriver import ActionChains

    view = page.find_element("id", "view")
    size = view.size
    ActionChains(page).move_to_element_with_offset(
        view, round((across - 0.5) * size["width"]), round((down - 0.5) * size["height"])
    ).perform()


def nodes(page) -> list[str]:
    return [node.text.replace("\n", " ") for node in page.find_elements("css selector", "#tree .node")]


def test_tracks_stay_age_and_leave_a_trail(desktop):
    camera = Camera("test://?width=320&height=240&rate=15", track=True)
    try:
        open_page(desktop, camera.view.url)
        slide(desktop, "level", 2)
        point_at(desktop, 0.5, 0.4)
        first = wait(lambda: len(nodes(desktop)) == 5 and nodes(desktop))
        assert first[0].startswith("Level 4, track ") and first[-1].startswith("Superpixel, track ")
        names = [node.split(" s ")[0].rsplit(" ", 1)[0] for node in first]
        assert len(set(names)) == 5, "no number is used on two levels"
        ages = [float(node.split(" s ")[0].rsplit(" ", 1)[1]) for node in first]

        def older():
            now = nodes(desktop)
            assert [node.split(" s ")[0].rsplit(" ", 1)[0] for node in now] == names, "the same tracks"
            return all(float(n.split(" s ")[0].rsplit(" ", 1)[1]) > age + 0.5 for n, age in zip(now, ages, strict=True))

        wait(older)
        colours_now = "return [...document.querySelectorAll('#tree rect')].map(r => r.getAttribute('fill'))"
        before, count = desktop.execute_script(colours_now), frames(desktop)
        wait(lambda: frames(desktop) > count + 10)
        assert desktop.execute_script(colours_now) == before, "colours follow tracks"
        press(desktop, "pause")
        point_at(desktop, 0.5, 0.4)
        with_trail = pixels(desktop)
        point_at(desktop, 0.5, 0.9)
        assert pixels(desktop) != with_trail
        press(desktop, "pause")
        assert problems(desktop) == []
    finally:
        camera.close()


def test_the_picture_fills_its_part_of_a_desktop(scene, tmp_path):
    """No margins beside the picture, on screens of other shapes than its own."""
    for width, height in ((1280, 860), (1920, 1000), (2560, 1000)):
        with chromium(tmp_path, width, height) as page:
            open_page(page, scene.view.url)
            left, right, panel, edge, inner = page.execute_script(
                """const stage = document.getElementById('stage').getBoundingClientRect();
                const aside = document.querySelector('aside').getBoundingClientRect();
                return [stage.left, stage.right, aside.left, aside.right, innerWidth]"""
            )
            assert left < 30 and panel - right < 30 and inner - edge < 30, (width, height)
            assert page.execute_script("return document.documentElement.scrollWidth <= innerWidth")


def test_an_unsure_model_is_shown_as_such(desktop):
    rt = StandIn()
    view = WebView(rt, port=0)
    try:
        result = rt.segment(np.zeros((40, 40, 3), np.uint8))
        view.show(result)
        desktop.get(view.url)
        wait(lambda: frames(desktop) > 0)
        sure = text(desktop, "best")
        assert "unsure" not in sure
        view.hub._call(view.hub._publish, pack(result, unsure=True))
        wait(lambda: "unsure" in text(desktop, "best"))
    finally:
        view.close()


def test_a_photograph_can_be_dropped(desktop, scene, tmp_path):
    photo = tmp_path / "photo.png"
    cv2.imwrite(str(photo), np.full((90, 200, 3), (0, 0, 250), np.uint8))
    open_page(desktop, scene.view.url)
    desktop.find_element("id", "file").send_keys(str(photo))
    wait(lambda: desktop.execute_script("return document.body.dataset.photo") == "photo.png")
    assert text(desktop, "best").startswith("red")
    ratio = desktop.execute_script("const v = document.getElementById('view'); return v.width / v.height")
    assert ratio == pytest.approx(200 / 90, rel=0.01)
    count = frames(desktop)
    press(desktop, "back")
    wait(lambda: frames(desktop) > count)
    # A real drop event carries the file too.
    drop = """const t = new DataTransfer(); const done = arguments[0];
        fetch('/').then(r => r.blob()).then(b => { t.items.add(new File([b], 'page.html'));
        dispatchEvent(new DragEvent('drop', {dataTransfer: t, bubbles: true, cancelable: true})); done(); })"""
    desktop.execute_async_script(drop)
    wait(lambda: visible(desktop, "toast"))
    assert "JPEG, PNG, WebP" in text(desktop, "toast")


def test_snapshot_is_saved(desktop, scene):
    open_page(desktop, scene.view.url)
    press(desktop, "shot")
    picture = wait(lambda: next(desktop.downloads.glob("cast-*.png"), None))
    assert wait(lambda: cv2.imread(str(picture)) is not None)
    assert cv2.imread(str(picture)).shape == (240, 320, 3)


def test_the_token(desktop):
    camera = Camera("test://?width=160&height=120&rate=15", token="only-for-this-test")
    try:
        address = f"http://127.0.0.1:{camera.view.port}/"
        for url in (address, address + "?token=wrong"):
            desktop.get(url)
            assert "Token" in desktop.title and not desktop.find_elements("id", "view")
        desktop.find_element("name", "token").send_keys("only-for-this-test\n")
        wait(lambda: frames(desktop) > 2)
        assert desktop.current_url == address, "the token does not stay in the address"
    finally:
        camera.close()


def test_a_lost_camera_is_shown_and_comes_back(desktop, data_dir, tmp_path, monkeypatch):
    monkeypatch.setattr(capture, "READ_TIMEOUT", 2.0)
    rtsp = RtspCamera(data_dir, tmp_path)
    rtsp.start()
    camera = Camera(rtsp.uri)
    try:
        open_page(desktop, camera.view.url)
        rtsp.kill()
        wait(lambda: "The camera is away" in text(desktop, "note") and visible(desktop, "note"), seconds=30)
        assert "reconnecting" in text(desktop, "state") and "Attempt" in text(desktop, "note")
        count = frames(desktop)
        rtsp.start()
        wait(lambda: frames(desktop) > count + 3, seconds=30)
        wait(lambda: not visible(desktop, "note"))
        assert "live" in text(desktop, "state")
    finally:
        camera.close()
        rtsp.kill()


def test_a_restarted_server_is_found_again(desktop):
    camera = Camera("test://?width=160&height=120&rate=15")
    open_page(desktop, camera.view.url)
    port = camera.view.port
    camera.close()
    wait(lambda: "No connection" in text(desktop, "note"))
    count = frames(desktop)
    rt = StandIn()
    again = WebView(rt, port=port)
    try:
        again.show(rt.segment(np.zeros((40, 40, 3), np.uint8)))
        wait(lambda: frames(desktop) > count, seconds=20)
    finally:
        again.close()


def test_on_a_phone(scene, tmp_path):
    with chromium(tmp_path, phone=True) as phone:
        open_page(phone, scene.view.url)
        check_on_a_phone(phone)
        assert problems(phone) == []
