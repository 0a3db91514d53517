# Everything runs in .venv, which is made from requirements.lock: a fresh machine needs make and
# Python >= 3.11, nothing else. `make PYTHON=python3.13 book` chooses the interpreter.
PYTHON ?= python3
PROFILE ?= book
PORT ?= 8000
# Where the project is published; a book made without it has no button that opens Colab.
REPOSITORY ?=
REVISION ?=

TORCH := 2.13.0

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
NOTEBOOKS = $(wildcard notebooks/*.ipynb)
# Kept: kernelspec and cell tags, which papermill reads. Dropped: what an editor or a run leaves.
STRIP := $(BIN)/nbstripout --keep-id --extra-keys \
	"metadata.language_info metadata.papermill metadata.gomhc cell.metadata.papermill cell.metadata.vscode"

.DEFAULT_GOAL := help
.PHONY: help book pdf release colab colab-test serve test browser records gpu-records bench bench-fits compare lint links audit format lock clean
.DELETE_ON_ERROR:

help:  ## show this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/:/' | awk -F': *' '{printf "make %-11s %s\n", $$1, $$2}'

book: $(STAMP)  ## execute the notebooks and render the book (PROFILE=smoke|book|full SITE_URL=…)
	$(BIN)/python -m book.build --profile $(PROFILE) $(if $(REPOSITORY),--repository "$(REPOSITORY)")

release: $(STAMP)  ## pack the built book, wheel and source archive, with manifest and checksums
	$(BIN)/python -m book.release --profile $(PROFILE)

pdf: $(STAMP)  ## print the built book into one PDF (needs Chromium)
	$(BIN)/python -m book.pdf

colab: $(STAMP)  ## write the Colab editions (REPOSITORY=<git url> REVISION=<commit>)
	$(BIN)/python -m book.colab --repository "$(REPOSITORY)" --revision "$(REVISION)"

colab-test: $(STAMP)  ## run every Colab edition where there is torch but no gomhc (COLAB_ARGS="-k 02")
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 -m slow tests/test_colab.py $(COLAB_ARGS)

serve:  ## show the built book on localhost (PORT=8000)
	@test -f _build/html/index.html || { echo "no book in _build/html: run 'make book' first" >&2; exit 1; }
	$(PYTHON) -m http.server $(PORT) --bind 127.0.0.1 --directory _build/html \
		|| { echo "expected port $(PORT) to be free; make serve PORT=… takes another" >&2; exit 1; }

test: $(STAMP)  ## run the tests
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 $(PYTEST_ARGS)

browser: $(STAMP)  ## test the built book in Debian's Chromium (BROWSER_ARGS=…)
	$(BIN)/python -m pytest browser -n 2 $(BROWSER_ARGS)

# Threads cost more than they gain on batches of small matrices.
records: export OMP_NUM_THREADS ?= 1
records: $(STAMP)  ## run what the book stores of the full profile, from where it was stopped
	$(BIN)/python -m gomhc.studies

gpu-records: $(STAMP)  ## train the GPTs of profile full, for a GPU (LM_ARGS="--minutes 9 …")
	$(BIN)/python -m gomhc.lm.runs $(LM_ARGS)

bench: $(STAMP)  ## time mixers and layers against PyTorch and other packages (BENCH_ARGS=…, LAYER_ARGS=…)
	$(BIN)/python -m benchmarks.mixers $(BENCH_ARGS)
	$(BIN)/python -m benchmarks.layer $(LAYER_ARGS)

bench-fits: $(STAMP)  ## time the fits against a plain PyTorch loop, side by side (BENCH_ARGS=…)
	$(BIN)/python -m benchmarks.stream_mixing $(BENCH_ARGS)

compare: $(STAMP)  ## show which numbers moved against another run (OTHER=<folder of records>)
	$(BIN)/python -m book.compare "$(or $(OTHER),$(error expected OTHER=<folder of records>))" $(COMPARE_ARGS)

lint: $(STAMP)  ## check style, types, workflows, and that notebooks are stored without outputs
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(if $(NOTEBOOKS),$(STRIP) --verify $(NOTEBOOKS))
	$(BIN)/check-jsonschema --quiet --builtin-schema vendor.github-workflows .github/workflows/*.yml
	$(BIN)/check-jsonschema --quiet --builtin-schema vendor.dependabot .github/dependabot.yml
	$(BIN)/zizmor --offline --pedantic --no-progress --quiet .github

links: $(STAMP)  ## ask every link of the built book whether it is alive (needs a network)
	@test -d _build/source || { echo "no staged book in _build/source: run 'make book' first" >&2; exit 1; }
	$(BIN)/jupyter-book build _build/source --builder linkcheck --path-output _build/links

# In an environment of its own: what audits the packages is none of them.
audit:  ## look the locked packages up among known vulnerabilities (needs a network)
	$(PYTHON) -m venv _build/audit
	_build/audit/bin/python -m pip install --quiet pip-audit
	_build/audit/bin/pip-audit --requirement requirements.lock --no-deps --disable-pip

format: $(STAMP)  ## rewrite what lint would complain about, where a tool can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(if $(NOTEBOOKS),$(STRIP) $(NOTEBOOKS))

# torch comes first and pinned: otherwise another package's range could pull in a newer build.
lock:  ## resolve pyproject.toml anew into requirements.lock
	@set -eu; tmp=$$(mktemp -d); trap 'rm -rf "$$tmp"' EXIT; \
	$(PYTHON) -m venv "$$tmp/venv"; pip="$$tmp/venv/bin/python -m pip"; \
	echo "torch==$(TORCH)" > "$$tmp/constraints"; \
	$$pip install --quiet -c "$$tmp/constraints" torch; \
	$$pip install --quiet -c "$$tmp/constraints" -e '.[book,browser,lm,test,dev]'; \
	$$pip freeze --all --exclude-editable | sed -E 's/\+.*//' | tr 'A-Z_' 'a-z-' \
		| grep -vE '^(pip|wheel)==' | LC_ALL=C sort > requirements.lock.tmp; \
	mv requirements.lock.tmp requirements.lock; wc -l requirements.lock

clean:  ## remove the book, the environment and every cache
	rm -rf _build build dist $(VENV) *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis

$(STAMP): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' || { \
		echo "expected Python 3.11 to 3.13, got: $$($(PYTHON) --version 2>&1); try make PYTHON=python3.12" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet -r requirements.lock
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation -e .
	@touch $@
