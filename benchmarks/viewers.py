"""Do viewers slow the camera? Its frame rate without viewers and with 20, in turns.

python benchmarks/viewers.py [MODEL.onnx] [--viewers 20] [--rate 15]
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import threading
import time
from pathlib import Path

import cast_sdk
from cast_sdk.runtime.camera.server import WebView


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?")
    parser.add_argument("--threads", type=int, help="of the network")
    parser.add_argument("--viewers", type=int, default=20)
    parser.add_argument("--rate", type=float, default=15.0)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--rounds", type=int, default=4)
    options = parser.parse_args()
    rt = cast_sdk.Runtime(options.model, threads=options.threads)
    view = WebView(rt, port=0, title="viewers")
    stream = rt.stream(f"test://?rate={options.rate:g}")
    count = 0

    def run() -> None:
        nonlocal count
        for result in stream:
            view.show(result)
            count += 1

    camera = threading.Thread(target=run)
    camera.start()
    url = f"ws://127.0.0.1:{view.port}/api/stream"
    client = [sys.executable, str(Path(__file__).with_name("web_clients.py")), url, "--count", str(options.viewers)]
    rates: dict[int, list[float]] = {0: [], options.viewers: []}
    seen: list[float] = []
    time.sleep(3)
    for _ in range(options.rounds):
        for viewers, values in rates.items():
            crowd = None
            if viewers:
                crowd = subprocess.Popen(
                    [*client, "--seconds", str(options.seconds + 4)], stdout=subprocess.PIPE, text=True
                )
                while len(view.hub.viewers) < viewers:
                    time.sleep(0.05)
            time.sleep(1)
            before, started = count, time.monotonic()
            time.sleep(options.seconds)
            values.append((count - before) / (time.monotonic() - started))
            if crowd is not None:
                out, _ = crowd.communicate()
                seen += [frames / (options.seconds + 4) for frames in json.loads(out)]
    stream.close()
    camera.join()
    view.close()
    alone, watched = (statistics.median(values) for values in rates.values())
    print(f"{rt!r}, test:// at {options.rate:g} frames a second, 640 x 480")
    for viewers, values in rates.items():
        print(f"  {viewers:3} viewers: {statistics.median(values):.2f} fps ({min(values):.2f} to {max(values):.2f})")
    print(f"  camera with viewers / without: {watched / alone:.3f}")
    print(f"  each viewer got {statistics.median(seen):.1f} fps (least {min(seen):.1f})")


if __name__ == "__main__":
    main()
