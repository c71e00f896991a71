"""The fused sampler against the plain one: in Triton's interpreter here, compiled where there is a GPU."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from cast_sdk.models import sampling
from cast_sdk.models.sampling import farthest_points

pytest.importorskip("triton", reason="Triton comes with torch on Linux only")


def cases(generator: torch.Generator) -> list[tuple[torch.Tensor, int]]:
    """Random points with duplicates, exact ties on a lattice, fewer distinct points than picks, a single point."""
    random = torch.randn(3, 41, 20, generator=generator)
    random[:, 7] = random[:, 3]
    random[1, 20:30] = random[1, 19]
    lattice = torch.randint(0, 3, (2, 17, 2), generator=generator).float()
    return [
        (random, 13),
        (lattice, 9),
        (lattice, 17),
        (torch.randn(2, 5, 3, generator=generator), 5),
        (random[:, :1], 3),
    ]


def compare(device: str) -> None:
    from cast_sdk.models.sampling import kernels

    for points, count in cases(torch.Generator().manual_seed(4)):
        points = points.to(device)
        plain = sampling._by_differences(points.double(), count)
        assert torch.equal(kernels.by_differences(points, count), plain)
        distances = sampling.squared_distances(points)
        assert torch.equal(kernels.by_matrix(distances, count), sampling._by_matrix(distances, count))


def test_equal_to_the_plain_loops_in_the_interpreter():
    code = "import test_sampling_kernels as t; t.compare('cpu'); print('equal')"
    paths = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    environment = {**os.environ, "TRITON_INTERPRET": "1", "PYTHONPATH": paths}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0 and "equal" in done.stdout, done.stderr[-2000:]


@pytest.mark.parametrize("capability", [87, 90], ids=["Orin", "H100"])
@pytest.mark.parametrize("from_matrix", [False, True])
def test_compiles_for_gpus_without_one(capability, from_matrix):
    import triton
    from triton.backends.compiler import GPUTarget

    from cast_sdk.models.sampling import kernels

    types = {
        "source": "*fp32",
        "picks": "*i64",
        "points": "i32",
        "channels": "i32",
        "count": "i32",
        "image_stride": "i32",
    }
    constants = {"BLOCK_POINTS": 256, "BLOCK_CHANNELS": 32, "FROM_MATRIX": from_matrix}
    signature = {**types, **dict.fromkeys(constants, "constexpr")}
    source = triton.compiler.ASTSource(kernels._farthest, signature, constants)
    compiled = triton.compile(source, target=GPUTarget("cuda", capability, 32), options={"num_warps": 8})
    assert f".target sm_{capability}" in compiled.asm["ptx"]


@pytest.mark.gpu
def test_equal_to_the_plain_loops_on_a_gpu():
    compare("cuda")


@pytest.mark.gpu
@pytest.mark.parametrize(("points", "channels", "count"), [(197, 384, 65), (1025, 384, 321)])
@pytest.mark.parametrize("sampler", ["float64", "matrix"])
def test_published_sizes_on_a_gpu(points, channels, count, sampler):
    x = torch.randn(4, points, channels, generator=torch.Generator().manual_seed(0)).cuda()
    plain = {
        "float64": lambda: sampling._by_differences(x.double(), count),
        "matrix": lambda: sampling._by_matrix(sampling.squared_distances(x), count),
    }
    assert torch.equal(farthest_points(x, count, sampler), plain[sampler]())


def test_without_triton_gpus_use_the_plain_loops_and_say_so(monkeypatch, caplog):
    monkeypatch.setitem(sys.modules, "cast_sdk.models.sampling.kernels", None)
    monkeypatch.delattr(sampling, "kernels", raising=False)
    sampling.fused_kernels.cache_clear()
    try:
        assert sampling.fused_kernels() is None
        assert "pip install triton" in caplog.text
    finally:
        sampling.fused_kernels.cache_clear()
