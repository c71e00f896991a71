# Two commands do everything on a fresh machine with Python: make demo, make test.
#
#   make demo           segment photographs with the bundled model (needs a C++ compiler, no torch)
#   make demo-export    export the bundled model and run what came out (brings torch)
#   make test           the tests; test-full and test-exhaustive add the long ones, test-hostile all bad inputs
#   make lint types     ruff and mypy
#   make docs           the documentation site, in build/site
#   make wheels         wheels for x86-64 and aarch64 and the source archive, in dist
#   make test-lowest    the commands with the oldest versions that pyproject.toml allows; test-newest with the newest
#   make test-aarch64   the aarch64 wheel in an emulated root (Debian's qemu-user-static and mmdebstrap)
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
CONTRIB := build/opencv-contrib
READERS := build/readers
ZIG := build/zig
KERNEL ?= export/web/kernel.wasm
JOBS ?= 2

.PHONY: demo demo-export test test-full test-hostile test-exhaustive lint types docs kernel wheels test-lowest test-newest test-aarch64 clean

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

# The stamps make a second call quick; what the installation is made from renews them, the kernels' sources too.
SOURCES := pyproject.toml setup.py $(wildcard cast_sdk/superpixels/*.cpp cast_sdk/superpixels/*.h runtime/*.cpp runtime/tracking/*.cpp runtime/tracking/*.h)
$(VENV)/.demo: $(SOURCES) | $(BIN)/python
	$(BIN)/pip install --quiet -e .
	touch $@

$(VENV)/.export: $(SOURCES) | $(BIN)/python
	$(BIN)/pip install --quiet -e ".[export]"
	touch $@ $(VENV)/.demo

$(VENV)/.dev: $(SOURCES) | $(BIN)/python
	$(BIN)/pip install --quiet -e ".[dev]"
	touch $@ $(VENV)/.demo $(VENV)/.export

# OpenCV's own SEEDS, to compare with: kept out of the environment, where it would clash with opencv-python.
$(CONTRIB)/.done:
	$(PYTHON) -m pip install --quiet --no-deps --target $(CONTRIB) "opencv-contrib-python>=5,<5.1"
	touch $@

# Programs that open our files and question our service, apart for the same reason.
$(READERS)/.done: tests/interchange/readers.txt
	$(PYTHON) -m pip install --quiet --no-deps --upgrade --target $(READERS) -r $<
	touch $@

# A C++ compiler for WebAssembly, pinned: it comes as a wheel, for the one file that is built with it.
$(ZIG)/.done:
	$(PYTHON) -m pip install --quiet --no-deps --target $(ZIG) "ziglang==0.17.1"
	touch $@

# The kernel of the page for browsers, from the library's own SEEDS and merging. It is committed; this builds it again.
kernel: $(ZIG)/.done
	PYTHONPATH=$(ZIG) $(PYTHON) -m ziglang c++ -target wasm32-wasi -std=c++17 -O3 -msimd128 -ffp-contract=off \
	  -fno-exceptions -fno-rtti -mexec-model=reactor -s -Wall -o $(KERNEL) \
	  cast_sdk/superpixels/_seeds.cpp cast_sdk/superpixels/_merging.cpp \
	  -Wl,--export=cast_seeds_create,--export=cast_seeds_run,--export=cast_seeds_destroy \
	  -Wl,--export=cast_merged_levels,--export=malloc,--export=free

demo: $(VENV)/.demo
	$(BIN)/python examples/demo.py

demo-export: $(VENV)/.export
	$(BIN)/python examples/demo_export.py

test: $(VENV)/.dev $(CONTRIB)/.done $(READERS)/.done
	CAST_SDK_OPENCV_CONTRIB=$(abspath $(CONTRIB)) CAST_SDK_READERS=$(abspath $(READERS)) $(BIN)/python -m pytest -m "not full and not exhaustive and not hostile" $(PYTEST)

# Full-size models and the longer comparisons: minutes.
test-full: $(VENV)/.dev $(CONTRIB)/.done $(ZIG)/.done
	OMP_NUM_THREADS=1 CAST_SDK_OPENCV_CONTRIB=$(abspath $(CONTRIB)) $(BIN)/python -m pytest -m full -n $(JOBS) $(PYTEST)

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.dev
	$(BIN)/mypy -p cast_sdk

# Thousands of bad inputs at every door; make test tries a sample of them.
test-hostile: $(VENV)/.dev
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m hostile $(PYTEST)

# What test-full leaves out for its time: every registered model in full size, on all bundled photographs.
test-exhaustive: $(VENV)/.dev
	$(BIN)/python -m pytest -m exhaustive $(PYTEST)

# Wheels for both architectures from one machine; ziglang is the compiler. build/tools is made once.
TOOLS := build/tools
$(TOOLS)/.done: .ci/tools.txt
	$(PYTHON) -m venv $(TOOLS)
	$(TOOLS)/bin/pip install --quiet -r .ci/tools.txt
	touch $@

wheels: $(TOOLS)/.done
	.ci/wheels $(TOOLS)/bin dist

# Real installations of a wheel outside the checkout: see .ci/installations.
test-lowest test-newest: test-%: $(VENV)/.dev
	.ci/installations $* $(BIN)/python

test-aarch64: wheels $(VENV)/.dev
	.ci/aarch64 dist $(BIN)/python

docs: build/docs-tools/.done
	NO_MKDOCS_2_WARNING=1 build/docs-tools/bin/mkdocs build --strict --quiet --site-dir build/site

build/docs-tools/.done: .ci/docs.txt
	$(PYTHON) -m venv build/docs-tools
	build/docs-tools/bin/pip install --quiet -r .ci/docs.txt
	touch $@

clean:
	rm -rf build dist *.egg-info outputs
