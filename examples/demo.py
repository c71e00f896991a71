"""Segment photographs with the model that comes with the package: pictures, JSON and times. The base installation does.

python examples/demo.py [IMAGE ...] [--out DIR]
"""

from __future__ import annotations

import argparse
from pathlib import Path

import cast_sdk

PHOTOS = sorted((Path(__file__).parent / "photos").glob("*.jpg"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images", nargs="*", type=Path, default=PHOTOS)
    parser.add_argument("--out", type=Path, default=Path("outputs"))
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)

    with cast_sdk.Runtime() as runtime:
        runtime.segment(args.images[0])  # the first frame pays for memory and caches
        for image in args.images:
            result = runtime.segment(image)
            picture = args.out / f"{image.stem}_levels.png"
            result.save(picture)
            picture.with_suffix(".json").write_text(result.to_json())

            segments = ", ".join(str(result.num_segments(level)) for level in range(5))
            times = ", ".join(f"{stage} {time:.1f}" for stage, time in result.timing.items())
            print(f"{image.name}: {result.verdict}; segments, fine to coarse: {segments}\n  milliseconds: {times}")
    print(f"\nPictures and JSON: {args.out}/*_levels.png and .json")


if __name__ == "__main__":
    main()
