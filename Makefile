# btmount. What needs explaining stands in README.md and CONTRIBUTING.md.
GO ?= go
VERSION ?= 0.1.0-dev$(shell git describe --always --dirty --exclude '*' 2>/dev/null | sed 's/^/+/')
STATICCHECK := honnef.co/go/tools/cmd/staticcheck@v0.8.2
GOFUMPT := mvdan.cc/gofumpt@v0.12.0
FUZZTIME ?= 30s
# A program under the race detector sleeps for a second before it ends; tests start many.
export GORACE := atexit_sleep_ms=0
export PATH := $(PATH):/usr/local/go/bin

.DEFAULT_GOAL := help
.PHONY: help setup build demo test check bench lint fuzz clean

help: ## show this
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 14

setup: ## install what the tests need (Debian, as root); quick if it is all there
	@.ci/setup

build: ## build bin/btmount
	$(GO) build -buildvcs=false -trimpath -ldflags '-X main.version=$(VERSION)' -o bin/btmount ./cmd/btmount

demo: build ## seed, mount, read and compare a sample on this machine; no internet
	@bin/btmount demo

test: setup ## run every test, with the race detector; mount tests also on one processor
	$(GO) test -race -parallel 6 -timeout 30m ./...
	GOMAXPROCS=1 $(GO) test -race -cpu 1 -timeout 30m ./fs/...

check: lint test ## what CI runs: lint and test

lint: ## gofumpt, go vet, staticcheck
	@unformatted=$$($(GO) run $(GOFUMPT) -l .) && test -z "$$unformatted" || { echo "gofumpt -w needed:" $$unformatted; exit 1; }
	$(GO) vet ./...
	$(GO) run $(STATICCHECK) ./...

bench: setup ## run the benchmarks, and compare with libtorrent in the same run
	$(GO) test -run '^$$' -bench . -benchmem ./...
	@if test -x bench/run; then bench/run; fi

fuzz: ## run every fuzz target for 30 s each
	@set -e; for p in $$($(GO) list ./...); do for f in $$($(GO) test -list '^Fuzz' $$p | grep '^Fuzz'); do \
		echo "$$p $$f"; $(GO) test -run '^$$' -fuzz "^$$f$$" -fuzztime $(FUZZTIME) -fuzzminimizetime 3s $$p; done; done

clean: ## remove what was built
	rm -rf bin
