"""The model card that goes with weights: what a description says, for people and for the hub."""

from __future__ import annotations

from cast_sdk.spec import ModelSpec


def card(spec: ModelSpec) -> str:
    """Model card in Markdown with the hub's metadata at its head.

    Only what the description says is in it: whoever publishes adds data, numbers and limits.
    """
    return f"{_metadata(spec)}\n# {spec.name}\n\n{_sentence(spec)}\n\n{_table(spec)}\n{_USE}\n{_TO_ADD}"


_USE = """
## Use

```python
import cast_sdk

model = cast_sdk.load_model("hf://OWNER/REPOSITORY")       # torch; or the path of this folder
rt = cast_sdk.Runtime("hf://OWNER/REPOSITORY")             # exported once, then without torch
seg = rt.segment("photo.jpg")
```
"""

_TO_ADD = """
## To be added by whoever publishes it

Data and training, numbers on data that was not trained on, limits, and what it must not be used for.
"""


def _metadata(spec: ModelSpec) -> str:
    lines = ["---", "library_name: cast_sdk", f"pipeline_tag: {_task(spec)}"]
    if spec.licence:
        lines += ["license: other", f"license_name: {_quoted(spec.licence)}"]
    tags = ["cast", "superpixels", "vision-transformer", f"family-{spec.family}"]
    if spec.hierarchical:
        tags.append("hierarchical-segmentation")
    return "\n".join([*lines, "tags:", *(f"- {tag}" for tag in tags), "---", ""])


def _task(spec: ModelSpec) -> str:
    if spec.dense:
        return "image-segmentation"
    return "image-classification" if spec.num_classes and spec.head == "linear" else "image-feature-extraction"


def _sentence(spec: ModelSpec) -> str:
    if not spec.hierarchical:
        return "A baseline of CAST, a vision transformer whose tokens are superpixels."
    return (
        "A model of CAST, a vision transformer whose tokens are superpixels: one pass gives an embedding"
        f"{', a class' if spec.has_logits and spec.head == 'linear' else ''} and {len(spec.clusters)} nested levels "
        "of segments."
    )


def _table(spec: ModelSpec) -> str:
    rows = [
        (
            "Architecture",
            f"family `{spec.family}`, width {spec.embed_dim}, depths {spec.depths}, {spec.num_heads} heads",
        ),
        ("Input", f"{spec.image_size} x {spec.image_size} pixels"),
    ]
    if spec.uses_superpixels:
        settings = spec.superpixels
        rows.append(("Superpixels", f"{settings.count} (SEEDS, {settings.bins} bins, {settings.iterations} passes)"))
    if spec.clusters:
        rows.append(("Segments per level", ", ".join(map(str, spec.clusters))))
    if spec.num_classes and spec.head == "linear":
        names = ", ".join(name.split(",")[0] for name in spec.class_names[:8])
        more = ", ..." if len(spec.class_names) > 8 else ""
        rows.append(("Classes", f"{spec.num_classes}{f': {names}{more}' if names else ''}"))
    if spec.taxonomy:
        rows.append(("Taxonomy", ", ".join(f"{level.name} ({level.num_classes})" for level in spec.taxonomy)))
    if spec.unsure_below:
        rows.append(("Unsure below", f"a probability of {spec.unsure_below:g}"))
    rows += [("Weights from", spec.source or "not stated"), ("Licence", spec.licence or "not stated")]
    lines = ["| | |", "|---|---|", *(f"| {key} | {_cell(value)} |" for key, value in rows)]
    return "\n".join(lines)


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def _quoted(text: str) -> str:
    """A YAML string."""
    import json

    return json.dumps(" ".join(text.split()))
