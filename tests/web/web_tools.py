"""Pages for the tests: assembled once, served by a small static server, driven in headless Chromium."""

from __future__ import annotations

import functools
import http.server
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

from browser import wait

ISOLATION = {"Cross-Origin-Opener-Policy": "same-origin", "Cross-Origin-Embedder-Policy": "require-corp"}


class _Handler(http.server.SimpleHTTPRequestHandler):
    extensions_map: ClassVar = {
        **http.server.SimpleHTTPRequestHandler.extensions_map,
        ".mjs": "text/javascript",
        ".wasm": "application/wasm",
    }

    def end_headers(self) -> None:
        for name, value in self.server.more_headers.items():  # type: ignore[attr-defined]
            self.send_header(name, value)
        super().end_headers()

    def do_GET(self) -> None:
        self.server.asked.append(self.path)  # type: ignore[attr-defined]
        super().do_GET()

    def log_message(self, *arguments: Any) -> None:
        pass


@contextmanager
def static_server(folder: Path, headers: dict[str, str] | None = None) -> Iterator[Any]:
    """A server of a folder as a static host is one; `asked` lists the requests, `url` is its address."""
    server: Any = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(_Handler, directory=str(folder)))
    server.more_headers, server.asked = headers or {}, []
    server.url = f"http://127.0.0.1:{server.server_port}/"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def data(page: Any, name: str) -> str | None:
    """A field of the page's `document.body.dataset`, where it says what it has done."""
    return page.execute_script("return document.body.dataset[arguments[0]]", name)


def open_page(page: Any, url: str) -> None:
    """Wait until the first sample photograph is segmented, or the page said why it cannot run."""
    page.get(url)
    wait(lambda: data(page, "photo") or data(page, "failed"))


def text(page: Any, name: str) -> str:
    return page.execute_script("return document.getElementById(arguments[0]).textContent", name)


def toast(page: Any) -> str:
    shown = "const t = document.getElementById('toast'); return t.hidden ? '' : t.textContent"
    return page.execute_script(shown)


def clear_toast(page: Any) -> None:
    page.execute_script("document.getElementById('toast').hidden = true")


def choose(page: Any, *photographs: Path) -> None:
    page.find_element("id", "file").send_keys("\n".join(map(str, photographs)))


def segment(page: Any, photograph: Path, downloads: Path) -> dict[str, Any]:
    """What the page's "Save JSON" gives for a photograph."""
    clear_toast(page)
    choose(page, photograph)
    wait(lambda: data(page, "photo") == photograph.name or toast(page))
    assert not toast(page), toast(page)
    return save_json(page, downloads)


def save_json(page: Any, downloads: Path) -> dict[str, Any]:
    before = set(downloads.glob("*.json"))
    page.find_element("id", "json").click()
    file = wait(lambda: next(iter(set(downloads.glob("*.json")) - before), None))
    return json.loads(wait(lambda: file.read_text()))


def problems(page: Any) -> list[str]:
    return [entry["message"] for entry in page.get_log("browser") if entry["level"] == "SEVERE"]
