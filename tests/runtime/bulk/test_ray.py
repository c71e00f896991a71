"""The same rows from Ray, on a real cluster of several nodes on this machine. Skips where Ray is not installed."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from endings import Fragile, Unsendable

pytest.importorskip("pyarrow", reason="pyarrow, of the extra bulk, is not installed")

import pyarrow.parquet as pq

import cast_sdk
from cast_sdk.errors import CastError, EngineError
from cast_sdk.runtime.bulk import job
from cast_sdk.runtime.bulk.dataset import Dataset
from cast_sdk.runtime.bulk.groups import GROUPS
from cast_sdk.runtime.bulk.inputs import Listing
from cast_sdk.runtime.bulk.pool import Task
from cast_sdk.runtime.bulk.rows import Recipe
from cast_sdk.runtime.bulk.schema import Layout

pytestmark = pytest.mark.full
ray = pytest.importorskip("ray", reason="Ray, of the extra ray, is not installed")


@pytest.fixture(scope="module")
def cluster():
    """Two nodes of one core each."""
    from ray.cluster_utils import Cluster

    support = Path(__file__).parents[2] / "support"
    before = {name: os.environ.get(name) for name in ("RAY_USAGE_STATS_ENABLED", "PYTHONPATH")}
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(support), before["PYTHONPATH"]]))
    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    made.add_node(num_cpus=1)
    ray.init(address=made.address, log_to_driver=False, logging_level="ERROR")
    assert len([node for node in ray.nodes() if node["Alive"]]) == 2
    yield made
    ray.shutdown()
    made.shutdown()
    for name, value in before.items():
        os.environ.pop(name, None) if value is None else os.environ.__setitem__(name, value)


def make(
    out: Path, folder: Path, model: Path, engine: job.Engine, *, fragile: bool = False, tokens: bool = False
) -> dict:
    with cast_sdk.Runtime(model, threads=1) as runtime:
        layout = Layout.of(runtime, "0" * 64, GROUPS, tokens=tokens)
    recipe = Recipe(layout, {"model": str(model), "threads": 1})
    with Dataset(out, layout, {}) as dataset:
        if not dataset.listed:
            dataset.list_inputs(Listing([str(folder)] * 4), 20)
        return job.run(dataset, Fragile(recipe) if fragile else recipe, engine)  # type: ignore[arg-type]


def parts(out: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(out.glob("part-*.parquet"))}


def workers() -> list[int]:
    """Actors of this test's own cluster: children of the raylets that it started."""
    mine, found = str(os.getpid()), []
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            raylet = Path("/proc", _parent(entry))
            if (entry / "cmdline").read_bytes().startswith(b"ray::Worker") and _parent(raylet) == mine:
                found.append(int(entry.name))
    return found


def _parent(entry: Path) -> str:
    return (entry / "stat").read_text().rpartition(")")[2].split()[1]


def test_both_engines_make_the_same_data_set_also_when_rays_workers_are_killed(cluster, stock, tiny_onnx, tmp_path):
    from cast_sdk.runtime.bulk.on_ray import ray_engine

    make(tmp_path / "local", stock, tiny_onnx, job.local_engine(1))
    stop, killed = threading.Event(), []

    def kill() -> None:
        while not stop.is_set() and len(killed) < 2:
            time.sleep(1.0)
            for pid in workers()[:1]:
                os.kill(pid, signal.SIGKILL)
                killed.append(pid)

    killer = threading.Thread(target=kill)
    killer.start()
    try:
        manifest = make(tmp_path / "ray", stock, tiny_onnx, ray_engine(2, None))
    finally:
        stop.set()
        killer.join()
    assert killed, "nothing was killed, so nothing is shown"
    assert manifest["rows"] == 48 and manifest["errors"] == 0
    assert parts(tmp_path / "ray") == parts(tmp_path / "local")
    assert ray.is_initialized(), "a cluster of somebody else is left running"


def test_an_image_that_ends_its_process_is_a_row_on_ray_too(cluster, folder, tiny_onnx, tmp_path):
    from cast_sdk.runtime.bulk.on_ray import ray_engine

    (folder / "inner" / "05.webp").rename(folder / "deadly.webp")
    manifest = make(tmp_path / "d", folder, tiny_onnx, ray_engine(2, None), fragile=True)
    assert manifest["rows"] == 48 and manifest["errors"] == 4
    errors = [row["error"] for row in pq.read_table(tmp_path / "d").to_pylist() if row["error"]]
    assert all("ended the process that read it, 2 times" in error for error in errors)


