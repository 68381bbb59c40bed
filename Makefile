# make help lists what there is. Everything that the tests need is installed by
# test-deps, which test calls.

SHELL := /bin/sh
BIN := bin/mailgrant
TIME ?= 20s
CYCLES ?= 100
export CGO_ENABLED ?= 0

.PHONY: help build demo test test-deps lint unit short fuzz chaos soak bench bench-receive update clean

help: ## show this list
	@awk -F':.*## ' '/^[a-z-]+:.*## /{printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

build: ## build bin/mailgrant, one static binary
	go build -trimpath -ldflags='-s -w' -o $(BIN) ./cmd/mailgrant

demo: ## run the demo: mailgrant with an imitated Microsoft 365
	go run ./cmd/mailgrant demo

test: test-deps lint unit $(if $(CI),short) ## all tests; installs what they need (apt, npm); with CI set also a short run of the long ones

test-deps: ## install what the tests run for real
	@sh scripts/test-deps

lint: test-deps ## gofmt, go vet, staticcheck
	@out=$$(gofmt -l $$(git ls-files '*.go')); if [ -n "$$out" ]; then echo "not gofmt'ed, run: gofmt -w" $$out; exit 1; fi
	go vet ./...
	.cache/bin/staticcheck ./...

unit: test-deps ## the tests, with the race detector
	CGO_ENABLED=1 go test -race -timeout 20m ./...

short: test-deps ## a short run of fuzz and bench; unit has one of chaos and soak
	sh scripts/fuzz 2000x
	sh scripts/bench --short
	sh scripts/bench-receive --short

fuzz: ## fuzz every parser of foreign bytes (TIME=20s for each)
	sh scripts/fuzz $(TIME)

chaos: test-deps ## kill -9 and power loss at every step (CYCLES=100)
	MAILGRANT_CHAOS=$(CYCLES) go test -count=1 -timeout 60m -run '^TestChaos' -v ./test/chaos

soak: test-deps ## steady load with faults, looking for leaks (TIME=20s)
	MAILGRANT_SOAK=$(TIME) go test -count=1 -timeout 24h -run '^TestSoak' -v ./test/chaos

bench: ## mailgrant beside Postfix in one run, and the goals; then receiving
	sh scripts/bench; met=$$?; sh scripts/bench-receive && exit $$met

bench-receive: ## idle mailboxes, event to webhook, first import
	sh scripts/bench-receive

update: ## write generated files and expected output anew
	go test $$(grep -rl 'flag.Bool("update"' --include='*_test.go' . | xargs -n1 dirname | sort -u) -update

clean: ## remove what was built
	rm -rf bin .cache test/artifacts bench/work bench/rig
