# A fresh clone needs Python 3.11 or newer and this file: `make demo` and `make test` set up .venv by themselves.

PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python
READY := $(VENV)/.ready
LINT_READY := $(VENV)/.ready-lint
JOBS ?= 2
TARGET ?= v1
PACKAGES := ir passes backends neff compiler

# Many small matrices on few cores: threads of BLAS would wait for each other.
export OPENBLAS_NUM_THREADS ?= 1

.PHONY: demo test lint bench conformance conformance-graphs browser clean

demo: $(READY)
	$(RUN) -m nxcc.compiler.demo examples/digits_encoder

test: $(READY)
	$(RUN) -m pytest -q -n $(JOBS) tests

# mypy does not see an editable install: it is shown the tree under its import name.
lint: $(LINT_READY)
	$(VENV)/bin/ruff check .
	mkdir -p build/typing
	ln -sfn ../.. build/typing/nxcc
	MYPYPATH=build/typing $(VENV)/bin/mypy -p nxcc.ir -p nxcc.passes -p nxcc.backends -p nxcc.neff -p nxcc.compiler -p nxcc.cli

bench: $(READY)
	$(RUN) tests/bench/run.py $(BENCH)

# The browsers that tests/browser drives, as Debian has them; tests of those that are missing are skipped.
browser:
	if command -v chromedriver && command -v firefox-esr; then exit; fi; apt-get update -qq && \
	apt-get install -y -qq --no-install-recommends chromium chromium-driver firefox-esr

conformance: $(READY)
	PYTHONPATH=tests $(RUN) -m conformance.run --jobs $(JOBS) $(CORPUS)

conformance-graphs: $(READY)
	PYTHONPATH=tests $(RUN) -m conformance.models --target $(TARGET) --jobs $(JOBS) $(CORPUS)

# An installer writes byte code; an editable install does not, and PYTHONDONTWRITEBYTECODE would keep every run from it.
$(READY): pyproject.toml
	$(PYTHON) -m venv $(VENV)
	rm -rf build/lib
	$(RUN) -m pip install --quiet --disable-pip-version-check -e '.[test]'
	$(RUN) -m compileall -q $(PACKAGES) *.py
	touch $@

$(LINT_READY): $(READY)
	$(RUN) -m pip install --quiet --disable-pip-version-check -e '.[test,lint]'
	touch $@

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .ruff_cache .mypy_cache .hypothesis
