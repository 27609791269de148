# One entry runs everything, the same here and in CI. tests/lab/setup installs what is missing (it needs root once).
PYTHON := /opt/tsenv-lab/venv/bin/python
# Most tests wait for a network rather than for a processor.
JOBS ?= 4

# A busy machine may be late once. What needed a second try is named in the summary; AGAIN= shows it as a failure.
AGAIN ?= --reruns 1 -rR

.PHONY: demo test lint setup bench soak soak-short docs test-matrix

demo: setup
	tests/lab/demo

test: setup lint
	$(PYTHON) -m pytest $(AGAIN) -m alone
	$(PYTHON) -m pytest $(AGAIN) -n $(JOBS) --dist loadgroup -m 'not alone'

lint: setup
	tests/lint

setup:
	tests/lab/setup --install-tsenv

# An hour, and two minutes of the same: sessions up and down, commands, random kills; then nothing may be left. After the
# hour, a quarter of one for faults that take their time (TSENV_SET_CLOCK=1: the clock's jumps, too).
soak: setup
	tests/soak/run --seconds 3600 --sessions 16 --execs 10000
	$(PYTHON) -m pytest tests/e2e/long_faults.py

soak-short: setup
	tests/soak/run

# Speed as ratios to baselines of the same run, into benchmarks/README.md. It wants the machine for itself.
bench: setup
	benchmarks/run

# The reference from the parser, then the site, strictly, into build/site.
docs: setup
	$(PYTHON) docs/generate.py
	NO_MKDOCS_2_WARNING=1 $(PYTHON) -m mkdocs build --strict --quiet

# All tests but those of CI runners with Debian 13's programs, in a root of its own.
test-matrix: setup
	tests/matrix/run
