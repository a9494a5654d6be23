# Two commands: `make book` builds the book, `make test` tests everything. `make help` lists the rest.

PYTHON ?= python3
CONSTRAINTS ?= constraints.txt
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed-$(or $(basename $(CONSTRAINTS)),newest)

# One BLAS thread: results do not depend on the number of cores, and threads on shared cores collapse.
export OPENBLAS_NUM_THREADS = 1
export OMP_NUM_THREADS = 1
export MKL_NUM_THREADS = 1
export VECLIB_MAXIMUM_THREADS = 1
export PYDEVD_DISABLE_FILE_VALIDATION = 1
export PIP_DISABLE_PIP_VERSION_CHECK = 1

.DEFAULT_GOAL := help
.PHONY: help book test check lab serve bench clean distclean

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "%-10s %s\n", $$1, $$2}' Makefile

book: $(STAMP) ## Execute every notebook and build the HTML, warnings as errors
	@echo "Building the book: a first run executes all notebooks, later ones only those that changed."
	@$(BIN)/jupyter-book build . -W -n --keep-going -q
	@echo "The book is built. Open: $(CURDIR)/_build/html/index.html"

test: check ## Check style and types, then test the package and every notebook
	@$(BIN)/python -m pytest --nbmake -n auto --dist worksteal book nnbrain tests

check: $(STAMP) ## Check format, lint, types, and that notebooks are stored without outputs
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/nbstripout --verify --keep-id $$(find book -name '*.ipynb' -not -path '*/.ipynb_checkpoints/*')

lab: $(STAMP) ## Open the notebooks in JupyterLab, which shows their MyST text as the book does
	@$(BIN)/jupyter lab $(if $(filter 0,$(shell id -u)),--allow-root) book

serve: book ## Build, then show the book at http://localhost:8000
	@$(BIN)/python -m http.server 8000 --bind 127.0.0.1 --directory _build/html

bench: ## Measure against other libraries, installed into .venv-bench (3 GB); 20 minutes
	@$(PYTHON) benchmarks/run.py

clean: ## Remove the built book and all caches; keep the environment
	rm -rf _build .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find book nnbrain tests benchmarks -name __pycache__ -o -name .ipynb_checkpoints | xargs rm -rf

distclean: clean ## Remove the environment too
	rm -rf $(VENV) .venv-bench* *.egg-info

# The stamp is written last: an interrupted installation is done again, not taken for a finished one.
$(STAMP): pyproject.toml $(wildcard $(CONSTRAINTS))
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	  found=$$($(PYTHON) -c 'import platform; print(platform.python_version())' 2>/dev/null || echo "no Python at all"); \
	  echo "Python 3.11 or newer is needed, and '$(PYTHON)' is $$found." \
	    "Name another: make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; exit 1; }
	@echo "Installing into $(VENV) (the first time takes a few minutes)"
	@$(PYTHON) -m venv $(VENV) || { \
	  echo "Python cannot make a virtual environment. On Debian and Ubuntu: apt install python3-venv" >&2; exit 1; }
	@$(BIN)/python -m pip install --quiet --progress-bar on $(if $(CONSTRAINTS),-c $(CONSTRAINTS),--upgrade) -e ".[dev]" || { \
	  echo "Installing failed: see the lines above. Is the network, or your package index, within reach?" >&2; exit 1; }
	@for extra in mpi flower privacy; do \
	  $(BIN)/python -m pip install --quiet $(if $(CONSTRAINTS),-c $(CONSTRAINTS)) -e ".[$$extra]" \
	    || echo "The extra '$$extra' has no package for this machine: the cells and tests that need it will say so." >&2; \
	done
	@mkdir -p $(VENV)/etc/ipython && echo 'c.IPKernelApp.log_level = 40  # kernels here talk on loopback only' \
	  > $(VENV)/etc/ipython/ipython_kernel_config.py
	@rm -f $(VENV)/.installed-* && touch $@
