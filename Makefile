# The chores of this repository. `make help` lists them.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

ISOFLOP := $(or $(CARGO_TARGET_DIR),target)/release/isoflop
JOBS ?= 2

.PHONY: help setup build demo test lint bench clean

help: ## List the targets
	@grep -E '^[a-z]+:.*##' Makefile | sed -E 's/:[^#]*## /\t/' | expand -t 8

setup: ## Install what Debian or Ubuntu lacks (LLVM and MLIR 22, a text, a browser)
	scripts/setup.sh

build: setup ## Build the isoflop binary
	cargo build --release --locked

demo: build ## From a text to a report of three isoFLOP curves, in a few minutes on two cores
	$(ISOFLOP) data prepare --source gcide --out corpus/gcide
	$(ISOFLOP) run sweeps/examples/nano.toml --out studies/nano --jobs $(JOBS)
	$(ISOFLOP) fit studies/nano
	@report=$$($(ISOFLOP) report studies/nano); echo "The report: file://$(CURDIR)/$$report"

# Tests use the profile of the binary, so that every crate is built once.
test: setup ## Run every test
	cargo test --release --workspace --locked

lint: setup ## Check formatting and Clippy's advice
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --release --locked -- -D warnings

bench: setup ## Time fits beside scipy and the training step beside PyTorch and JAX, installed into .venv; ARGS="fit" or "nano-a" chooses
	benches/run.sh $(ARGS)

clean: ## Remove what was built; corpora and studies stay
	cargo clean