def test_images_that_cannot_be_used_are_the_same_rows(cluster, folder, tiny_onnx, tmp_path):
    from cast_sdk.runtime.bulk.on_ray import ray_engine

    for name in ("00.jpg", "02.webp", "inner/01.png"):
        data = (folder / name).read_bytes()
        (folder / name).write_bytes(data[: len(data) // 2])
    (folder / "04.png").write_bytes(b"no picture")
    manifests = [
        make(tmp_path / name, folder, tiny_onnx, engine)
        for name, engine in (("local", job.local_engine(1)), ("ray", ray_engine(2, None)))
    ]
    assert [manifest["errors"] for manifest in manifests] == [16, 16]
    assert parts(tmp_path / "ray") == parts(tmp_path / "local")


def test_a_machine_that_is_lost_costs_no_row(cluster, stock, tiny_onnx, tmp_path):
    from cast_sdk.runtime.bulk.on_ray import ray_engine

    make(tmp_path / "local", stock, tiny_onnx, job.local_engine(1))
    node = cluster.add_node(num_cpus=1)
    engine, lost = ray_engine(3, None), []

    def failing(recipe, tasks, ended):
        for task, rows in engine(recipe, tasks, ended):
            if not lost:
                lost.append(node)
                cluster.remove_node(node, allow_graceful=False)
            yield task, rows

    manifest = make(tmp_path / "ray", stock, tiny_onnx, failing)
    assert lost and manifest["rows"] == 48 and manifest["errors"] == 0
    assert parts(tmp_path / "ray") == parts(tmp_path / "local")


def test_a_busy_cluster_is_used_as_far_as_it_goes(cluster, stock, tiny_onnx, tmp_path):
    from cast_sdk.runtime.bulk.on_ray import ray_engine

    assert make(tmp_path / "d", stock, tiny_onnx, ray_engine(9, None))["rows"] == 48


@pytest.mark.parametrize("kind", ["taxonomy", "segmenter"])
def test_tokens_paths_and_class_maps_are_the_same(cluster, stock, kinds, kind, tmp_path):
    from cast_sdk.runtime.bulk.on_ray import ray_engine

    make(tmp_path / "local", stock / "inner", kinds[kind], job.local_engine(1), tokens=True)
    make(tmp_path / "ray", stock / "inner", kinds[kind], ray_engine(2, None), tokens=True)
    assert parts(tmp_path / "ray") == parts(tmp_path / "local")
    assert {"taxonomy": "class_path", "segmenter": "semantic"}[kind] in pq.read_table(tmp_path / "ray").column_names


def test_the_command_works_on_a_running_cluster(cluster, stock, tiny_onnx, tmp_path):
    words = [stock, "--model", tiny_onnx, "--part-rows", "5", "--quiet"]
    command = [sys.executable, "-m", "cast_sdk.runtime.commands.bulk", *map(str, words)]
    subprocess.run([*command, "--out", tmp_path / "local", "--workers", "1"], check=True, timeout=240)
    done = subprocess.run(
        [*command, "--out", tmp_path / "ray", "--engine", "ray", "--address", cluster.address],
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0 and not done.stderr, done.stderr
    assert parts(tmp_path / "ray") == parts(tmp_path / "local") and len(parts(tmp_path / "ray")) == 3
    own = subprocess.run([*command, "--out", tmp_path / "own", "--engine", "ray", "--workers", "1"], timeout=240)
    assert own.returncode == 0, "without --address it starts Ray anew, beside a cluster that runs"
    assert parts(tmp_path / "own") == parts(tmp_path / "local")
    assert [node["Alive"] for node in ray.nodes()].count(True) == 2, "the cluster is left running"


@pytest.mark.parametrize(
    ("address", "words"), [("127.0.0.1:9", "There is no Ray cluster at 127.0.0.1:9"), ("nonsense", "Ray cannot join")]
)
def test_a_cluster_that_is_not_there(address, words, stock, tiny_onnx, tmp_path):
    command = [stock, "--out", tmp_path / "d", "--model", tiny_onnx, "--engine", "ray", "--address", address]
    done = subprocess.run(
        [sys.executable, "-m", "cast_sdk.runtime.commands.bulk", *map(str, command)],
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 1 and words in done.stderr
    assert "Traceback" not in done.stderr and not list((tmp_path / "d").glob("part-*"))


def test_workers_that_cannot_begin_are_told(cluster, stock, tmp_path):
    from cast_sdk.runtime.bulk.on_ray import ray_engine

    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"no model")
    recipe = Recipe(Layout("m", "0" * 64, (96, 96), "stretch", ("class",)), {"model": str(broken), "threads": 1})
    task: job.Images = Task(0, [])
    with pytest.raises(CastError, match=r"broken\.onnx"):
        list(ray_engine(1, None)(recipe, iter([task]), lambda *_: None))
    with pytest.raises(EngineError, match="Ray's workers end again and again"):
        list(ray_engine(1, None)(Unsendable(), iter([task]), lambda *_: None))  # type: ignore[arg-type]


def test_usage_statistics_are_off(cluster):
    from ray._common.usage import usage_lib

    assert not usage_lib.usage_stats_enabled()
