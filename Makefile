# serve        set up what is missing, then serve
# test         set up what is missing, then run every check and test
# bench        set up what is missing, then run the benchmarks
# soak         set up what is missing, then run many sessions for twenty minutes, every answer checked
# s3           set up what is missing, then copy gigabytes between a sandbox and S3, timed
# thousand     set up what is missing, then have a thousand sessions live at once, and call each
# setup        only set up what serving needs
# constraints  take the versions installed now as those that a clean clone gets

# Sandboxes are made by root.
AS_ROOT := $(shell [ "$$(id -u)" = 0 ] || echo sudo -E)

.PHONY: serve test bench soak s3 thousand setup setup-tests constraints

serve: setup
	$(AS_ROOT) .venv/bin/fumehood serve

test: setup-tests
	.venv/bin/ruff check
	.venv/bin/ruff format --check
	.venv/bin/pyright
	.venv/bin/lint-imports
	$(AS_ROOT) .venv/bin/fumehood template build base
	$(AS_ROOT) .venv/bin/fumehood template build standard
	$(AS_ROOT) .venv/bin/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

bench: setup-tests
	$(AS_ROOT) .venv/bin/python -m benchmarks
	$(AS_ROOT) .venv/bin/python -m benchmarks.templates

soak: setup-tests
	$(AS_ROOT) .venv/bin/python -m benchmarks.soak

s3: setup-tests
	$(AS_ROOT) .venv/bin/python -m benchmarks.s3

thousand: setup-tests
	$(AS_ROOT) .venv/bin/python -m benchmarks.thousand

setup:
	@scripts/setup

setup-tests:
	@scripts/setup --tests

constraints:
	.venv/bin/python -m pip install --quiet --upgrade --upgrade-strategy eager pip --editable . --group dev
	.venv/bin/python -m pip freeze --all --exclude-editable --exclude setuptools | sort --ignore-case > constraints.txt
	.venv/bin/python -m tests.python_clients
