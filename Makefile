# Only relative paths: this folder's name may hold a space, which make cannot quote.

# Newest first; `make run PYTHONS=/opt/python/bin/python3` picks another.
PYTHONS ?= python3.14 python3.13 python3.12 python3.11 python3
# More than there are processors, mostly: tests wait for servers and databases most of the time.
PYTEST ?= -q -n 4 --dist worksteal

python := .venv/bin/python
compile := .venv/lock/bin/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --no-annotate $(LOCK)
specified := $(python) -c 'import sys, tomllib; read = tomllib.load(open("pyproject.toml", "rb")); print(*eval(sys.argv[1]), sep="\n")'
pip := $(python) -m pip install --quiet --disable-pip-version-check --no-input --require-hashes

# A test that starts servers and browsers may fail only because three others do so on the same two processors.
again := echo "What has failed, again and alone"; $(python) -m pytest -q -x --last-failed --last-failed-no-failures none

.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory
.PHONY: help run test test-all faults lint bench tarpit screenshot lock clean

help: ## Show this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1	\2/p' Makefile | expand -t 19

run: .venv/.run ## Set up, migrate the database (an embedded one without DATABASE_URL), serve on http://127.0.0.1:8080
	@$(python) -m notifier migrate && exec $(python) -m notifier serve

test: .venv/.test ## Everything that Python and the Postgres of the wheel can test (options: PYTEST="-q -k pattern")
	@$(python) -m pytest -m "not all" $(PYTEST) || { $(again); }

test-all: .venv/.test ## Install Chromium, proxies, PostgreSQL, Node.js and Rails from Debian's packages, test everything
	@sh tests/install.sh
	@$(python) -m pytest $(PYTEST) || { $(again); }
	@echo "Parked connections again, on the event loop of asyncio"
	@export TEST_LOOP=asyncio; $(python) -m pytest $(PYTEST) tests/http/test_handover.py tests/http/test_seam.py \
	  tests/http/test_memory.py tests/faults/test_hang_ups.py || { $(again); }
	@echo "The database again, on the PostgreSQL of the system"
	@export TEST_POSTGRES=system; $(python) -m pytest $(PYTEST) tests/database tests/system/test_order.py || { $(again); }

faults: .venv/.test ## Break everything for ten minutes, and compare every answer with the log (CHAOS="--seconds 60 --seed 1")
	@sh tests/install.sh
	@PYTHONPATH=tests:. $(python) -m chaos $(CHAOS)

lint: .venv/.test ## Formatting, style, types, and which module may import which
	@$(python) -m ruff check
	@$(python) -m ruff format --check
	@$(python) -m mypy
	@$(python) .venv/bin/lint-imports

bench: .venv/.test ## Measure, also beside other ways to build it, in the same run (25 minutes; BASE=REVISION: beside that too)
	@$(python) -m bench $(if $(BASE),--base $(BASE))

tarpit: .venv/.test ## Show what waiting clients do to a server that gives each a worker, and what they do here
	@$(python) -m bench.tarpit

screenshot: .venv/.test ## Make the pictures of the pages in docs/ anew (Chromium, which make test-all installs)
	@SCREENSHOTS=docs $(python) -m pytest -q tests/browser/test_screenshot.py

lock: .venv/.lock ## Renew the lock files after a change of dependencies (LOCK=--upgrade: with the newest of all)
	@$(compile) pyproject.toml --extra server --extra crypto -o requirements.txt
	@$(specified) "read['project']['optional-dependencies']['embedded']" | \
	  $(compile) - -c requirements.txt -o requirements-embedded.txt
	@{ $(specified) "read['build-system']['requires']"; $(specified) "read['dependency-groups']['test']"; \
	  $(specified) "read['dependency-groups']['lint']"; } | \
	  $(compile) - -c requirements.txt -c requirements-embedded.txt -o tests/requirements.txt
	@for folder in tests/package tests/recipes bench/peers; do \
	  (cd $$folder && ../../$(compile) requirements.in -o requirements.txt) || exit 1; \
	done

clean: ## Remove what this Makefile made; the data in .notifier stays
	rm -rf .venv .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -prune -exec rm -rf {} +

# A system upgrade takes away the Python that the environment was made with: then make it again.
ifneq ($(shell $(python) -c 'print("works")' 2>/dev/null),works)
.PHONY: .venv/.run
endif

# The package is used where it lies, by a path file and a launcher that are relative too: nothing is built.
.venv/.run: requirements.txt requirements-embedded.txt
	@set -e; \
	if ! $(python) -m pip --version >/dev/null 2>&1; then \
	  for python in $(PYTHONS) none; do \
	    ! "$$python" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || break; \
	  done; \
	  if [ "$$python" = none ]; then \
	    echo "Notifier needs Python 3.11 or later with venv and pip, and found none of: $(PYTHONS)." >&2; \
	    echo "Debian and Ubuntu have it in the package python3-venv." >&2; \
	    exit 1; \
	  fi; \
	  echo "Setting up .venv with $$("$$python" --version) (once)"; \
	  rm -rf .venv; \
	  "$$python" -m venv .venv; \
	fi
	@$(pip) -r requirements.txt -r requirements-embedded.txt
	@echo ../../../.. > "$$($(python) -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/notifier.pth"
	@printf '#!/bin/sh\nexec "$$(dirname "$$0")/python" -m notifier "$$@"\n' > .venv/bin/notifier
	@chmod +x .venv/bin/notifier
	@touch $@

.venv/.lock: Makefile
	@$(python) -m venv .venv/lock
	@.venv/lock/bin/python -m pip install --quiet --disable-pip-version-check uv==0.13.9
	@touch $@

.venv/.test: .venv/.run tests/requirements.txt
	@echo "Installing what the tests need (once)"
	@$(pip) -r tests/requirements.txt
	@touch $@
