# Two commands do all the set-up: `make demo` and `make test`.

CARGO ?= cargo
# Where the demo's images are: file; lvm, in a virtual host; or object, on an S3 server of this machine. With the last two
# the guest writes less, and it takes longer.
STORAGE ?= file
# KEEP=1: the demo leaves the guest and the services running, until Ctrl-C, and says where the console is.
KEEP ?=
BUF = $(shell command -v buf || echo $(CURDIR)/target/tools/node_modules/.bin/buf)

# The contracts of the last release, that clients and agents of it were built with: nothing of them may break.
# A release writes its own with `make contracts VERSION=v0.2`, and names it here.
RELEASED = proto/release/v0.1.binpb
# How long each fuzz target runs, in seconds.
FUZZ ?= 600
FUZZ_TARGETS = $(basename $(notdir $(wildcard fuzz/targets/*.rs)))

.PHONY: help demo play test setup lint sweep bench console photographs fuzz contracts docs clean

help:
	@echo 'make demo   delete snapshots of a real guest while it writes, and count lost records'
	@echo 'make play   the same guest and both services, to try by hand until Ctrl-C'
	@echo 'make test   all tests but those in a browser, on the real thing where that is possible'
	@echo 'make sweep  every fault at every step, and 800 kills of real QEMUs, servers, agents, libvirts and hosts, and 200 cuts of the power; takes hours'
	@echo 'make console  what browsers are given: builds it, and tests it in Chromium, over a scripted server and on the real thing'
	@echo 'make photographs  the console as the README shows it, of the real thing'
	@echo 'make fuzz   hostile input for every reader of what others have written, ten minutes each'
	@echo 'make bench  merges beside virsh and raw QMP: time, bytes and stalls; calls beside bare tonic and SQLite; as ratios'
	@echo 'make lint   formatting, clippy, protobuf lint and what it breaks, licences'
	@echo 'make docs   writes the documents that are made from the code'

demo:
	@tests/setup.sh demo $(subst object,s3,$(filter lvm object,$(STORAGE)))
	@$(CARGO) build --workspace --bins --quiet
	@target/debug/livemerge-demo --storage $(STORAGE) $(if $(KEEP),--keep)

play:
	@tests/setup.sh demo
	@$(CARGO) build --workspace --bins --quiet
	@target/debug/livemerge-demo --play

test: setup lint
	@$(CARGO) build --workspace --bins --all-features
	$(CARGO) nextest run --workspace --all-features
	$(CARGO) test --workspace --all-features --doc --quiet

setup:
	@tests/setup.sh test

lint:
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets --all-features --quiet -- -D warnings
	cd proto && $(BUF) lint
	$(BUF) breaking proto --against $(RELEASED)
	$(CARGO) deny --log-level error check bans licenses sources

sweep:
	@tests/setup.sh demo
	@$(CARGO) build --workspace --bins --quiet
	@target/debug/livemerge-sweep

bench:
	@tests/setup.sh bench
	@$(CARGO) build --release --quiet -p livemerge-tests --bins
	@$(CARGO) build --release --quiet -p livemerge-api-server -p livemerge-host-agent -p livemerge-cli
	@target/release/livemerge-bench

# What is built is part of the API server: it is committed, and has to be what its sources make.
console:
	@tests/setup.sh console
	cd console && npm run build && git diff --stat --exit-code -- dist
	cd console && npm test && npx vitest run --config e2e/vitest.config.ts
	@$(CARGO) build --workspace --bins --all-features
	$(CARGO) nextest run --workspace --all-features --ignore-default-filter --no-capture -E 'test(/^console::a_browser_sees/)'

# Those in the README, of the real thing.
photographs:
	@tests/setup.sh console
	cd console && npm run generate
	@$(CARGO) build --workspace --bins --all-features
	CONSOLE_SHOTS=$(CURDIR)/docs/console $(CARGO) nextest run --workspace --all-features --ignore-default-filter --no-capture \
	  -E 'test(/^console::a_browser_takes_photographs/)'

# What fails is in fuzz/artifacts; what reaches more than before is added to fuzz/found, which is committed.
fuzz:
	@tests/setup.sh fuzz
	@cp Cargo.lock fuzz/Cargo.lock
	@for target in $(FUZZ_TARGETS); do fuzz/run.sh $$target $(FUZZ) || exit 1; done

contracts:
	$(BUF) build proto --exclude-source-info -o proto/release/$(VERSION).binpb

docs:
	UPDATE_DOCS=1 $(CARGO) test --quiet -p livemerge-proto --test errors_document
	UPDATE_DOCS=1 $(CARGO) test --quiet -p livemerge-tests --test suite observability::documents

clean:
	$(CARGO) clean
