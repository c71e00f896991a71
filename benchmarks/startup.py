"""From process start to the first result, and peak memory, for a model file.

    python benchmarks/startup.py cast_s.onnx [photo.jpg] [--backend openvino] [--runs 7]

Each run is a fresh Python process that opens the model, segments one photograph and reports. The clock starts before
the process does. `cpu_time_of_all` is what all threads together computed until the first result: it hardly depends on
what else the machine does. Without a photograph the built-in scene is used.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time

CHILD = """
import json, sys, time
started = time.time()
import cast_sdk
runtime = cast_sdk.Runtime(sys.argv[1], backend=sys.argv[2], device="cpu")
loaded = time.time()
if sys.argv[3]:
    frame = sys.argv[3]
else:
    from cast_sdk.runtime.commands.benchmark import scene_frames
    frame = scene_frames(640, 480, 1)[0]
result = runtime.segment(frame)
labels = result.labels(2)
done = time.time()
from cast_sdk.runtime.commands.benchmark import peak_memory_mb
cpu, first_peak = time.process_time(), peak_memory_mb()
for _ in range(20):
    runtime.segment(frame)
print(json.dumps({
    "interpreter": (started - float(sys.argv[4])) * 1e3,
    "imports_and_load": (loaded - started) * 1e3,
    "first_frame": (done - loaded) * 1e3,
    "total": (done - float(sys.argv[4])) * 1e3,
    "cpu_time_of_all": cpu * 1e3,
    "peak_mb_first": first_peak,
    "peak_mb_20_frames": peak_memory_mb(),
}))
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("image", nargs="?", default="")
    parser.add_argument("--backend", default="auto")
    parser.add_argument("--runs", type=int, default=7)
    options = parser.parse_args()
    runs: list[dict[str, float]] = []
    for _ in range(options.runs + 1):  # the first one warms the disk cache and is left out
        command = [sys.executable, "-c", CHILD, options.model, options.backend, options.image, repr(time.time())]
        runs.append(json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout))
    print(f"{'':<20}{'median':>10}{'min':>10}")
    for key in runs[0]:
        values = [run[key] for run in runs[1:]]
        unit = "MB" if "mb" in key else "ms"
        print(f"{key:<20}{statistics.median(values):>10.0f}{min(values):>10.0f} {unit}")


if __name__ == "__main__":
    main()
