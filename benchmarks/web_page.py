"""The page in the browser: time per stage, tasks of the main thread, and memory while the camera runs.

    cast-export --web site && python benchmarks/web_page.py site --frames 200
    python benchmarks/web_page.py site --frames 5000        # memory over a long run

Headless Chromium with its fake camera (640 x 480); the page's folder is served from this machine.
"""

from __future__ import annotations

import argparse
import functools
import http.server
import json
import shutil
import statistics
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

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

        def log_message(self, *arguments: Any) -> None:
            pass

    Handler.extensions_map[".mjs"] = "text/javascript"
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return f"http://127.0.0.1:{server.server_port}/"


def resident(parent: int) -> float:
    """MiB of the processes below `parent` that compute pages (renderers)."""
    total = 0
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if b"--type=renderer" in (folder / "cmdline").read_bytes() and parent in ancestors(int(folder.name)):
                total += int((folder / "statm").read_text().split()[1]) * 4096
        except OSError:
            continue
    return total / 2**20


def ancestors(process: int) -> list[int]:
    found = []
    while process > 1:
        process = int(Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[1])
        found.append(process)
    return found


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
        first, memory, shown = int(data("frames") or 0), [], 0
        begin, said = time.perf_counter(), time.perf_counter()
        while shown < arguments.frames:
            time.sleep(0.2)
            shown = int(data("frames") or 0) - first
            if time.perf_counter() - said > 5 or shown >= arguments.frames:
                said = time.perf_counter()
                memory.append((shown, round(resident(service.process.pid))))
                print(f"{shown} frames, {memory[-1][1]} MiB", end="\r", flush=True)
        elapsed = time.perf_counter() - begin
        legend = page.execute_script("return document.getElementById('legend').innerText").replace("\n", " ")
        tasks = page.execute_script("return tasks")
        print(f"{shown} frames in {elapsed:.1f} s: {shown / elapsed:.1f} a second; means of the last 30: {legend}")
        print(f"main thread: {len(tasks)} tasks over 50 ms" + (f", longest {max(tasks):.0f} ms" if tasks else ""))
        quarter = max(1, len(memory) // 4)
        early, late = (statistics.median(m for _, m in part) for part in (memory[:quarter], memory[-quarter:]))
        steps = json.dumps(memory[:: max(1, len(memory) // 12)])
        print(f"renderer memory, MiB by frames: {steps}; {early:.0f} -> {late:.0f}")
    finally:
        page.quit()
        shutil.rmtree(profile, ignore_errors=True)


if __name__ == "__main__":
    main()
