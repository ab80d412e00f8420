# Targets only; what they do is in scripts/, cross/ and testbed/.
.DEFAULT_GOAL := help
SHELL := /bin/bash
export CGO_ENABLED ?= 0

.PHONY: help setup runtime readers build release models demo test check bench arm64 gates fuzz nightly clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z0-9]+:.*## / { printf "  make %-9s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: build/.setup ## install what is missing, or say what to install
build/.setup: scripts/setup
	@scripts/setup
	@mkdir -p build && touch $@

runtime: setup ## get the official LiteRT library into build/runtime
	@cross/runtime/get

readers: setup ## get the tools by other hands that tests compare with into build/
	@testbed/readers/get
	@testbed/pyenv testbed/reference/requirements.txt build/reference/model-signing
	@testbed/pyenv testbed/triton/requirements.txt build/triton

build: setup ## build the four programs into build/bin
	@scripts/build build/bin

release: setup ## build for every target of cross/targets into build/release, check size and linking
	@cross/build build/release

models: setup ## train the test models again
	@scripts/models

demo: ## show the main job with real processes; EXIT=1 leaves at the end
	@scripts/demo $(if $(EXIT),-exit)

test: setup runtime readers build ## run every test
	@scripts/test
	@scripts/arm64

check: setup ## formatting, vet, staticcheck, architecture, shellcheck
	@scripts/check

bench: setup runtime build ## print the numbers to reach, measured here
	@scripts/bench

arm64: setup runtime ## build for arm64 and test it under qemu-user
	@scripts/arm64

gates: setup ## print the tables of docs/gates.md (about an hour)
	@go run ./testbed/gates

fuzz: setup ## run every fuzz test for FUZZTIME (default 20s)
	@scripts/fuzz $(or $(FUZZTIME),20s)

nightly: test ## every test, then every fuzz test for 10 minutes (about 7 hours)
	@scripts/fuzz 10m

clean: ## remove build/
	@rm -rf build
