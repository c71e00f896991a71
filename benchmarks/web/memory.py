"""What a page and its workers hold in memory, read over Chromium's debugging protocol after a collection of garbage."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# Appended to the page's worker, so that its WebAssembly memories can be measured.
COUNTED = """
self.wasmMemories = [];
const { Memory, instantiate } = WebAssembly;
WebAssembly.Memory = function (...size) {
  const made = new Memory(...size);
  self.wasmMemories.push(made);
  return made;
};
WebAssembly.instantiate = async (...given) => {
  const made = await instantiate(...given), { exports } = made.instance ?? made;
  self.wasmMemories.push(...Object.values(exports).filter(value => value instanceof Memory));
  return made;
};
"""


@dataclass(frozen=True)
class Held:
    """Memory of a page and its workers, in MiB.

    Attributes:
        heap: JavaScript objects that are alive.
        buffers: arrays outside of that heap: pictures, label maps.
        wasm: the WebAssembly memories of workers that run `COUNTED`.
        resident: the renderer process, everything included; with what Chromium keeps for later.
    """

    heap: float
    buffers: float
    wasm: float
    resident: float


class MemoryProbe:
    """Looks into a page that a WebDriver has open; the page must not navigate meanwhile.

    Args:
        page: a Selenium WebDriver of Chromium. Its workers must be running already.
        driver: process id of its chromedriver.
    """

    def __init__(self, page: Any, driver: int) -> None:
        import websocket

        self._driver, self._count = driver, 0
        address = page.capabilities["goog:chromeOptions"]["debuggerAddress"]
        target = page.current_window_handle
        self._socket = websocket.create_connection(
            f"ws://{address}/devtools/page/{target}", suppress_origin=True, timeout=120
        )
        self._workers: list[str] = []
        self._call("Target.setAutoAttach", autoAttach=True, waitForDebuggerOnStart=False, flatten=True)

    def look(self) -> Held:
        """Collect garbage everywhere and measure."""
        heap = buffers = wasm = 0.0
        for session in (None, *self._workers):
            self._call("HeapProfiler.collectGarbage", session)
            use = self._call("Runtime.getHeapUsage", session)
            heap += use["usedSize"]
            buffers += use["backingStorageSize"]
            wasm += self._wasm(session)
        unit = 2**20
        return Held(heap / unit, buffers / unit, wasm / unit, resident(self._driver))

    def _wasm(self, session: str | None) -> float:
        total = "(self.wasmMemories ?? []).reduce((sum, memory) => sum + memory.buffer.byteLength, 0)"
        return float(self._call("Runtime.evaluate", session, expression=total)["result"]["value"])

    def _call(self, method: str, session: str | None = None, **parameters: Any) -> dict[str, Any]:
        self._count += 1
        message: dict[str, Any] = {"id": self._count, "method": method, "params": parameters}
        if session:
            message["sessionId"] = session
        self._socket.send(json.dumps(message))
        while True:
            news = json.loads(self._socket.recv())
            if news.get("method") == "Target.attachedToTarget" and news["params"]["targetInfo"]["type"] == "worker":
                self._workers.append(news["params"]["sessionId"])
            if news.get("id") == self._count:
                if "error" in news:
                    raise RuntimeError(f"{method}: {news['error']['message']}")
                return dict(news["result"])


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
