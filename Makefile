# Each target makes the virtual environment that it needs; nothing is installed outside of it.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
# What the exchange is compared with wants older libraries than it does: an environment of its own.
PEERS := $(VENV)-peers
PEERS_INSTALLED := $(PEERS)/.installed

.PHONY: demo test check lint docs screenshots goldens simulate kill-test fault-test kafka-soak bench take-over latency performance growth clean

demo: $(INSTALLED)  ## the whole exchange in one terminal
	$(BIN)/stocktrade demo

test: $(INSTALLED)  ## every test
	$(BIN)/pytest $(ARGS)

check: lint  ## lint, types, architecture and the fast tests
	$(BIN)/pytest -q -m "not slow and not kafka"

lint: $(INSTALLED)  ## lint, types and architecture
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

docs: $(INSTALLED)  ## the pages that are made from the program
	$(BIN)/python docs/reference.py

screenshots: $(INSTALLED)  ## the pictures in docs/screenshots, by running the commands
	$(BIN)/python docs/screenshots.py

goldens: $(INSTALLED)  ## the screens that tests/test_goldens.py compares with, drawn anew
	STOCKTRADE_RENEW_GOLDENS=1 $(BIN)/pytest -q tests/test_goldens.py

simulate: $(INSTALLED)  ## 10,000 seeded runs on a log that models Kafka's ugly parts
	$(BIN)/python tests/simulation/run.py --runs 10000

kill-test: $(INSTALLED)  ## 500 times kill -9, then an audit
	STOCKTRADE_TEST_KILLS=500 $(BIN)/pytest tests/e2e/test_kill.py -k kill_9

fault-test: $(INSTALLED)  ## ten rounds of every fault on Kafka, on both clients: it needs what the Kafka tests need
	STOCKTRADE_TEST_FAULT_ROUNDS=10 $(BIN)/pytest -s \
	  tests/e2e/test_kafka_faults.py tests/e2e/test_kafka_cluster.py tests/e2e/test_kafka_checks.py

kafka-soak: $(INSTALLED)  ## the faults of one broker for an hour, half of it on each client
	STOCKTRADE_TEST_FAULT_SECONDS=1800 $(BIN)/pytest -s tests/e2e/test_kafka_faults.py

bench: $(INSTALLED)  ## the quick figures of docs/performance.md
	$(BIN)/python benchmarks/core.py
	$(BIN)/python benchmarks/steps.py
	$(BIN)/python benchmarks/embedded_log.py
	$(BIN)/python benchmarks/idle.py
	$(BIN)/python benchmarks/replay.py

take-over: $(INSTALLED)  ## what a kill costs on Kafka, with an exchange that stands by and without
	$(BIN)/python benchmarks/take_over.py

performance: $(INSTALLED) $(PEERS_INSTALLED)  ## everything side by side on one broker; writes docs/performance.md
	$(BIN)/python benchmarks/performance.py --peers $(PEERS)/bin/python --write $(ARGS)

latency: $(INSTALLED)  ## from an order to both of its legs, at two rates on each log: 20 minutes
	$(BIN)/python benchmarks/latency.py $(ARGS)

growth: $(INSTALLED)  ## what a larger exchange costs: docs/growth.svg and the tables of docs/performance.md
	$(BIN)/python benchmarks/growth.py --draw

clean:
	rm -rf $(VENV) $(PEERS) dist build .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache

$(INSTALLED): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "error: stocktrade needs Python 3.11 or newer; try: make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --upgrade "pip>=25.1"
	$(BIN)/pip install --quiet --editable '.[fast]' --group dev --group bench
	@touch $@

$(PEERS_INSTALLED): pyproject.toml
	$(PYTHON) -m venv $(PEERS)
	$(PEERS)/bin/pip install --quiet --upgrade "pip>=25.1"
	$(PEERS)/bin/pip install --quiet --editable . --group peers
	@touch $@
