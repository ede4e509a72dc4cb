# The words of the README. `make` alone lists them.
#   SCALE=smoke|laptop|workstation|paper   DATASET=phantom|hippocampus|headneck|sarcoma|btcv|folder   DATA=/path   CORES=n
#   REPEATS=3 makes 3 label subsets x 3 seeds of every fine-tuning   LABELS=1,2,3,6,12,24
#   PART=1|2|3|all chooses the part of the course; a later part comes with part 1
#   SPACING=1.5,1.5,8 ROI=64,64,8 PATCH_SIZE=8,8,2: a grid of your own choice
#   TASKS=mae,restoration: a study of these pretext tasks, in place of its own
#   PYTHON=/path/to/python uses that environment (a conda one, say) and creates none.
#   VIEWER=itk: make lab shows volumes with itkwidgets, in an environment of its own (.venv-itk)
#   WORKERS=n processes share the tests (3: some wait for Slurm, a browser or a killed course)
#   SSL_DATA_ROOT and SSL_RUNS_ROOT move the data and the runs out of this folder.
ifneq ($(origin PYTHON),command line)
PYTHON := .venv/bin/python
READY := .venv/.ready
endif
export SCALE ?= laptop
export DATA ?=
export DATASET ?= $(if $(DATA),folder,phantom)
export CORES ?=
export REPEATS ?=
export LABELS ?=
export SPACING ?=
export ROI ?=
export PATCH_SIZE ?=
export STUDY ?=
export TASKS ?=
export PART ?=
export SSL_VIEWER ?=
VIEWER ?= $(SSL_VIEWER)
ITK := $(filter itk,$(VIEWER))

.DEFAULT_GOAL := help
.PHONY: help env course study site test quick browser nnunet lab lint clean

help: ## list these commands
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-8s %s\n", $$1, $$2 }' Makefile

env: $(READY) ## create the environment in .venv (once; about 2 GB)

# A python that is asked for its version first: a name on the PATH may be a shim of another version, or lack venv.
.venv/.ready: pyproject.toml constraints.txt
	@set -e; \
	if ! .venv/bin/python -c 'import pip' 2>/dev/null; then \
	  for python in python3.11 python3.12 python3 python; do \
	    if "$$python" -c 'import sys, venv, ensurepip; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 13))' 2>/dev/null; \
	    then found=$$python; break; fi; \
	  done; \
	  if [ -z "$$found" ]; then echo "No Python 3.11 or 3.12 with venv found; install one, or use conda (environment.yml)" >&2; exit 1; fi; \
	  "$$found" -m venv --clear .venv; \
	fi; \
	echo "Installing the packages into .venv (once, some minutes, about 2 GB; log in .venv/install.log) ..."; \
	.venv/bin/python -m pip install -qq --disable-pip-version-check --log .venv/install.log -c constraints.txt -e '.[dev]'; \
	touch .venv/.ready

MORE = $${DATA:+--data "$$DATA"} $${CORES:+--cores "$$CORES"} $${REPEATS:+--repeats "$$REPEATS"} $${LABELS:+--labels "$$LABELS"} \
  $${SPACING:+--spacing "$$SPACING"} $${ROI:+--roi "$$ROI"} $${PATCH_SIZE:+--patch-size "$$PATCH_SIZE"}

course: $(READY) ## run chapters 00 to 05 and print the results; PART= SCALE= DATASET= DATA= CORES= REPEATS= LABELS=
	@"$(PYTHON)" -m course run $${PART:+--part "$$PART"} --scale "$$SCALE" --dataset "$$DATASET" $(MORE)

study: $(if $(STUDY),$(READY),which-study) ## vary one thing on top of the course; STUDY=mask_ratio|freezing|pretraining_data|pretraining_volumes|restoration|deformations|pretraining_length|finetuning_length|controls|all_tasks|transfer|patch_size|pretraining_source TASKS=
	@"$(PYTHON)" -m course study "$$STUDY" --scale "$$SCALE" --dataset "$$DATASET" $${TASKS:+--tasks "$$TASKS"} $(MORE)

.PHONY: which-study
which-study:
	@echo "make study: name one with STUDY=controls; make lists all of them" >&2; exit 2

# Workers share the tests by files; what times something comes after them, with the machine to itself, and without
# collecting every other file again. Nothing is written among the reader's runs.
PYTEST = SSL_RUNS_ROOT="$(CURDIR)/build/runs_of_tests" OMP_NUM_THREADS=1 "$(PYTHON)" -m pytest
WORKERS ?= 3
ALONE = $(shell grep -rl --include='test_*.py' 'mark\.alone' tests)
SHARED = -n $(WORKERS) --dist loadfile --no-loadscope-reorder

