# `make demo` and `make test` set up .venv when there is none, or when the requirements have changed.
# PYTHON chooses the interpreter (3.10, 3.11 or 3.12) of a new one: make test PYTHON=python3.12

PYTHON ?= python3
VENV ?= .venv
UV_VERSION := 0.13.9
PYTEST_ARGS ?=

BIN := $(VENV)/bin
REQUIREMENTS := setup.py requirements/overrides.txt requirements/constraints.txt
KEY := $(shell { cat $(REQUIREMENTS); echo uv $(UV_VERSION); } | cksum | cut -d' ' -f1)
# Written last, so an installation that failed or was interrupted is done again.
STAMP := $(VENV)/.installed-$(KEY)
SUPPORTED := import sys; sys.exit(not (3, 10) <= sys.version_info[:2] < (3, 13))

.PHONY: help demo test check docs format bench bench-quick clean

help:
	@echo "make demo         build a real encoder, meta-train on English, label seven others, teach a student"
	@echo "make test         run the tests, one process a core (PYTEST_ARGS='-n 0 tests/meta -k adaptation' runs a part)"
	@echo "make check        formatter, linter and type checker, as CI runs them"
	@echo "make docs         build the documentation site in build/site; links that lead nowhere are errors"
	@echo "make format       repair what formatter and linter can repair"
	@echo "make bench        measure all speed figures (bench-quick: fewer)"
	@echo "make clean        remove what the others made, but for environment and encoders"
	@echo "Each sets up $(VENV) first if it is needed; PYTHON chooses its interpreter (3.10, 3.11 or 3.12)."

demo: $(STAMP)
	$(BIN)/python demo/run.py

# Compiling all that a process imports takes longer than most of them work, so what is compiled is kept, also where
# the environment variable says otherwise. Threads of the few tests that have several sleep while they wait. A core
# that has run out of tests takes over some of another's.
test: $(STAMP)
	PYTHONDONTWRITEBYTECODE= OMP_NUM_THREADS=1 OMP_WAIT_POLICY=PASSIVE \
		$(BIN)/python -m pytest -n auto --dist worksteal $(PYTEST_ARGS)

check: $(STAMP)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

docs: $(STAMP)
	NO_MKDOCS_2_WARNING=1 $(BIN)/properdocs build --strict --quiet

# All speed figures, written to benchmarks/; METANER_ENCODER and METANER_DATA choose encoder and sentences.
bench: $(STAMP)
	$(BIN)/python benchmarks/run.py

bench-quick: $(STAMP)
	$(BIN)/python benchmarks/run.py --quick --output benchmarks/quick

format: $(STAMP)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# The environment and the encoders in .encoders stay.
clean:
	rm -rf build demo/output benchmarks/quick .mypy_cache .pytest_cache .ruff_cache .hypothesis *.egg-info
	find allennlp_metaner tests demo -name __pycache__ -type d -prune -exec rm -rf {} +

# A usable environment is brought up to date; anything else in its place is made anew. allennlp_models wants to
# download NLTK data whenever it is imported and finds none; nothing here uses it, and an empty folder contents it.
$(STAMP):
	@rm -f $(VENV)/.installed-*
	@{ $(BIN)/python -c '$(SUPPORTED)' && $(BIN)/python -m pip --version; } >/dev/null 2>&1 || { \
		$(PYTHON) -c '$(SUPPORTED)' 2>/dev/null || { \
			echo "allennlp-metaner needs Python 3.10, 3.11 or 3.12, and $(PYTHON) is" \
				"$$($(PYTHON) --version 2>/dev/null || echo missing). Choose one: make PYTHON=python3.11" >&2; \
			exit 1; \
		}; \
		echo "Creating $(VENV)"; \
		$(PYTHON) -m venv --clear $(VENV); \
	}
	$(BIN)/python -m pip install --quiet uv==$(UV_VERSION)
	$(BIN)/uv pip install --python $(BIN)/python --compile-bytecode --override requirements/overrides.txt \
		--constraints requirements/constraints.txt --editable '.[dev]'
	@mkdir -p $(VENV)/nltk_data/tokenizers/punkt
	@touch $@
