"""Export a model to ONNX, segment a photograph, write the overlay and the JSON.

    python examples/demo_export.py [IMAGE] [--checkpoint FILE] [--out DIR]

Without --checkpoint it uses the model that comes with the package, `cast_tiny`.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import cast_sdk
from cast_sdk import bundled

HERE = Path(__file__).parent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("image", nargs="?", type=Path, default=HERE / "photos" / "coffee.jpg")
    parser.add_argument("--checkpoint", type=Path, default=bundled.path(bundled.WEIGHTS))
    parser.add_argument("--out", type=Path, default=Path("outputs"))
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)

    model = cast_sdk.load_model(args.checkpoint)
    onnx = args.out / f"{model.spec.name}.onnx"
    print(f"Exporting {args.checkpoint.name} and checking it against the checkpoint on real photographs ...")
    cast_sdk.export_onnx(model, onnx)

    with cast_sdk.Runtime(onnx) as runtime:
        runtime.segment(args.image)  # the first frame pays for memory and caches
        result = runtime.segment(args.image)

    picture = args.out / f"{args.image.stem}_levels.png"
    result.save(picture)
    data = picture.with_suffix(".json")
    data.write_text(result.to_json())

    print(f"\n{args.image.name}: segments per level {[result.num_segments(level) for level in range(5)]}")
    for _, name, probability in result.top(3):
        print(f"  {probability:6.1%}  {name}")
    print("\nMilliseconds: " + ", ".join(f"{stage} {time:.1f}" for stage, time in result.timing.items()))
    print(f"Picture: {picture}\nJSON:    {data}\nModel:   {onnx}")


if __name__ == "__main__":
    main()
