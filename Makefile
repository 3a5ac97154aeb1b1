# `make demo` and `make test` are all that a fresh clone needs.
PYTHON ?= python3
PY := .venv/bin/python
INSTALLED := .venv/installed

.PHONY: demo test lint bench release
demo: $(INSTALLED)
	mkdir -p build
	.venv/bin/mechverify prove proofs/max_of_k.py --out build/max_of_10.cert
	.venv/bin/mechverify check build/max_of_10.cert
	.venv/bin/mechverify report build/max_of_10.cert --html build/report

test: $(INSTALLED)
	$(PY) -m pytest -n auto

lint: $(INSTALLED)
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/pyright
	.venv/bin/lint-imports

bench: $(INSTALLED)
	$(PY) benchmarks/main_job.py

release: $(INSTALLED)
	$(PY) release.py

$(INSTALLED): pyproject.toml
	$(PYTHON) -m venv .venv
	$(PY) -m pip install --disable-pip-version-check -e ".[dev]"
	$(PY) -m pip install --disable-pip-version-check --no-deps auto-LiRPA==0.3 # its metadata wants an older torch
	touch $@
