"""The example notebook runs from top to bottom with the bundled model, and shows what it says now."""

import json
from pathlib import Path

import matplotlib
import pytest

NOTEBOOK = Path(__file__).parents[3] / "examples" / "visualize_hierarchy.ipynb"


def test_notebook(monkeypatch, capsys):
    from cast_sdk import bundled
    from cast_sdk.errors import ArtifactError

    try:
        bundled.path(bundled.MODEL)
    except ArtifactError:
        pytest.skip("this checkout has no bundled model")
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figures = []
    monkeypatch.setattr(plt, "show", lambda: figures.append(plt.gcf()))
    monkeypatch.chdir(NOTEBOOK.parent)
    cells = json.loads(NOTEBOOK.read_text())["cells"]
    names = {"__name__": "__main__"}
    for cell in cells:
        if cell["cell_type"] == "code":
            exec(compile("".join(cell["source"]), str(NOTEBOOK), "exec"), names)
    plt.close("all")
    assert len(figures) == 3 and len(figures[0].axes) == 6
    printed = capsys.readouterr().out
    assert "level 4:" in printed and "of level 4 covers" in printed
    assert names["result"].num_levels == 4
    stored = [output for cell in cells for output in cell.get("outputs", ())]
    shown = "".join(stored[0]["data"]["text/plain"])  # what a reader sees is of the model that the package has now
    assert f"{names['result'].num_segments(0)} superpixels" in shown and names["result"].top(1)[0][1] in shown
    counts = [line for output in stored for line in output.get("text", ()) if line.startswith("level")]
    assert len(counts) == 5 and "".join(counts) in printed
