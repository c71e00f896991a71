"""From a published name to a result: what a name is, what is downloaded, exported once and kept."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys

import numpy as np
import pytest
from click.testing import CliRunner

import cast_sdk
from cast_sdk import bundled
from cast_sdk.errors import CheckpointError, ExportError, InputError, MissingDependencyError
from cast_sdk.hub import names, records
from cast_sdk.published import PUBLISHED
from cast_sdk.registry import list_models, model_spec
from cast_sdk.runtime.backends import named
from cast_sdk.runtime.backends.named import export_arguments, graph_name, named_file
from cast_sdk.runtime.engine.onnx_metadata import read_description
from cast_sdk.system.files import sha256

NAME = "cast_small.deit_in1k"
FILE = "snapshots/deit/imagenet1k/cast_small/best_checkpoint.pth"
# Of a process of its own: what Runtime gives for a photograph, and whether torch came in.
RUN = """
import json, sys
import cast_sdk
from cast_sdk import bundled
with cast_sdk.Runtime(sys.argv[1]) as rt:
    seg = rt.segment(bundled.photos()[0])
counts = [seg.num_segments(n) for n in range(5)]
print(json.dumps([rt.path, seg.embedding.tolist(), counts, sys.modules.get("torch") is not None]))
"""


def run(name, block=()):
    stubs = "".join(f"import sys; sys.modules[{module!r}] = None\n" for module in block)
    return subprocess.Popen(
        [sys.executable, "-c", stubs + RUN, name], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def ended(process):
    out, err = process.communicate(timeout=240)
    assert process.returncode == 0, err
    return json.loads(out)


def test_every_name_is_an_architecture_a_dot_and_a_tag():
    entries = list_models(pretrained=True)
    assert len({entry.name for entry in entries}) == len(entries) == len(PUBLISHED)
    for entry in entries:
        architecture, tag = entry.name.split(".")
        assert architecture in list_models() and tag and entry.results
        assert model_spec(entry.model).embed_dim == model_spec(architecture).embed_dim
        assert names.find(entry) == names.find(entry.name) and entry.name in names.of_architecture(entry.model)
    assert [entry.name for entry in list_models("*.moco_coco", pretrained=True)] == ["cast_small.moco_coco"]


def test_two_processes_at_once_download_and_export_once_and_later_ones_need_neither_torch_nor_a_network(
    server, tmp_path, monkeypatch
):
    processes = [run(NAME), run(NAME)]
    first, second = map(ended, processes)
    assert first == second and first[3] is False
    assert [entry[0] for entry in server.log].count("GET") == 1
    graphs = list((tmp_path / "cache" / "models").glob("*.onnx"))
    assert [str(graph) for graph in graphs] == [first[0]] and graphs[0].name.startswith(f"{NAME}-")
    assert read_description(graphs[0])[0].source == NAME

    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    assert ended(run(NAME, block=["torch", "huggingface_hub", "onnx"])) == first

    requests = len(server.log)
    result = CliRunner().invoke(segment_command(), ["-m", NAME, str(photo()), "-o", str(tmp_path / "out"), "-q"])
    assert result.exit_code == 0, result.output
    assert (tmp_path / "out" / f"{photo().stem}.png").is_file() and len(server.log) == requests


def segment_command():
    from cast_sdk.runtime.commands.segment import main

    return main


def photo():
    return bundled.photos()[0]


def test_cast_export_takes_a_name_and_records_the_digest(server, tmp_path, monkeypatch):
    from cast_sdk.export.cli import main

    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(main, ["--ckpt", NAME, "--no-verify", "-q"])
    assert result.exit_code == 0, result.output
    spec, info = read_description(tmp_path / f"{NAME}.onnx")
    assert spec.source == NAME and info.checkpoint_sha256 == records.read(names.find(NAME).uri)


def test_weights_that_torch_runs_by_name_say_their_source_too(server):
    for name in (NAME, f"hf://twke/CAST/{FILE}"):
        with cast_sdk.Runtime(name, backend="torch") as runtime:
            assert runtime.spec.source == name


def test_cast_export_asks_the_hub_once_and_records_what_it_opened(server, tmp_path, monkeypatch):
    """An address whose owner publishes another version meanwhile."""
    from cast_sdk.export import cli

    asked = []

    def change(source, get=names.get):
        asked.append(source.uri)
        path = get(source)
        server.files[FILE] = server.files[FILE] + b"\0"
        return path

    monkeypatch.setattr(names, "get", change)
    before = sha256_of(server.files[FILE])
    model, digest = cli._open(f"hf://twke/CAST/{FILE}", None, None)
    assert len(asked) == 1 and digest == before
    assert model.spec.source == f"hf://twke/CAST/{FILE}"


def test_without_torch_the_message_says_what_to_do(server, monkeypatch):
    from cast_sdk.system.installing import Requirement

    monkeypatch.setattr("cast_sdk.system.installing.unmet", lambda _: [(Requirement("torch", ">=2.9", ""), None)])
    with pytest.raises(MissingDependencyError, match=rf"(?s)Running {NAME}.*needs torch.*cast-export --ckpt {NAME}"):
        cast_sdk.Runtime(NAME)
    assert not server.log, "nothing is downloaded that nothing can be made of"


def test_without_a_network_the_message_says_what_to_do(server, monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    for call in (cast_sdk.Runtime, cast_sdk.load_model):
        with pytest.raises(CheckpointError, match=r"(?s)the hub does not answer.*connect once"):
            call(NAME)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(CheckpointError, match="HF_HUB_OFFLINE is set"):
        cast_sdk.load_model(NAME)


def test_the_file_of_a_name_must_stay_the_one_that_was_downloaded_first(server):
    uri = names.find(NAME).uri
    assert "not verified" in names.describe_digest(names.find(NAME).published)
    first = names.get(names.find(NAME))
    assert records.read(uri) == sha256(first)
    assert sha256(first) in names.describe_digest(names.find(NAME).published)
    server.files[FILE] = server.files[FILE] + b"\0"
    with pytest.raises(CheckpointError, match=r"(?s)downloaded first.*remove .*digests"):
        names.get(names.find(NAME))


def test_a_stated_digest_is_checked_at_the_first_download(server):
    entry = dataclasses.replace(names.find(NAME).published, sha256="0" * 64)
    with pytest.raises(CheckpointError, match="not the file that was published"):
        names.get(names.source_of(entry))
    right = dataclasses.replace(entry, sha256=sha256_of(server.files[FILE]))
    assert names.get(names.source_of(right)).is_file()


def sha256_of(data):
    import hashlib

    return hashlib.sha256(data).hexdigest()


def test_an_address_may_change(server):
    uri = f"hf://twke/CAST/{FILE}"
    before = sha256(names.get(names.find(uri)))
    server.files[FILE] = server.files[FILE] + b"\0"
    after, digest = names.get_newest(names.find(uri))
    assert sha256(after) == digest != before


def test_torch_runs_the_weights_themselves(server):
    with cast_sdk.Runtime(NAME, backend="torch", device="cpu") as runtime:
        assert runtime.path.endswith("best_checkpoint.pth") and runtime.spec.family == "cast_deit"


def test_an_error_of_the_export_comes_through(server):
    with pytest.raises(ExportError, match="image") as caught:
        cast_sdk.Runtime(NAME, export={"image_size": 100})
    assert caught.value.remedy
    crash = named._failure(["Traceback", "MemoryError"], -9, "-m x")
    assert "code -9" in str(crash) and "MemoryError" in str(crash)


def test_the_bundled_weights_have_a_name_too():
    assert named_file("cast_tiny.bundled") == bundled.path(bundled.MODEL)
    model = cast_sdk.create_model("cast_tiny", pretrained=True, num_classes=3)
    assert model.training and model.head.out_features == 3 and model.spec.class_names == ()


@pytest.mark.parametrize(
    "reference, remedy",
    [
        ("cast_small.deit_in1", "did you mean cast_small.deit_in1k"),
        ("cast_smal.moco_in1k", "did you mean cast_small"),
        ("cast_base.deit_in1k", "did you mean .*cast_base.moco_in1k"),
        ("cast_deit_small", "give one of: cast_small.deit_in1k"),
        ("cast_seg_small", "cast_small.moco_coco_ep150, cast_small.moco_coco"),
        ("cast_base_deep", "no weights of it are published"),
    ],
)
def test_what_is_like_a_name_and_is_none(reference, remedy):
    for call in (cast_sdk.Runtime, cast_sdk.load_model):
        with pytest.raises(InputError, match=remedy):
            call(reference)


def test_a_file_beside_a_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in (NAME, "cast_smal.moco_in1k", "model.onnx"):
        (tmp_path / name).write_bytes(b"x")
    assert names.find(NAME).published and names.find(f"./{NAME}") is None
    assert names.find("cast_smal.moco_in1k") is None and names.find("model.onnx") is None
    assert names.find("runs/checkpoint_0099.pth.tar") is None and names.find("cast_s.onnx") is None


def test_options_of_the_export():
    assert export_arguments({}) == []
    assert export_arguments({"tokens": True, "batch": None, "precision": "fp16"}) == [
        *("--batch", "0"),
        *("--precision", "fp16"),
        "--tokens",
    ]
    usual = {"batch": 1, "precision": "fp32", "tokens": False, "soft_assignments": None, "image_size": None}
    assert export_arguments(usual) == []
    assert named_file("cast_tiny.bundled", export=usual) == bundled.path(bundled.MODEL)
    assert export_arguments({"superpixels": np.int64(100), "image_size": 96}) == [
        *("--image-size", "96"),
        *("--superpixels", "100"),
    ]
    for wrong in ({"batch": -1}, {"batch": "2"}, {"image_size": 7}, {"image_size": 96.0}, {"superpixels": False}):
        with pytest.raises(InputError, match="not a whole number"):
            export_arguments(wrong)
    with pytest.raises(InputError, match="no stage 'training'"):
        export_arguments({"stage": "training"})
    with pytest.raises(InputError, match=r"square images(.|\n)*export_onnx"):
        export_arguments({"image_size": (512, 768)})
    with pytest.raises(InputError, match="no option colour"):
        export_arguments({"colour": 1})
    with pytest.raises(InputError, match=r"(?s)not True or False.*tokens=True"):
        export_arguments({"tokens": "yes"})
    with pytest.raises(InputError, match="--calibrate"):
        export_arguments({"precision": "int8"})
    with pytest.raises(InputError, match="for published names"):
        cast_sdk.Runtime(export={"batch": 2})


def test_everything_that_makes_another_graph_is_in_its_name(monkeypatch):
    one = graph_name("hf://a/b", "1" * 64, [])
    assert one.startswith("a-b-") and os.sep not in one
    others = {graph_name("hf://a/b", "2" * 64, []), graph_name("hf://a/b", "1" * 64, ["--tokens"])}
    monkeypatch.setattr(named, "__version__", "other")
    others.add(graph_name("hf://a/b", "1" * 64, []))
    assert len(others) == 3 and one not in others


@pytest.mark.parametrize("kept", ["", "[]", '{"uri": 1}', '{"sha256": "x"}', "\0"])
def test_a_damaged_record_is_no_record(kept, tmp_path, monkeypatch):
    monkeypatch.setenv("CAST_SDK_CACHE", str(tmp_path))
    records.check("hf://a/b/c", "0" * 64, pinned=True)
    (file,) = (tmp_path / "digests").iterdir()
    assert records.read("hf://a/b/c") == "0" * 64
    file.write_text(kept)
    assert records.read("hf://a/b/c") is None


def test_models_without_torch_say_what_to_install():
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "import cast_sdk\n"
        "try: cast_sdk.load_model('cast_small.deit_in1k')\n"
        "except cast_sdk.MissingDependencyError as error: print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0 and "needs torch" in done.stdout and "pip install" in done.stdout, done.stderr
