# Everything a newcomer needs: make demo, make test. Both set up .venv first, from requirements.lock with its hashes.
PYTHON ?= python3
BIN := .venv/bin
.DEFAULT_GOAL := help
.PHONY: help demo test check unit integration chaos-few chaos fuzz smoke bench lock clean

help:  ## what there is to make
	@grep -hE '^[a-z.]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | sort

.venv: .venv/.made  ## the environment, from the hash-checked requirements.lock

.venv/.made: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(None if (3, 11) <= v < (3, 13) else f"Python {v[0]}.{v[1]}: expected 3.11 or 3.12; run make PYTHON=python3.11")'
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv || { echo "python3-venv is missing: apt-get install python3-venv"; exit 1; }
	@test -x $(BIN)/uv || { sed -n '/^uv==/,/^[a-z#]/p' requirements.lock | sed -e '1!{/^[a-z#]/d}' > .venv/uv.lock \
		&& $(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r .venv/uv.lock; }
	$(BIN)/uv pip sync --python $(BIN)/python --require-hashes requirements.lock
	$(BIN)/uv pip install --python $(BIN)/python --quiet --no-deps --no-build-isolation -e .
	@touch $@

demo: .venv  ## the whole loop on real input, about 20 minutes; then everything stops
	$(BIN)/tidemill demo $(ARGS)

test: check unit integration chaos-few smoke  ## every check and test, fast ones first

check: .venv  ## ruff, format, mypy --strict, import-linter
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

unit: .venv
	$(BIN)/pytest tests/unit tests/fuzz tests/pipelines

integration: .venv
	$(BIN)/pytest tests/integration

chaos-few: .venv
	$(BIN)/pytest tests/chaos

chaos: .venv  ## some 200 seeded kill points, about half an hour; ARGS="--seed 7 --only watcher"
	$(BIN)/python -m tests.chaos $(ARGS)

fuzz: .venv  ## 10,000 mutated files through every reader; ARGS="--inputs 20000 --seed 7"
	$(BIN)/python -m tests.fuzz $(ARGS)

smoke: .venv
	$(BIN)/pytest tests/smoke

bench: .venv  ## benchmarks; NAME=x for one of them
	$(BIN)/python -m benchmarks $(NAME)

lock: .venv  ## renew requirements.lock from pyproject.toml
	$(BIN)/uv pip compile pyproject.toml --extra dev --extra names --universal --python-version 3.11 --generate-hashes \
		--no-header --no-emit-index-url --quiet -o requirements.lock

clean:  ## remove the environment and the demo's data
	rm -rf .venv .tidemill .mypy_cache .ruff_cache .pytest_cache
