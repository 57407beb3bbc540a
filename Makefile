# `make` alone says what there is. Every target installs what it lacks, and says so.

UPSTREAM ?=
LISTEN ?= 127.0.0.1:6380
ADMIN ?= 127.0.0.1:6390
TARGET ?= request_decode
SECONDS ?= 60
SCENARIO ?=
BEFORE ?=
LOAD ?=
CACHE ?= 256MiB
NODES ?= 1
SEED ?= 1

TARGET_DIR := $(or $(CARGO_TARGET_DIR),target)
FUZZ_DIR := $(TARGET_DIR)/fuzz
GUNGRAUN := .run/gungraun
NODE_MODULES := tests/clients/node/node_modules
# What libFuzzer steers by, from the stable compiler: no nightly, no cargo-fuzz.
COVERAGE := -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
	-Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
	-Cllvm-args=-sanitizer-coverage-trace-compares -Ccodegen-units=1
# Where rustup puts cargo, which may have been installed by the line before.
export PATH := $(HOME)/.cargo/bin:$(PATH)

.PHONY: help run build test test-rust test-matrix test-clients test-clients-python test-clients-go test-clients-node \
	test-clients-java test-clients-rust compatibility interleavings model torture mutations lint bench bench-quick bench-micro profile fuzz clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

run: build ## Nearside before a throw-away Redis Cluster, until Ctrl-C; UPSTREAM=redis://host:port uses that Redis instead
	@.ci/try $(TARGET_DIR)/release/nearside '$(LISTEN)' '$(ADMIN)' '$(UPSTREAM)'

build: ## the release build: target/release/nearside
	@.ci/need cargo cc
	cargo build --release -p nearside

test: test-rust test-clients-python ## every test: unit, property, whole program, interleavings, the model, Python's clients

test-rust:
	@.ci/need cargo cc redis-server
	cargo test --no-fail-fast
	@$(MAKE) --no-print-directory interleavings model

# A recipe's line fails as its last command does: hence `set -e`.
test-matrix: ## the command table, the differential test, random sessions, cached reads and what waits against this system's Redis, Redis 8.0 and Valkey 8.1
	@.ci/need cargo cc redis-server
	@set -e; newer=$$(.ci/servers redis-8.0 valkey-8.1); for server in redis-server $$newer; do \
		echo "NEARSIDE_TEST_REDIS=$$server"; export NEARSIDE_TEST_REDIS=$$server; \
		cargo test -p nearside commands::table::live::; \
		cargo test -p nearside-tests --test differential --test session_fuzz --test cached_reads; \
		cargo test -p nearside-tests --test blocking wait; \
	done

test-clients: test-clients-python test-clients-go test-clients-node test-clients-java test-clients-rust ## client libraries with their default settings, and queues built on them, before one Redis and a cluster

test-clients-python: .venv/installed # redis-py, valkey-glide, Celery, RQ
	@.ci/need cargo cc redis-server
	tests/clients/with-upstream .venv/bin/python -m pytest tests/clients/python

test-clients-go: # go-redis
	@.ci/need cargo cc redis-server go
	tests/clients/with-upstream go -C tests/clients/go test -count=1 ./...

test-clients-node: $(NODE_MODULES)/.package-lock.json # ioredis, node-redis, BullMQ
	@.ci/need cargo cc redis-server
	tests/clients/with-upstream npm --prefix tests/clients/node test

test-clients-java: # Jedis, Lettuce
	@.ci/need cargo cc redis-server mvn
	tests/clients/with-upstream mvn -q -B -ntp -f tests/clients/java/pom.xml test

test-clients-rust: # redis-rs, fred
	@.ci/need cargo cc redis-server
	tests/clients/with-upstream cargo test --locked --manifest-path tests/clients/rust/Cargo.toml

compatibility: .venv/installed $(NODE_MODULES)/.package-lock.json ## docs/compatibility.md, from what the matrix and all client libraries' tests find
	@.ci/need cargo cc redis-server go mvn
	tests/compatibility

interleavings: ## the near-cache's races, explored from seeds that replay
	@.ci/need cargo cc
	cargo test --release -p nearside-nearcache-interleavings

model: ## the coherence protocol's states, all of them at small size; and an execution for each rule, if it were left out
	@.ci/need cargo cc
	cargo test --release -p nearside-nearcache-model -- --show-output

