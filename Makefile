# Each of these sets up .venv first when that is needed. `make check` is what .ci/run checks before the tests.
PYTHON := .venv/bin/python

.PHONY: check docs test test-gpu test-slow bench format setup
setup:
	@tools/setup.sh requirements.txt requirements-dev.txt
check: setup
	@tools/check.sh
docs: setup
	NO_MKDOCS_2_WARNING=1 $(PYTHON) -m mkdocs build --strict --quiet
format: setup
	$(PYTHON) -m ruff format .
	$(PYTHON) -m ruff check --fix .
test:
	./test.sh
test-gpu:
	./test.sh -m gpu
test-slow:
	./test.sh -m slow
bench: setup
	@for file in benchmarks/bench_*.py benchmarks/serving/bench_*.py benchmarks/cpu/bench_*.py; do echo "== $$file"; $(PYTHON) -m $$(echo $${file%.py} | tr / .) || exit 1; done
