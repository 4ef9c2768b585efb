# make run     builds what is missing and starts a node
# make test    the whole check; writes nothing but build folders
# make help    the rest

SHELL := bash
.DEFAULT_GOAL := help
.PHONY: help run build test verify fix bench tools compare durability powercut cluster lab sim paho fuzz toolchain setup

# .cache/env is written by scripts/libclang.sh: where libclang is, when it is not where it is looked for.
CARGO := . .cache/env && cargo
# In its own folder, where its own flags are found.
SIM := . .cache/env && cd tests/sim && cargo run --quiet --
MOSQUITTO ?= /usr/sbin/mosquitto
FUZZ_SECONDS ?= 600

help: ## this list
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 12

run: build ## builds what is missing and starts a node without any configuration
	./target/release/hermod start

build: toolchain ## leaves target/release/hermod
	$(CARGO) build --release -p hermod --bin hermod

test: verify ## everything that must hold: format, lints, docs, dependencies, all tests

verify: export RUSTDOCFLAGS := -D warnings
verify: toolchain setup
	@echo "== format"
	cargo fmt --all --check
	@echo "== lints"
	$(CARGO) clippy --workspace --all-targets --quiet -- -D warnings
	@echo "== docs"
	$(CARGO) doc --workspace --no-deps --quiet
	@echo "== dependencies"
	@scripts/deny.sh
	@echo "== tests"
	$(CARGO) build --workspace --bins --tests --quiet
	$(CARGO) test --workspace --no-fail-fast

fix: toolchain ## formats, and applies what the lints suggest
	cargo fmt --all
	$(CARGO) clippy --workspace --all-targets --fix --allow-dirty --allow-staged

bench: toolchain ## the benchmarks of the crates
	$(CARGO) bench --workspace

tools: build
	$(CARGO) build --release -p hermod-tests --bins

compare: tools ## CPU per message next to Mosquitto; MOSQUITTO=program, ARGS="--rounds 1 fan-in-0"
	./target/release/hermod-compare --mosquitto $(MOSQUITTO) $(ARGS)

durability: tools ## 25 kills, 240,000 messages: is anything lost that was acknowledged?
	./target/release/hermod-durability $(ARGS)

powercut: tools ## the same with 25 power cuts; needs root
	./target/release/hermod-durability --power-cut --rounds 25 --messages 75000 $(ARGS)

cluster: build ## three nodes on this machine, with conf/cluster; Ctrl-C stops them
	@scripts/cluster.sh $(ARGS)

lab: tools ## faults on a cluster of real nodes; ARGS="run kill-leader --runs 3", ARGS=list; cuts and power cuts need root
	./target/release/hermod-lab $(or $(ARGS),all)

# The seed alone runs it aloud; without one, 500 seeds and then the check of the checker.
sim: toolchain ## the cluster simulated, with faults from seeds; SEED=n, SEEDS=n
ifdef SEED
	$(SIM) --seed $(SEED) $(if $(SEEDS),--seeds $(SEEDS),--aloud) $(ARGS)
else
	$(SIM) --seeds $(or $(SEEDS),500) $(ARGS)
	$(SIM) --seeds 100 --plants
endif

paho: build ## the interoperability suites of Eclipse Paho; PAHO_TESTING=checkout of paho.mqtt.testing
	scripts/paho.sh

fuzz: ## fuzzes the codec, each target FUZZ_SECONDS (600) long; needs cargo-fuzz and a nightly toolchain
	cd broker/mqtt-codec && for target in $$(cargo +nightly fuzz list); do \
	  cargo +nightly fuzz run $$target -- -max_total_time=$(FUZZ_SECONDS) || exit 1; done

toolchain: # libclang and the RocksDB archive, each once
	@command -v g++ >/dev/null || { echo "g++ is missing (Debian: apt install g++)" >&2; exit 1; }
	@scripts/libclang.sh
	@. .cache/env && scripts/rocksdb.sh

setup: # the clients that the tests drive, and cargo-deny
	@scripts/setup.sh
