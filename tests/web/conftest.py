"""The page of the bundled model, assembled once, and a browser that shows it."""

from __future__ import annotations

from pathlib import Path

import pytest
from browser import chromium, missing
from export_tools import SIZES
from golden_tools import draw_weights
from web_tools import static_server

from cast_sdk.bundled import path as bundled
from cast_sdk.errors import MissingDependencyError
from cast_sdk.export.onnx_export import export_onnx
from cast_sdk.export.web.assemble import write_folder
from cast_sdk.models import create_model


@pytest.fixture(scope="session")
def site(tmp_path_factory) -> Path:
    """The folder that `cast-export --web` makes."""
    try:
        return write_folder(bundled("cast_tiny.onnx"), tmp_path_factory.mktemp("web") / "site")
    except MissingDependencyError as error:
        missing(str(error))


@pytest.fixture(scope="session", params=["assigned", "merged"])
def graph(request, tmp_path_factory) -> Path:
    """A graph with small random weights for each way that levels are made."""
    model = create_model("cast_small", grouping=request.param, **SIZES)
    draw_weights(model)
    file = tmp_path_factory.mktemp("graph") / f"{request.param}.onnx"
    export_onnx(model.eval(), file, verify=False)
    return file


@pytest.fixture(scope="session")
def server(site):
    with static_server(site) as running:
        yield running


@pytest.fixture(scope="module")
def desktop(tmp_path_factory):
    folder = tmp_path_factory.mktemp("desktop")
    with chromium(folder, 1440, 900) as page:
        page.downloads = folder / "downloads"
        page.set_script_timeout(60)
        yield page
