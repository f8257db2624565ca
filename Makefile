# `make help` lists the targets. They work in .venv, which the first target that needs it makes.

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help setup demo test test-slow test-oldest test-programs lint bench docs build

# Variables that a call may set: make demo OUT=elsewhere, make test ARGS="-k boxes", make setup PYTHON=python3.13
PYTHON ?=
OUT ?= demo-output
ARGS ?=
PART ?=
INSTALLER ?= $(if $(shell command -v uv 2>/dev/null),uv,pip)

# The stamp is written when set-up is finished, and holds the version of Python and the folder. A .venv that was moved, or
# whose Python is gone, is made again.
STAMP := .venv/.set-up
MADE_FOR := .venv/bin/python -c 'import os, sys; print(*sys.version_info[:2], os.getcwd())'
ifneq ($(shell $(MADE_FOR) 2>/dev/null),$(shell cat $(STAMP) 2>/dev/null))
.PHONY: $(STAMP)
endif

help:  ## this list
	@echo "make TARGET, where TARGET is one of"
	@awk -F ':.*  ## ' '/^[a-z-]+:.*  ## / { printf "  %-11s %s\n", $$1, $$2 }' Makefile

setup: $(STAMP)  ## make .venv with everything in it; the other targets do so themselves

demo: $(STAMP)  ## train, evaluate and detect on synthetic scenes, in a new folder OUT=demo-output; again: ARGS=--overwrite
	.venv/bin/multibox demo --out "$(OUT)" $(ARGS)

test: $(STAMP)  ## all quick tests that need neither a GPU nor the network; ARGS="..." goes to pytest
	.venv/bin/python -m pytest --numprocesses auto --maxprocesses 8 --dist loadfile $(ARGS)

test-slow: $(STAMP)  ## the slow ones: whole trainings
	.venv/bin/python -m pytest -m slow $(ARGS)

test-oldest: .venv-oldest/.set-up  ## the quick tests on the oldest versions that pyproject.toml allows, in .venv-oldest
	.venv-oldest/bin/python -m pytest --numprocesses auto --maxprocesses 8 --dist loadfile $(ARGS)

PROGRAMS := mediapipe openvino-model-api opencv-python-headless executorch

test-programs: $(PROGRAMS:%=.venv-programs/%/.set-up)  ## exported files in other programs, each of which is installed in .venv-programs
	.venv/bin/python -c "from multibox.deploy.web_page import find_engine; find_engine()"
	.venv/bin/python -m pytest -m "slow or not slow" tests/deploy/test_web.py tests/deploy/test_cpp.py
	for program in $(PROGRAMS); do .venv-programs/$$program/bin/python -m pytest -m slow tests/deploy/test_programs.py \
	  tests/deploy/test_executorch.py || exit 1; done

lint: $(STAMP)  ## format, rules and types
	.venv/bin/python -m ruff format --check .
	.venv/bin/python -m ruff check .
	.venv/bin/python -m mypy

bench: $(STAMP)  ## speed beside other libraries, some ten minutes, numbers in bench.json; PART=input for one part
	.venv/bin/python -m benchmarks $(PART) --json bench.json $(ARGS)

docs: $(STAMP)  ## draw the pictures of docs/tour.md and print the numbers in it
	.venv/bin/python tools/make_tour.py

build: $(STAMP)  ## wheel and source distribution in dist/
	.venv/bin/python -m hatchling build

RIGHT_PYTHON := import sys; sys.exit(sys.version_info < (3, 11))
NAME_ANOTHER := name another: make setup PYTHON=python3.13

# uv finds a Python that pyproject.toml allows, or downloads one. pip needs one that is there.
define make_with_uv
rm -rf .venv && uv venv $(if $(PYTHON),--python "$(PYTHON)") .venv
endef
define make_with_pip
python="$(or $(PYTHON),python3)"; \
command -v "$$python" >/dev/null || { \
  echo "multibox needs Python 3.11 or newer, but there is no $$python; $(NAME_ANOTHER)" >&2; exit 1; }; \
"$$python" -c '$(RIGHT_PYTHON)' || { \
  echo "multibox needs Python 3.11 or newer, but $$python is `"$$python" --version 2>&1`; $(NAME_ANOTHER)" >&2; exit 1; }; \
rm -rf .venv && "$$python" -m venv .venv
endef

# People at a terminal see pip's progress bar. A log gets one line a file, with its size.
BAR := $$(test -t 1 || echo --progress-bar off)
define fill_with_uv
uv pip install --python .venv/bin/python --compile-bytecode \
  --constraints constraints.txt --build-constraints constraints.txt --editable ".[train,dev]"
endef
define fill_with_pip
pip=".venv/bin/python -m pip --disable-pip-version-check install"; \
$$pip --quiet --constraint constraints.txt pip && \
$$pip $(BAR) --constraint constraints.txt --build-constraint constraints.txt --editable ".[train,dev]"
endef

$(STAMP): pyproject.toml constraints.txt Makefile
	@if [ -e $(STAMP) ] && [ "`$(MADE_FOR) 2>/dev/null`" != "`cat $(STAMP)`" ]; then \
	  echo "Set-up: .venv was made in another folder or for another Python; it is made again."; rm -rf .venv; fi
	@rm -f $(STAMP)
	@.venv/bin/python -c '$(if $(filter pip,$(INSTALLER)),import pip; )$(RIGHT_PYTHON)' 2>/dev/null || { $(make_with_$(INSTALLER)); }
	@echo "Set-up: $(INSTALLER) installs multibox, what it trains with (torch, torchvision, hotcoco, matplotlib) and what it"
	@echo "is tested with into .venv, in the versions of constraints.txt: some 100 packages."
	@ls -d .venv/lib/python*/site-packages/torch >/dev/null 2>&1 || case `uname -s` in \
	  Linux) echo "torch comes with its CUDA libraries here: 3.2 GB are fetched, and .venv takes 6 GB of the disk.";; \
	  *) echo "About 0.3 GB are fetched.";; esac
	@$(fill_with_$(INSTALLER))
	@.venv/bin/python -m compileall -q multibox
	@$(MADE_FOR) > $(STAMP)
	@echo "Set-up is done."

.venv-oldest/.set-up: pyproject.toml tools/oldest.py
	rm -rf .venv-oldest && "$(or $(PYTHON),python3)" -m venv .venv-oldest
	.venv-oldest/bin/python tools/oldest.py > .venv-oldest/constraints.txt
	.venv-oldest/bin/python -m pip --disable-pip-version-check install $(BAR) \
	  --constraint .venv-oldest/constraints.txt --editable ".[train,dev]"
	touch $@

# Each environment sees the packages of .venv too. The programs do not go together: all but ExecuTorch bring another OpenCV.
.venv-programs/%/.set-up: $(STAMP)
	rm -rf $(@D) && .venv/bin/python -m venv $(@D)
	.venv/bin/python -c "import sysconfig; print(f'import site; site.addsitedir({sysconfig.get_path(\"purelib\")!r})')" \
	  > `$(@D)/bin/python -c "import sysconfig; print(sysconfig.get_path('purelib'))"`/multibox-packages.pth
	$(@D)/bin/python -m pip --disable-pip-version-check install $(BAR) $*
	touch $@
