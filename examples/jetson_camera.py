"""A camera, its class and its segments: cast-camera in forty lines of public names.

python examples/jetson_camera.py csi://0 cast_s.engine     # 0, rtsp://..., clip.mp4 and test:// work too
"""

import argparse
import os

import cv2

import cast_sdk

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("source", nargs="?", default="csi://0", help="camera, file or address (default: csi://0)")
parser.add_argument("model", nargs="?", help=".onnx or .engine (default: the model that comes with the package)")
source, model = vars(parser.parse_args()).values()
window = bool(os.environ.get("DISPLAY"))
level = 2  # 0: superpixels ... 4: coarsest; keys 0 to 4 change it, q ends

with cast_sdk.Runtime(model) as rt, rt.stream(source, width=1280, height=720) as results:
    for seg in results:
        counts = "/".join(str(seg.num_segments(n)) for n in range(seg.num_levels + 1))
        print(
            f"\r{seg.verdict}  segments {counts}  {seg.timing['latency']:.0f} ms, {seg.dropped} dropped ",
            end="",
            flush=True,
        )
        if window:
            cv2.imshow("cast", seg.plot(level=level))
            key = chr(cv2.waitKey(1) & 0xFF)
            level = int(key) if key in "01234" else level
            if key == "q":
                break
print()
