# One command for everything a person does here; `make` alone lists them.

PYTHON ?= python3
SCALE ?=
ONLY ?=
NOTEBOOK ?=
PROFILE ?=
BIN := .venv/bin
LAB := .venv/share/jupyter/lab/settings
READY := .venv/.ready
comma := ,
CHOSEN = $(or $(patsubst all,--all,$(subst $(comma), ,$(ONLY))),--headline)

.DEFAULT_GOAL := help
.PHONY: help figures check test lab docs readme export notebooks bench clean

help: ## list what there is
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@echo "Variables: PYTHON=python3.12, for figures SCALE=smoke|cpu|long|gpu, ONLY=id,id|all, PROFILE=folder, for lab NOTEBOOK=path"

figures: $(READY) ## make the headline figures, or those named by ONLY, at the scale SCALE
	$(BIN)/ebwm figures run $(strip $(CHOSEN) $(if $(SCALE),--scale $(SCALE)) $(if $(PROFILE),--profile $(PROFILE)))

check: $(READY) ## run the fast checks: export, style, language, fast tests
	$(BIN)/python tests/check.py check

test: $(READY) ## run every check: export, notebooks, style, tests, smoke figures, docs
	$(BIN)/python tests/check.py test

lab: $(READY) ## open the notebooks in JupyterLab, or the one named by NOTEBOOK
	@mkdir -p $(LAB) && echo '{"@jupyterlab/apputils-extension:notification": {"fetchNews": "false", "checkForUpdates": false}}' > $(LAB)/overrides.json
	$(BIN)/jupyter lab --ServerApp.root_dir=. --LabApp.default_url=/lab/tree/$(or $(NOTEBOOK),nbs)

docs: $(READY) ## build the site in _docs, by quarto where it is installed
	$(BIN)/python docs/build.py

readme: $(READY) ## write README.md, and the answers in the notebooks of figures
	$(BIN)/python docs/build.py readme

export: $(READY) ## write the modules in ebwm from the notebooks
	$(BIN)/nbdev-export

notebooks: $(READY) ## run the notebooks, save their outputs, clean them (not those of figures)
	for path in nbs/tutorials nbs/core nbs/gradient nbs/data nbs/training nbs/policy nbs/evaluation nbs/explorers nbs/index.ipynb; do \
	  OMP_NUM_THREADS=1 $(BIN)/nbdev-test $$path --save --n-workers 2 || exit 1; done
	$(BIN)/nbdev-clean

bench: $(READY) ## measure what an EBT costs, into figures/benchmarks (OFFICIAL_EBT=checkout to compare)
	$(BIN)/python -m benchmarks

clean: ## remove what was built, but not .venv, data and runs
	rm -rf _docs _proc build .pytest_cache .ruff_cache .hypothesis .coverage nbs/nbdev.yml nbs/sidebar.yml nbs/_quarto.yml
	find ebwm tests docs benchmarks -name __pycache__ -prune -exec rm -r {} +

# the environment, made again when what is installed changes; modules are compiled when they are first imported
$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "ebwm needs Python 3.11 or newer; $(PYTHON) is not. Name another: make PYTHON=python3.12"; exit 1; }
	[ -x $(BIN)/python ] || $(PYTHON) -m venv .venv
	@echo "Installing the packages into .venv, about 3 GB: two minutes or more"
	$(BIN)/pip install -q --no-compile -c constraints.txt -e '.[dev]'
	@touch $@
