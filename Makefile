# Every command once; `make help` lists them. `make run` and `make test` start from a bare Debian 12.
SHELL := /bin/bash
.DEFAULT_GOAL := help
VENV := .venv
PYTHON := $(VENV)/bin/python
NATIVE := $(VENV)/.native
FUZZ_SECONDS ?= 600
CI_FUZZ_SECONDS ?= 10
SOAK_SECONDS ?= 600
SOURCES := $(shell find native -name '*.rs' -not -path '*/target/*' -o -name 'Cargo.toml' -not -path '*/target/*' 2>/dev/null) Cargo.toml

.PHONY: help run test test-quick lint bench fuzz soak tuning docs system system-test clean

help: ## Show what there is
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 14

run: $(NATIVE) ## Install what is missing, build, and start the proxy with examples/edge.toml
	$(VENV)/bin/edgeproxy run examples/edge.toml

test: system-test $(NATIVE) lint ## Run every test with the real components that it needs
	ci/native-tests
	ci/python-tests tests --ignore=tests/soak
	ci/instructions
	ci/fuzz $(CI_FUZZ_SECONDS)

test-quick: system-test $(NATIVE) ## Run what is done in three minutes: no load, no waiting for timers
	ci/native-tests
	ci/python-tests tests --ignore=tests/soak -m "not slow"

lint: $(NATIVE) ## Check format, lints, types, stubs and layers
	ci/lint

bench: system-test $(NATIVE) ## Measure against the bare forwarder and Kamailio; results in bench/results
	cargo build --release --locked -p floors -p edge-load
	$(VENV)/bin/pip install -q --group bench
	$(PYTHON) bench/compare

tuning: system-test $(NATIVE) ## Measure each knob of docs/tuning.md anew
	cargo build --release --locked -p floors -p edge-load
	$(PYTHON) bench/tuning docs/tuning.md

fuzz: system ## Fuzz each target for FUZZ_SECONDS (600)
	ci/fuzz $(FUZZ_SECONDS)

soak: system-test $(NATIVE) ## Mutated messages and steady load for SOAK_SECONDS (600)
	cargo build --release --locked -p edge-load
	SOAK_SECONDS=$(SOAK_SECONDS) ci/python-tests tests/soak --timeout=100000 -s

docs: $(NATIVE) ## Write docs/configuration.md and docs/events.md from docstrings
	$(PYTHON) ci/configuration_page.py docs/configuration.md
	$(PYTHON) ci/events_page.py docs/events.md

system: ## Install system packages for building and running
	ci/system build-essential python3 python3-venv

system-test: system ## Install system packages for tests and benchmarks
	ci/system sip-tester kamailio kamailio-python3-modules valgrind iproute2 nftables sipvicious rtpengine-daemon baresip-core postgresql mariadb-server redis-server nats-server rabbitmq-server

$(VENV)/.installed: pyproject.toml | system
	test -x $(PYTHON) || python3 -m venv $(VENV)
	$(VENV)/bin/pip install -q --upgrade "pip>=25.1"
	$(VENV)/bin/pip install -q --group dev --group test "aiohttp>=3.14.5,<4" "aiosqlite>=0.22.1,<0.23" "alembic>=1.20.1,<2" "python-dateutil>=2.9,<5" "rich>=15,<16" "tzdata>=2025.2" "sqlalchemy[asyncio]>=2.1.9,<2.2" "click>=8.1,<9" "msgspec>=0.20,<0.23" "structlog>=25.1" "uvloop>=0.21,<0.24"
	touch $@

$(NATIVE): $(VENV)/.installed $(SOURCES)
	VIRTUAL_ENV=$(CURDIR)/$(VENV) $(VENV)/bin/maturin develop --release --locked
	touch $@

clean: ## Remove what was built
	rm -rf target native/fuzz/target $(VENV)