test: $(READY) ## run the tests (about 40 minutes on 2 cores)
	@$(PYTEST) $(SHARED) -m 'not (alone or itk)'; shared=$$?; $(PYTEST) -m alone $(ALONE) && exit $$shared

quick: $(READY) ## run the tests of a change in hand (about 3 minutes): no course, no browser, no Slurm
	@$(PYTEST) $(SHARED) -m 'not (course or browser or slurm or alone or long or itk)'

browser: $(READY) $(ITK:%=.venv-itk/.ready) ## run only the tests in a browser (Chromium); screenshots in build/browser; VIEWER=itk: those of itkwidgets
	@SCREENSHOTS=1 "$(PYTHON)" -m pytest -m '$(or $(ITK),browser and not itk)'

# A torchvision of another build than torch breaks Lightning, and nothing here uses it; timm brings it.
.venv-nnunet/.ready: pyproject.toml constraints.txt | $(READY)
	@set -e; \
	"$(PYTHON)" -m venv --clear .venv-nnunet; \
	echo "Installing nnU-Net and the packages into .venv-nnunet (once, some minutes, about 2.5 GB; log in .venv-nnunet/install.log) ..."; \
	.venv-nnunet/bin/python -m pip install -qq --disable-pip-version-check --log .venv-nnunet/install.log -c constraints.txt -e '.[nnunet]' nnunetv2 pytest pytest-timeout; \
	.venv-nnunet/bin/python -c 'import torchvision' 2>/dev/null || .venv-nnunet/bin/python -m pip uninstall -qqy torchvision; \
	touch .venv-nnunet/.ready

NNUNET = $(shell grep -rl --include='test_*.py' 'from nnunet_packages' tests)
nnunet: .venv-nnunet/.ready ## run the tests that need nnU-Net, in an environment of their own (about 5 minutes)
	@OMP_NUM_THREADS=1 .venv-nnunet/bin/python -m pytest -m nnunet $(NNUNET)

site: $(READY) ## make a static site of an executed course, in build/site; SCALE= DATASET= DATA=
	@"$(PYTHON)" -c 'import latex2mathml, myst_nb, sphinx_book_theme' 2>/dev/null || { \
	  echo "Installing the packages of the site (once; about 45 MB) ..."; \
	  "$(PYTHON)" -m pip install -qq --disable-pip-version-check -c constraints.txt -e '.[site]'; }
	@"$(PYTHON)" -m course.site --scale "$$SCALE" --dataset "$$DATASET" $${DATA:+--data "$$DATA"}

# itkwidgets has pins of its own, and files of its viewer are changed, so it stays out of .venv.
.venv-itk/.ready: pyproject.toml constraints.txt course/itk_viewer.py | $(READY)
	@set -e; \
	"$(PYTHON)" -m venv --clear .venv-itk; \
	echo "Installing itkwidgets and the packages into .venv-itk (once, some minutes, about 2 GB; log in .venv-itk/install.log) ..."; \
	.venv-itk/bin/python -m pip install -qq --disable-pip-version-check --log .venv-itk/install.log -c constraints.txt -e '.[itk]'; \
	.venv-itk/bin/python -m course.itk_viewer; \
	touch .venv-itk/.ready

# Only this machine may knock, whatever a person's own settings say; its token is Jupyter's, new at every start.
lab: export SSL_VIEWER := $(VIEWER)
lab: $(READY) $(ITK:%=.venv-itk/.ready) ## open the chapters in JupyterLab; VIEWER=itk shows volumes with itkwidgets
	@"$(if $(ITK),.venv-itk/bin/python,$(PYTHON))" -m jupyterlab --ip=127.0.0.1 $(if $(filter 0,$(shell id -u)),--allow-root) $(if $(ITK),--ServerApp.base_url=/) --LabApp.default_url=/lab/tree/notebooks/00_start_here.ipynb

lint: $(READY) ## check style, and that no notebook holds outputs
	@"$(PYTHON)" -m ruff check .
	@"$(PYTHON)" -m codespell_lib -L relase README.md CONTRIBUTING.md CHANGELOG.md docs ssl_utils course
	@"$(PYTHON)" -m nbstripout --verify --keep-id --extra-keys "metadata.papermill metadata.widgets cell.metadata.papermill" notebooks/*.ipynb

clean: ## delete ./runs and caches; keep ./data and .venv
	rm -rf runs .pytest_cache .ruff_cache build lightning_logs .snakemake
	find ssl_utils course tests notebooks -name __pycache__ -o -name .ipynb_checkpoints | while IFS= read -r folder; do rm -rf "$$folder"; done
