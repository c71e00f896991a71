"""The compiled kernel: built where a compiler is, no leak, clean under sanitizers."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import cast_sdk.superpixels
from cast_sdk.superpixels import kernels, seeds

SOURCE = Path(cast_sdk.superpixels.__file__).parent / "_seeds.cpp"
COMPILER = next(filter(None, (shutil.which(name) for name in (os.environ.get("CXX") or "c++", "g++", "clang++"))), None)
needs_compiler = pytest.mark.skipif(COMPILER is None, reason="needs a C++ compiler (apt install g++)")

# Reads "height width rows columns bins iterations" and then the pixels, for each image; writes the labels.
DRIVER = """
#include <cstdio>
#include SOURCE
int main() {
  int s[6];
  while (std::fread(s, sizeof(int), 6, stdin) == 6) {
    std::vector<std::uint8_t> lab(static_cast<std::size_t>(s[0]) * s[1] * 3);
    std::vector<std::int32_t> labels(lab.size() / 3);
    if (std::fread(lab.data(), 1, lab.size(), stdin) != lab.size()) return 2;
    Seeds* seeds = cast_seeds_create(s[0], s[1], s[2], s[3], s[4], s[5]);
    if (!seeds) return 3;
    for (int frame = 0; frame < 2; frame++) {
      if (cast_seeds_run(seeds, lab.data(), labels.data())) return 4;
    }
    // The same labels by two runs, in place; then labels of another grid.
    std::vector<std::int32_t> halves(labels.size());
    Seeds* begun = cast_seeds_create(s[0], s[1], s[2], s[3], s[4], s[5] / 2 * 2);
    if (cast_seeds_run(begun, lab.data(), halves.data())) return 5;
    if (cast_seeds_run_from(begun, lab.data(), halves.data(), s[5] % 2, halves.data())) return 6;
    if (halves != labels) return 7;
    for (const int wrong : {-1, s[2] / 2 * (s[3] / 2), INT32_MAX}) {
      halves.back() = wrong;
      if (cast_seeds_run_from(begun, lab.data(), halves.data(), 1, halves.data()) != 2) return 8;
    }
    cast_seeds_destroy(begun);
    cast_seeds_destroy(seeds);
    std::fwrite(labels.data(), sizeof(std::int32_t), labels.size(), stdout);
  }
}
"""


@needs_compiler
def test_the_kernel_is_in_use():
    assert cast_sdk.superpixels.backend() == "native"


@needs_compiler
@pytest.mark.parametrize("defines", [(), ("-DCAST_SEEDS_PORTABLE",)], ids=["vector", "portable"])
def test_clean_under_sanitizers_and_equal(tmp_path, defines):
    (tmp_path / "driver.cpp").write_text(DRIVER)
    program = tmp_path / "driver"
    build = [COMPILER, "-std=c++17", "-O1", "-ffp-contract=off", "-fsanitize=address,undefined"]
    build += ["-fno-sanitize-recover=all", "-Wall", "-Wextra", "-Werror", *defines, f'-DSOURCE="{SOURCE}"']
    built = subprocess.run([*build, str(tmp_path / "driver.cpp"), "-o", str(program)], capture_output=True, text=True)
    if "cannot find -lasan" in built.stderr or "cannot find -lubsan" in built.stderr:
        pytest.skip("the compiler comes without the sanitizer libraries")
    assert built.returncode == 0, built.stderr

    random = np.random.default_rng(0)
    request, expected = b"", []
    for height, width, count, bins, iterations in [
        (224, 224, 196, 15, 4),
        (97, 131, 60, 5, 6),
        (6, 4, 6, 5, 3),
        (8, 64, 32, 16, 4),
        (65, 129, 2000, 7, 4),
    ]:
        lab = random.integers(0, 256, (height, width, 3), np.uint8)
        lab[: height // 2] &= 0xE0
        grid = cast_sdk.superpixels.seeds_grid(height, width, count)
        sizes = (height, width, grid.block_rows, grid.block_columns, bins, iterations)
        request += np.array(sizes, np.int32).tobytes() + lab.tobytes()
        with kernels.borrow(height, width, count, bins, iterations) as kernel:
            labels = np.empty((height, width), np.int32)
            kernel(lab, labels)
            expected.append(labels)
    run = subprocess.run([str(program)], input=request, capture_output=True)
    assert run.returncode == 0, run.stderr.decode()
    assert run.stdout == b"".join(labels.tobytes() for labels in expected)


@needs_compiler
def test_unusable_sizes_are_refused_by_the_library():
    library = kernels.native_library()
    for sizes in [(3, 64, 2, 2, 5, 1), (64, 64, 65, 4, 5, 1), (64, 64, 4, 4, 17, 1), (64, 64, 4, 4, 5, -1)]:
        assert library.cast_seeds_create(*sizes) is None


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads the resident memory from /proc")
def test_no_leak_over_ten_thousand_frames():
    def resident_pages() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1])

    random = np.random.default_rng(0)
    images = random.integers(0, 256, (4, 32, 32, 3), np.uint8)
    counts = (9, 16, 25, 36)

    def frames(number: int) -> None:
        for i in range(number):
            seeds(images[i % 4], counts[i // 4 % 4], 5, 2)
        for _ in range(number // 100):  # kernels that come and go
            kernels.kernel_class()(64, 64, 64, 5, 2)

    frames(1000)
    before = resident_pages()
    frames(10_000)
    grown = (resident_pages() - before) * os.sysconf("SC_PAGE_SIZE")
    assert grown < 2_000_000, f"{grown} bytes over 10,000 frames"


AT_EXIT = """
import threading, time
import numpy as np
from cast_sdk.superpixels.kernels import NativeKernel

kernel = NativeKernel(480, 640, 900, 15, 20)
lab = np.random.default_rng(0).integers(0, 255, (480, 640, 3)).astype(np.uint8)
out = np.empty((480, 640), np.int32)
threading.Thread(target=lambda: [kernel(lab, out) for _ in iter(int, 1)], daemon=True).start()
time.sleep(0.3)
"""


def test_a_process_may_end_while_a_thread_finds_superpixels():
    done = subprocess.run([sys.executable, "-c", AT_EXIT], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
