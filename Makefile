# Everything starts here: `make demo` runs a whole study, `make test` passes all tests. Needs Python 3.11 and make.

PYTHON ?= python3
BIN := .venv/bin
SNAKEMAKE := PATH="$(CURDIR)/$(BIN):$$PATH" snakemake

# the packages of .venv alone: another version on PYTHONPATH, or in a user's own folder, would give other numbers
unexport PYTHONPATH PYTHONHOME PYTHONSTARTUP
export PYTHONNOUSERSITE = 1
# what pip and uv would take from the user's own settings; a home that cannot be written has no cache
export PIP_USER = 0
unexport PIP_TARGET PIP_PREFIX UV_TARGET UV_PREFIX
ifneq ($(shell test -w "$$HOME" && echo yes),yes)
export UV_NO_CACHE = 1
export PIP_NO_CACHE_DIR = 1
endif

.PHONY: help env demo paper bench bench-gpu notebooks test unit coverage test-gpu test-slow test-slurm slices torture audit lint format lock
.PHONY: schema docs docs-blocks docs-full site record readme artifact archive kick clean

DEVICE ?= h200
COUNT ?= 8

help: ## what one can make
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

env: .venv/.ready ## the environment in .venv, from locked versions and hashes

# uv installs the whole set in under a minute; where it is missing, it comes into .venv first
.venv/.ready: requirements.txt pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or later is needed: make PYTHON=python3.11" if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv --clear .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check "$$(grep -o '^uv==[0-9.]*' requirements.txt)"
	$(BIN)/uv pip install --quiet --python $(BIN)/python --compile-bytecode --require-hashes --requirement requirements.txt
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation --editable .
	touch $@

demo: env ## the small study, its tables, figures and report: results/demo
	$(SNAKEMAKE) --configfile config/studies/demo.yaml
	$(SNAKEMAKE) --configfile config/studies/demo.yaml --report results/demo/report.html
	@echo "Look at results/demo/report.html, or at results/demo/tables/*.md and results/demo/figures/*.png"

paper: env ## what the whole paper takes, and how to start it: make paper DEVICE=a100 COUNT=4
	$(BIN)/spaced-kd plan config/studies/paper.yaml --device $(DEVICE) --count $(COUNT)
	@echo
	@echo "To start it on a cluster:   snakemake --cores 8 --profile slurm --configfile config/studies/paper.yaml"
	@echo "To start it on a machine:   snakemake --cores 8 --configfile config/studies/paper.yaml    # 8 trainings at a time"

notebooks: STUDY ?= demo
notebooks: env ## run both notebooks on a finished study, and put them into its report: make notebooks STUDY=demo
	@test -f results/$(STUDY)/rows.csv || { echo "results/$(STUDY)/rows.csv does not exist: run that study first"; exit 1; }
	$(SNAKEMAKE) all notebooks --configfile config/studies/$(STUDY).yaml
	$(SNAKEMAKE) all notebooks --configfile config/studies/$(STUDY).yaml --report results/$(STUDY)/report.html
	@echo "Look at results/$(STUDY)/notebooks/*.html, which results/$(STUDY)/report.html has too"

test: lint unit ## lint, format, types, and all tests that take under 5 s

unit: env ## all tests that take under 5 s, and the examples in docstrings
	$(BIN)/python -m pytest -q -n 2 --dist worksteal -m "not slow and not slurm"

coverage: env ## the same, with the share of lines that they run; fails below the floor in pyproject.toml
	$(BIN)/python -m pytest -q -n 2 --dist worksteal -m "not slow and not slurm" --cov --cov-report term:skip-covered

test-gpu: env ## the tests that need a GPU: a minute
	$(BIN)/python -m pytest -q -n 4 tests/training/test_gpu.py

test-slow: env ## the tests that take longer
	$(BIN)/python -m pytest -q -n 2 -m "slow and not slurm"

torture: env ## kill -9 at 50 moments of trainings, each of which must end in the same bits: five minutes
	OMP_NUM_THREADS=1 $(BIN)/python tests/robustness/torture.py 50

test-slurm: env ## a study on a real Slurm that cancels, kills and drains; needs root, installs Debian's Slurm
	$(BIN)/python -m pytest -q -m "slurm and not slow"

slices: env ## a training in ten slices on the same Slurm, once: ten minutes
	$(BIN)/python -m pytest -q -s -m "slurm and slow"

audit: env ## known faults of the locked packages, but those in .github/accepted-faults.txt; asks a database on the network
	grep -v '^ *#' .github/accepted-faults.txt | awk 'NF {print "--ignore-vuln", $$1}' | \
	  xargs $(BIN)/uv tool run pip-audit --strict --requirement requirements.txt --disable-pip --require-hashes

lint: env ## ruff, mypy, snakefmt, snakemake --lint
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/snakefmt --check Snakefile workflow
	$(SNAKEMAKE) --lint --configfile config/studies/demo.yaml

format: env ## let the formatters write
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/snakefmt Snakefile workflow

lock: env ## lock the newest versions that pyproject.toml allows
	$(BIN)/uv pip compile pyproject.toml --all-extras --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
	  --no-header --upgrade --output-file requirements.txt

schema: env ## write the JSON schema of a study anew, from which editors complete keys
	$(BIN)/python -m spaced_kd.config.schema > workflow/schemas/study.schema.json

docs: env ## the documentation, offline: site/index.html; a broken link fails
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --quiet
	@echo "Look at site/index.html"

docs-blocks: env ## run the blocks of code of the documentation: ten minutes on two cores
	DOCS_BLOCKS=1 $(BIN)/python -m pytest -q -n 2 -m slow tests/repository/test_docs.py

docs-full: env ## run every block of code of the documentation, also those that take minutes
	DOCS_FULL=1 $(BIN)/python -m pytest -q -n 2 tests/repository/test_docs.py

site: env ## all recorded results as one page, offline: results/results.html
	$(BIN)/spaced-kd site results/recorded/*/rows.csv --output results/results.html
	@echo "Look at results/results.html"

record: env ## keep a study's rows and their provenance in the repository: make record STUDY=tiny_small
	$(BIN)/spaced-kd record results/$(STUDY)

bench: env ## ours beside a plain loop on this machine's processors: twelve minutes on two quiet cores
	OMP_NUM_THREADS=2 $(BIN)/python -m benchmarks

bench-gpu: env ## the same on a GPU: four minutes
	$(BIN)/python -m benchmarks --device cuda

readme: env ## redraw the results of the README from the recorded rows
	$(BIN)/python -m scripts.readme

artifact: env ## write ARTIFACT.md anew: claims, commands, minutes, disk, machines, verdicts
	$(BIN)/python -m scripts.artifact

archive: env ## one zip of the commit with rows, provenance and licences: dist/spaced-kd-VERSION-artifact.zip
	$(BIN)/python -m scripts.archive

kick: env ## five minutes: tables from recorded rows, as in the README; recorded networks checked and evaluated again
	rm -rf results/kick
	$(BIN)/python -m pytest -q -n 0 tests/repository/test_readme.py -k the_results_are_made
	$(BIN)/spaced-kd render headline --rows results/recorded/*/rows.csv --output results/kick
	$(BIN)/spaced-kd get results/recorded/demo/networks.zip --results results/kick
	$(BIN)/spaced-kd prepare dataset=digits dataset.size=16 --results results/kick
	$(BIN)/spaced-kd verify results/kick --reevaluate
	@echo "Look at results/kick/tables/headline.md, and at the claims in ARTIFACT.md"

clean: ## delete resume states, stored teachers and logs; finished runs stay
	rm -rf results/state results/logs
