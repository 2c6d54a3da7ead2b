# `make help` lists the targets. Everything is built under .venv and build; nothing else is touched.

PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
VAULT ?= docs
SCALE ?= medium
VENV := .venv
BIN := $(VENV)/bin
# Files of tests side by side, as many of them as there are processors, up to four.
SIDE_BY_SIDE := -n auto --maxprocesses 4 --dist loadfile
CORE := $(wildcard src/_core/*) $(wildcard migrations/*) CMakeLists.txt cmake/obtain_sqlite.py pyproject.toml

# An environment of its own for another build of the core, on the packages .venv already has.
# $(call other,name,cmake definitions)
define other
	@echo "== building the core: $(1)"
	@test -d build/$(1)/venv || $(BIN)/python -m venv --without-pip build/$(1)/venv
	@$(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))' \
		> $$(build/$(1)/venv/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/packages.pth
	@PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m pip --python build/$(1)/venv/bin/python install -q --no-deps --no-build-isolation \
		--config-settings=build-dir=build/$(1)/cmake $(2:%=--config-settings=cmake.define.%) -e .
endef

# The packages of an extra in an environment of their own, where those of .venv come after them on the path.
# One that cannot be installed does not take part; the table, or a skipped test, says so.
# $(call beside,extra,what they are)
define beside
	@mkdir -p build/$(1)
	@$(BIN)/python -c 'import tomllib; project = tomllib.load(open("pyproject.toml", "rb"))["project"]; \
		print(*project["optional-dependencies"]["$(1)"], sep="\n")' > build/$(1)/wanted.txt
	@cmp -s build/$(1)/wanted.txt build/$(1)/installed.txt || { \
		echo "== installing $(2)"; \
		rm -rf build/$(1)/venv; \
		$(BIN)/python -m venv build/$(1)/venv && pip="build/$(1)/venv/bin/python -m pip install -q" && \
		{ $$pip -r build/$(1)/wanted.txt || while read -r package; do \
			$$pip "$$package" </dev/null || echo "!! $$package cannot be installed here"; \
		done < build/$(1)/wanted.txt; } && \
		$(BIN)/python -c 'import sysconfig; \
			print("import site; site.addsitedir({!r})".format(sysconfig.get_path("purelib")))' \
			> $$(build/$(1)/venv/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/built.pth && \
		cp build/$(1)/wanted.txt build/$(1)/installed.txt; }
	@touch build/$(1)/.packages
endef

.PHONY: help
help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-15s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: setup
setup: $(VENV)/.built ## make .venv and build the core into it (all below do it too)

$(VENV)/.python:
	@PYTHON="$(PYTHON)" sh scripts/prerequisites
	@echo "== making $(VENV) with $$($(PYTHON) --version)"
	@$(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/.packages: pyproject.toml $(VENV)/.python
	@echo "== installing the packages Resonance needs to run, build and test"
	@$(BIN)/python -c 'import tomllib; project = tomllib.load(open("pyproject.toml", "rb"))["project"]; \
		print(*project["dependencies"], *project["optional-dependencies"]["dev"], sep="\n")' > $(VENV)/packages.txt
	@$(BIN)/python -m pip install -q -r $(VENV)/packages.txt
	@touch $@

$(VENV)/.built: $(VENV)/.packages $(CORE)
	@echo "== building the core (the first time about a minute: it compiles SQLite)"
	@$(BIN)/python -m pip install -q --no-deps --no-build-isolation --config-settings=build-dir=build/dev -e .
	@touch $@
	@$(BIN)/python -c 'from resonance import engine; print("== SQLite {version}, from: {origin}".format(**engine()))'

.PHONY: demo
demo: setup ## ingest, search and read a vault: make demo [VAULT=folder]
	@RESONANCE="$(BIN)/resonance" PYTHON="$(BIN)/python" sh scripts/demo "$(VAULT)"

.PHONY: test
test: lint types test-engines test-packaging ## every check there is
	@echo "== tests"
	@$(BIN)/python -m pytest -q $(SIDE_BY_SIDE)

.PHONY: lint
lint: setup ## ruff: rules and formatting
	@echo "== ruff"
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .

.PHONY: types
types: setup ## mypy strict; the core's stub against the core
	@echo "== mypy, stubtest"
	@$(BIN)/mypy
	@MYPYPATH=src $(BIN)/stubtest --mypy-config-file pyproject.toml resonance._core

.PHONY: test-engines
test-engines: setup ## the tests of what an engine can change, on the system's SQLite
	@if echo '#include <sqlite3.h>' | cc -E - >/dev/null 2>&1; then $(MAKE) --no-print-directory test-system; else \
		echo "!! SKIPPED: no sqlite3.h here, so nothing was tested on the system's SQLite."; \
		echo "!! Debian, Ubuntu: apt-get install libsqlite3-dev; Fedora: dnf install sqlite-devel"; fi

.PHONY: test-system
test-system: build/system/.built
	@echo "== tests on the system's SQLite"
	@build/system/venv/bin/python -m pytest -q $(SIDE_BY_SIDE) -p no:cacheprovider tests/core tests/database tests/search tests/care \
		-W ignore::resonance.errors.UnsafeSQLiteWarning

build/system/.built: $(VENV)/.packages $(CORE)
	$(call other,system,RESONANCE_ENGINE=system)
	@touch $@

.PHONY: test-packaging
test-packaging: setup ## sdist, wheel and editable install, each in an empty environment
	@echo "== packaging"
	@$(BIN)/python -m pytest -q $(SIDE_BY_SIDE) -m packaging

.PHONY: stress
stress: setup ## long tests under load
	@$(BIN)/python -m pytest -q -m stress

.PHONY: bench
bench: setup build/bench/.packages ## ours beside its peers: make bench [SCALE=small|medium|large]
	@echo "== benchmarks, scale $(SCALE)"
	@build/bench/venv/bin/python -m pytest -q benchmarks --scale=$(SCALE)

.PHONY: bench-search
bench-search: setup build/bench/.packages ## exact search beside its peers: SCALE=small|medium|large|growth
	@echo "== search, scale $(SCALE)"
	@build/bench/venv/bin/python benchmarks/search.py --scale $(SCALE)
	@build/bench/venv/bin/python benchmarks/search_plot.py

.PHONY: quality
quality: setup build/bench/.packages ## how well a question finds its note: make quality RESONANCE_CORPORA=folder
	@build/bench/venv/bin/python benchmarks/quality.py $(RESONANCE_CORPORA) --json build/bench/quality.json

.PHONY: bench-vault
bench-vault: setup ## a vault from nothing, as it is, and after an edit: make bench-vault VAULT=folder
	@$(BIN)/python benchmarks/vault.py "$(VAULT)"

build/bench/.packages: pyproject.toml $(VENV)/.packages
	$(call beside,bench,the peers to measure against (1 GB))

.PHONY: test-handover
test-handover: setup build/handover/.packages ## tables and matrices into polars, pandas, duckdb, faiss, usearch, hnswlib
	@echo "== tests of handing over"
	@build/handover/venv/bin/python -m pytest -q -p no:cacheprovider tests/database/test_handover.py

build/handover/.packages: pyproject.toml $(VENV)/.packages
	$(call beside,handover,those who take what Resonance hands over (0.3 GB))

.PHONY: sanitize
sanitize: build/sanitize/.built ## the tests under the address and undefined-behaviour sanitizers
	@LD_PRELOAD="$$(cc -print-file-name=libasan.so) $$(cc -print-file-name=libubsan.so)" \
		ASAN_OPTIONS=detect_leaks=0 UBSAN_OPTIONS=print_stacktrace=1:halt_on_error=1 PYTHONMALLOC=malloc \
		build/sanitize/venv/bin/python -m pytest -q -p no:cacheprovider --timeout=1200

build/sanitize/.built: $(VENV)/.packages $(CORE)
	$(call other,sanitize,RESONANCE_SANITIZE=ON)
	@touch $@

.PHONY: debug
debug: $(VENV)/.packages ## rebuild the core in .venv for a debugger; the next make undoes it
	@$(BIN)/python -m pip install -q --no-deps --no-build-isolation \
		--config-settings=build-dir=build/debug --config-settings=cmake.define.RESONANCE_DEBUG=ON -e .
	@rm -f $(VENV)/.built

.PHONY: dist
dist: setup ## sdist, and the wheel made from it, into dist
	@$(BIN)/python -m build --no-isolation

.PHONY: clean
clean: ## remove everything made here
	rm -rf $(VENV) build dist .benchmarks .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find src tests benchmarks -name __pycache__ -prune -exec rm -rf {} + 2>/dev/null || true
