"""The page in the browser: time per stage, tasks of the main thread, and memory while the camera runs.

    cast-export --web site && python benchmarks/web/page.py site --frames 200
    python benchmarks/web/page.py site --frames 5000        # memory over a long run

Headless Chromium with its fake camera (640 x 480); the page's folder is served from this machine.
"""

from __future__ import annotations

import argparse
import functools
import http.server
import shutil
import statistics
import tempfile
import threading
import time
from dataclasses import astuple
from pathlib import Path
from typing import Any

from memory import COUNTED, Held, MemoryProbe

FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-dev-shm-usage",
    "--use-fake-device-for-media-stream",
    "--use-fake-ui-for-media-stream",
    "--enable-precise-memory-info",
    "--js-flags=--expose-gc",
    "--window-size=1440,900",
)
_ISOLATION = {"Cross-Origin-Opener-Policy": "same-origin", "Cross-Origin-Embedder-Policy": "require-corp"}
_LONG = """window.tasks = [];
new PerformanceObserver(list => tasks.push(...list.getEntries().map(e => e.duration))).observe({type: 'longtask'});
document.getElementById('camera').click();"""


def serve(folder: Path, isolated: bool) -> str:
    class Handler(http.server.SimpleHTTPRequestHandler):
        def end_headers(self) -> None:
            for name, value in (_ISOLATION if isolated else {}).items():
                self.send_header(name, value)
            super().end_headers()

        def do_GET(self) -> None:
            if self.path.partition("?")[0] != "/worker.js":
                return super().do_GET()
            content = (folder / "worker.js").read_bytes() + COUNTED.encode()
            self.send_response(200)
            self.send_header("Content-Type", "text/javascript")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *arguments: Any) -> None:
            pass

    Handler.extensions_map[".mjs"] = "text/javascript"
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return f"http://127.0.0.1:{server.server_port}/"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--frames", type=int, default=200)
    parser.add_argument("--isolated", action="store_true", help="send the headers that allow threads")
    arguments = parser.parse_args()
    from selenium import webdriver

    profile = Path(tempfile.mkdtemp(prefix="cast-web-"))
    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium") or ""
    for flag in (*FLAGS, f"--user-data-dir={profile}"):
        options.add_argument(flag)
    service = webdriver.ChromeService(shutil.which("chromedriver"))
    page = webdriver.Chrome(options=options, service=service)
    page.set_script_timeout(600)

    def data(name: str) -> str | None:
        return page.execute_script("return document.body.dataset[arguments[0]]", name)

    try:
        start = time.perf_counter()
        page.get(serve(arguments.folder, arguments.isolated))
        while not data("photo"):
            if data("failed"):
                raise SystemExit(data("failed"))
            time.sleep(0.05)
        print(f"first result after {time.perf_counter() - start:.1f} s, {data('ready')} thread(s)")
        page.execute_script(_LONG)
        probe = MemoryProbe(page, service.process.pid)
        first, shown, due = int(data("frames") or 0), 0, 0
        memory: list[tuple[int, Held]] = []
        begin = time.perf_counter()
        while shown < arguments.frames:
            time.sleep(0.2)
            shown = int(data("frames") or 0) - first
            if shown >= due or shown >= arguments.frames:
                memory.append((shown, probe.look()))
                due += max(1, arguments.frames // 50)
                print(f"{shown:5} frames  {memory[-1][1]}", flush=True)
        elapsed = time.perf_counter() - begin
        legend = page.execute_script("return document.getElementById('legend').innerText").replace("\n", " ")
        tasks = page.execute_script("return tasks")
        print(f"{shown} frames in {elapsed:.1f} s: {shown / elapsed:.1f} a second; means of the last 30: {legend}")
        print(f"main thread: {len(tasks)} tasks over 50 ms" + (f", longest {max(tasks):.0f} ms" if tasks else ""))
        third = max(1, len(memory) // 3)
        print("\n| MiB, median | JavaScript objects | buffers | WebAssembly | renderer process |")
        print("|---|---|---|---|---|")
        for name, part in (("first third", memory[:third]), ("last third", memory[-third:])):
            columns = zip(*(astuple(held) for _, held in part), strict=True)
            print(f"| {name} | " + " | ".join(f"{statistics.median(column):.1f}" for column in columns) + " |")
    finally:
        page.quit()
        shutil.rmtree(profile, ignore_errors=True)


if __name__ == "__main__":
    main()
