# Two commands need nothing but Python 3.10 or newer: `make demo` and `make test`.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
COMPAT := $(shell find compat -type f ! -path '*/__pycache__/*')
SHAPES := datasets/shapes
DEMO := output/demo

# `make versions`: the oldest packages with the oldest Python, and the newest with the newest.
OLDEST_PYTHON ?= python3.10
NEWEST_PYTHON ?= python3.13
FAST := $(addprefix tests/,ops losses criteria evaluation checkpoint data utils engine/test_train.py)

.PHONY: help install demo test nightly versions oldest newest lint docs clean
.DEFAULT_GOAL := help

help:
	@echo "make demo      train Faster R-CNN with BRS loss on colored shapes, evaluate and draw it"
	@echo "make test      lint, docs and pytest"
	@echo "make nightly   the tests that take minutes"
	@echo "make versions  the fast tests with the oldest and the newest packages that are supported"
	@echo "make lint      ruff, mypy and codespell"
	@echo "make docs      the documents and API pages as a website, in site/"
	@echo "make install   fill $(VENV) (the targets above do it when needed)"
	@echo "make clean     remove $(VENV), caches and what the demo wrote"
	@echo "PYTHON=...     the Python to use ($(PYTHON)); a detectron2 installed there is used"

install: $(INSTALLED)

$(INSTALLED): $(wildcard requirements/*) setup.py pyproject.toml $(COMPAT)
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 10) or sys.exit("brloss_d2 needs Python \
	3.10 or newer, found " + sys.version.split()[0] + ": try  make PYTHON=python3.11")'
	@$(PYTHON) requirements/install.py $(VENV)
	@touch $@

demo: $(INSTALLED)
	$(BIN)/python tools/make_shapes.py --output $(SHAPES)
	$(BIN)/python train_net.py --config-file configs/quick/faster_rcnn_R_18_FPN_brs_300it.py \
	    data.train=$(SHAPES)/annotations/instances_train.json data.train_images=$(SHAPES)/train \
	    data.val=$(SHAPES)/annotations/instances_val.json data.val_images=$(SHAPES)/val \
	    train.output_dir=$(DEMO) "train.expected_results=[[bbox,AP,78,6]]"
	$(BIN)/python tools/draw_predictions.py --output-dir $(DEMO)

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/codespell

# Warnings, such as an argument that does not exist, fail. Links are checked by tests/docs.
docs: $(INSTALLED)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

# One thread a worker: more of both are slower than either. Tests of a file share its fixtures.
test: lint docs
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --maxprocesses 8 --dist loadfile --no-loadscope-reorder

nightly: $(INSTALLED)
	$(BIN)/python -m pip install -q -c requirements/lock.txt -e '.[evidence]'
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m nightly

versions: oldest newest

oldest newest:
	$(if $(filter oldest,$@),$(OLDEST_PYTHON),$(NEWEST_PYTHON)) requirements/install.py $(VENV)-$@ $@
	OMP_NUM_THREADS=1 $(VENV)-$@/bin/python -m pytest -n auto --maxprocesses 8 --dist loadfile $(FAST)

clean:
	rm -rf $(VENV) $(VENV)-oldest $(VENV)-newest $(SHAPES) $(DEMO) site .mypy_cache .pytest_cache .ruff_cache *.egg-info
	find . -name __pycache__ -prune -exec rm -rf {} +
