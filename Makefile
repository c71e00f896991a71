# Two commands do everything on a fresh machine with Python: make demo, make test.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
CONTRIB := build/opencv-contrib
ZIG := build/zig
KERNEL ?= export/web/seeds.wasm
JOBS ?= 2

.PHONY: demo test test-full test-exhaustive lint types kernel clean

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

# The stamps make a second call quick; pyproject.toml renews them.
$(VENV)/.demo: pyproject.toml | $(BIN)/python
	$(BIN)/pip install --quiet -e ".[export]"
	touch $@

$(VENV)/.dev: pyproject.toml | $(BIN)/python
	$(BIN)/pip install --quiet -e ".[dev]"
	touch $@ $(VENV)/.demo

# OpenCV's own SEEDS, to compare with: kept out of the environment, where it would clash with opencv-python.
$(CONTRIB)/.done:
	$(PYTHON) -m pip install --quiet --no-deps --target $(CONTRIB) "opencv-contrib-python>=5,<5.1"
	touch $@

# A C++ compiler for WebAssembly, pinned: it comes as a wheel, for the one file that is built with it.
$(ZIG)/.done:
	$(PYTHON) -m pip install --quiet --no-deps --target $(ZIG) "ziglang==0.17.1"
	touch $@

# The SEEDS kernel of the page for browsers, from the library's own source. It is committed; this builds it again.
kernel: $(ZIG)/.done
	PYTHONPATH=$(ZIG) $(PYTHON) -m ziglang c++ -target wasm32-wasi -std=c++17 -O3 -msimd128 -ffp-contract=off \
	  -fno-exceptions -fno-rtti -mexec-model=reactor -s -Wall -o $(KERNEL) cast_sdk/superpixels/_seeds.cpp \
	  -Wl,--export=cast_seeds_create,--export=cast_seeds_run,--export=cast_seeds_destroy,--export=malloc,--export=free

demo: $(VENV)/.demo
	$(BIN)/python examples/demo.py

test: $(VENV)/.dev $(CONTRIB)/.done
	CAST_SDK_OPENCV_CONTRIB=$(abspath $(CONTRIB)) $(BIN)/python -m pytest -m "not full and not exhaustive" $(PYTEST)

# Full-size models and the longer comparisons: minutes.
test-full: $(VENV)/.dev $(CONTRIB)/.done $(ZIG)/.done
	OMP_NUM_THREADS=1 CAST_SDK_OPENCV_CONTRIB=$(abspath $(CONTRIB)) $(BIN)/python -m pytest -m full -n $(JOBS) $(PYTEST)

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.dev
	$(BIN)/mypy -p cast_sdk

# What test-full leaves out for its time: every registered model in full size, on all bundled photographs.
test-exhaustive: $(VENV)/.dev
	$(BIN)/python -m pytest -m exhaustive $(PYTEST)

clean:
	rm -rf build dist *.egg-info outputs