torture: ## clients, faults of every kind, and a checker of what is promised: SECONDS=60 SEED=1
	@.ci/need cargo cc redis-server
	cargo run --release -p nearside-torture --bin torture -- --seconds $(SECONDS) --seed $(SEED)

# Tests, among them the torture, are run for each: some fifteen minutes.
mutations: ## each rule of the cache's coherence broken on purpose: do the checks notice? ONLY='words' of rules or files
	@.ci/need cargo cc redis-server python
	tests/mutations/run $(ONLY)

# The last three packages are no default members: Cargo.toml says why.
lint: ## formatting and clippy, no warning allowed
	@.ci/need cargo cc clippy
	cargo fmt --all --check
	cargo clippy --locked --all-targets -- -D warnings
	cargo clippy --locked --all-targets -p nearside-nearcache-interleavings -- -D warnings
	cargo clippy --locked --all-targets -p nearside-nearcache-model -- -D warnings
	cargo clippy --locked --all-targets -p nearside-resp-fuzz -- -D warnings

bench: ## Nearside beside Redis direct, twemproxy, Envoy and home-made services: docs/benchmarks.md, in three quarters of an hour; SCENARIO=name prints one; with BEFORE=program, SCENARIO=change compares two builds
	@.ci/need cargo cc redis-server
	@benches/contestants/prepare
	cargo build --release -p nearside
	cargo build --release -p nearside-benches
	$(TARGET_DIR)/release/nearside-bench $(or $(SCENARIO),--write docs) $(if $(BEFORE),--before $(BEFORE))

bench-quick: ## CPU per command: Redis direct, a hit, forwarding, before one server and a cluster; a minute or two on two quiet cores
	@.ci/need cargo cc redis-server
	cargo build --release -p nearside
	cargo build --release -p nearside-benches
	$(TARGET_DIR)/release/nearside-bench quick --rounds 5 --turn-ms 1000

profile: ## where the CPU time goes under a load, by perf: LOAD='--depth 16 --mix get=50,set=50' CACHE=256MiB NODES=1
	@.ci/need cargo cc perf redis-server python
	CACHE=$(CACHE) NODES=$(NODES) benches/profile $(LOAD)

bench-micro: $(GUNGRAUN)/bin/gungraun-runner ## nanoseconds, and instructions as valgrind counts them, of decode, route, lookup, scan and encode
	@.ci/need cargo cc valgrind
	cargo bench -p nearside-benches --bench nanoseconds -- --quick
	GUNGRAUN_RUNNER=$(abspath $<) cargo bench -p nearside-benches --bench instructions

# A target of its own keeps the instrumentation out of build scripts, which have no fuzzer to report to.
fuzz: ## the codec before any bytes, by coverage: TARGET=request_decode or reply_scan, SECONDS=60
	@.ci/need cargo cc c++
	@mkdir -p $(FUZZ_DIR)/corpus/$(TARGET)
	RUSTFLAGS='$(COVERAGE)' cargo run -p nearside-resp-fuzz --features libfuzzer --bin $(TARGET) \
		--target-dir $(FUZZ_DIR) --target "$$(rustc --print host-tuple)" -- \
		-max_total_time=$(SECONDS) -max_len=512 -artifact_prefix=$(FUZZ_DIR)/ \
		$(FUZZ_DIR)/corpus/$(TARGET) crates/resp/fuzz/seeds/$(TARGET)

clean: ## remove what was built and installed here
	cargo clean
	rm -rf .run .venv $(NODE_MODULES) tests/clients/java/target tests/clients/rust/target

.venv/installed: tests/clients/python/requirements.txt
	@.ci/need python
	python3 -m venv .venv
	.venv/bin/python -m pip install --quiet --disable-pip-version-check --requirement $<
	@touch $@

# Of the version that the library wants.
$(GUNGRAUN)/bin/gungraun-runner: Cargo.lock
	@.ci/need cargo cc
	cargo install --quiet --root $(GUNGRAUN) gungraun-runner --version "$$(sed -n '/^name = "gungraun-runner"/{n;s/version = "\(.*\)"/\1/p}' $<)"
	@touch $@

# What npm writes last.
$(NODE_MODULES)/.package-lock.json: tests/clients/node/package.json tests/clients/node/package-lock.json
	@.ci/need node
	npm --prefix tests/clients/node ci --loglevel=error
	@touch $@
