"""Takes the pictures of the documentation: the demo, the camera page and the page for browsers.

    python benchmarks/web/take_pictures.py docs/images

Runs the bundled model, the scene `test://` and headless Chromium here. Take them while nothing else runs: the pages
show times. Look at each one before it is committed.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import shutil
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from page import serve

import cast_sdk
from cast_sdk import bundled
from cast_sdk.export.web.assemble import write_folder
from cast_sdk.runtime.camera.server import WebView

PHOTOS = Path(__file__).parents[2] / "examples/photos"
FLAGS = ("--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--disable-dev-shm-usage")
QUALITY = 88  # of the JPEG files
WIDE, LARGE, SHOWN = (1360, 830), (1440, 900), (1200, 750)
POINT = """const view = document.getElementById('view'), box = view.getBoundingClientRect();
const at = {pointerType: '%s', clientX: box.x + box.width * %g, clientY: box.y + box.height * %g, bubbles: true};
view.dispatchEvent(new PointerEvent('%s', at));"""


@contextlib.contextmanager
def chromium(size: tuple[int, int] | None) -> Iterator[Any]:
    """A browser window of that size in pixels; None: a phone of 390 x 844."""
    from selenium import webdriver

    profile = Path(tempfile.mkdtemp(prefix="cast-pictures-"))
    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium") or ""
    for flag in (*FLAGS, f"--user-data-dir={profile}"):
        options.add_argument(flag)
    if size is None:
        metrics = {"width": 390, "height": 844, "pixelRatio": 1.0, "touch": True}
        options.add_experimental_option("mobileEmulation", {"deviceMetrics": metrics})
    page = webdriver.Chrome(options=options, service=webdriver.ChromeService(shutil.which("chromedriver")))
    try:
        if size is not None:
            metrics = {"width": size[0], "height": size[1], "deviceScaleFactor": 1, "mobile": False}
            page.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        yield page
    finally:
        page.quit()
        shutil.rmtree(profile, ignore_errors=True)


def shoot(page: Any, path: Path, size: tuple[int, int] | None = None) -> None:
    data = base64.b64decode(page.execute_cdp_cmd("Page.captureScreenshot", {"format": "png"})["data"])
    picture = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    save(picture if size is None else cv2.resize(picture, size, interpolation=cv2.INTER_AREA), path)


def save(picture: np.ndarray, path: Path) -> None:
    if not cv2.imwrite(str(path), picture, [cv2.IMWRITE_JPEG_QUALITY, QUALITY]):
        raise SystemExit(f"not written: {path}")
    print(f"{path}: {picture.shape[1]} x {picture.shape[0]}, {path.stat().st_size / 1e3:.0f} kB", flush=True)


def demo(rt: cast_sdk.Runtime, folder: Path) -> None:
    """README's picture: coffee.jpg and all levels, as `make demo` draws it."""
    drawn = rt.segment(PHOTOS / "coffee.jpg").plot()
    size = 1200, round(1200 * drawn.shape[0] / drawn.shape[1])
    save(cv2.resize(drawn, size, interpolation=cv2.INTER_AREA), folder / "demo.jpg")


def camera(rt: cast_sdk.Runtime, folder: Path, seconds: float) -> None:
    view = WebView(rt, port=0, title="test://?rate=20")
    results = rt.stream("test://?rate=20", on_status=view.status, track=True)
    thread = threading.Thread(target=lambda: [view.show(result) for result in results])
    thread.start()
    try:
        with chromium(WIDE) as page:
            page.get(view.url)
            time.sleep(seconds)
            shoot(page, folder / "camera-live.jpg")
            page.execute_script(POINT % ("mouse", 0.58, 0.16, "pointermove"))
            time.sleep(1)
            shoot(page, folder / "camera-pointer.jpg")
        with chromium(WIDE) as page:
            page.get(view.url)
            time.sleep(3)
            page.find_element("id", "file").send_keys(str(bundled.path("photos/rocket.jpg")))
            time.sleep(3)
            shoot(page, folder / "camera-photo.jpg")
        with chromium(None) as page:
            page.get(view.url)
            time.sleep(6)
            page.execute_script(POINT % ("touch", 0.28, 0.22, "click"))
            time.sleep(1)
            shoot(page, folder / "camera-phone.jpg")
    finally:
        results.close()
        thread.join()
        view.close()


def browser(folder: Path, work: Path) -> None:
    address = serve(write_folder(bundled.path(bundled.MODEL), work / "site"), isolated=False)
    for name, size, photo, kind in (("web-desktop", LARGE, 1, "mouse"), ("web-phone", None, 0, "touch")):
        with chromium(size) as page:
            page.get(address)
            deadline = time.monotonic() + 120
            while page.find_element("css selector", "#state span").text != "ready" and time.monotonic() < deadline:
                time.sleep(0.5)
            for button in (photo, photo, photo):  # the first run warms up
                page.find_elements("css selector", "#gallery button")[button].click()
                time.sleep(2)
            page.execute_script(POINT % (kind, 0.5, 0.45, "click" if kind == "touch" else "pointermove"))
            time.sleep(1)
            shoot(page, folder / f"{name}.jpg", SHOWN if size else None)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path, help="where the pictures go; those of the same names are replaced")
    parser.add_argument("--seconds", type=float, default=20, help="of the camera before its first picture")
    arguments = parser.parse_args()
    with cast_sdk.Runtime() as rt, tempfile.TemporaryDirectory() as work:
        demo(rt, arguments.folder)
        camera(rt, arguments.folder, arguments.seconds)
        browser(arguments.folder, Path(work))


if __name__ == "__main__":
    main()
