"""Headless Chromium for the tests of the page."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

import pytest

FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--hide-scrollbars",
)


def missing(reason: str) -> NoReturn:
    """Skip where a tool is not installed; where `CAST_SDK_ALL_TOOLS` is set, as in `.ci/run`, that is a failure."""
    if os.environ.get("CAST_SDK_ALL_TOOLS"):
        pytest.fail(reason)
    pytest.skip(reason)


@contextmanager
def chromium(
    folder: Path, width: int = 1280, height: int = 860, *, phone: bool = False, flags: tuple[str, ...] = ()
) -> Iterator:
    """A WebDriver with a fresh profile below `folder`; downloads go to `folder`/downloads."""
    browser, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if not browser or not driver:
        missing("needs Chromium (apt-get install -y chromium chromium-driver)")
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = browser
    for flag in (*FLAGS, *flags, f"--window-size={width},{height}", f"--user-data-dir={folder / 'profile'}"):
        options.add_argument(flag)
    downloads = folder / "downloads"
    downloads.mkdir(exist_ok=True)
    options.add_experimental_option("prefs", {"download.default_directory": str(downloads)})
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    if phone:
        metrics = {"width": 390, "height": 844, "pixelRatio": 2.0, "touch": True}
        options.add_experimental_option("mobileEmulation", {"deviceMetrics": metrics})
    page = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    try:
        page.set_script_timeout(20)
        yield page
    finally:
        page.quit()


def wait(condition: Callable[[], Any], seconds: float = 60.0) -> Any:
    """The first true value of `condition`."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if value := condition():
            return value
        time.sleep(0.05)
    raise AssertionError(f"not within {seconds:g} s")


def check_on_a_phone(page: Any) -> None:
    """Nothing sticks out, a tap shows the segment's ancestors, and buttons are large enough for fingers."""
    width = page.execute_script("return [innerWidth, document.documentElement.scrollWidth]")
    assert width[0] == 390 and width[1] <= 390, "nothing sticks out"
    tap = """const v = document.getElementById('view'), b = v.getBoundingClientRect();
        const at = {pointerType: 'touch', clientX: b.x + b.width / 3, clientY: b.y + b.height / 3};
        v.dispatchEvent(new PointerEvent('click', at))"""
    page.execute_script(tap)
    wait(lambda: len(page.find_elements("css selector", "#tree .node")) == 5)
    heights = "return [...document.querySelectorAll('.buttons button')].map(b => b.getBoundingClientRect().height)"
    assert [height for height in page.execute_script(heights) if height < 40] == []
