# Everything that is done with this repository; `make` lists it.

GO         ?= go
BIN        := bin
STATICCHECK := honnef.co/go/tools/cmd/staticcheck@v0.8.2
BUF        := github.com/bufbuild/buf/cmd/buf@v1.75.0
FUZZTIME   ?= 10s
SEEDS      ?= 1000+200
SEED       ?= 1
DURATION   ?= 8h

.PHONY: help
help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "  %-15s %s\n", $$1, $$2}'

.PHONY: build
build: ## build bin/trivet and bin/serviceb
	@mkdir -p $(BIN)
	$(GO) build -o $(BIN)/trivet ./cmd/trivet
	$(GO) build -o $(BIN)/serviceb ./examples/serviceb

.PHONY: cluster
cluster: build ## run a cluster of three nodes on this machine (ARGS="--fresh" and other flags of `trivet dev`)
	$(BIN)/trivet dev $(ARGS)

.PHONY: demo
demo: build ## run a cluster and two instances of the example service over it
	scripts/demo

.PHONY: test
test: ## run all tests
	$(GO) test ./...

.PHONY: check
check: ## gofmt, vet, staticcheck, go.mod, the import rule
	@out=$$(gofmt -l $$(git ls-files '*.go')); if [ -n "$$out" ]; then echo "not gofmt-ed:"; echo "$$out"; exit 1; fi
	$(GO) vet ./...
	$(GO) vet -tags mutants ./...
	$(GO) run $(STATICCHECK) ./...
	$(GO) mod tidy -diff
	$(GO) test -count=1 ./internal/arch

.PHONY: race
race: ## run the tests under the race detector, with fewer simulated clusters
	TRIVET_SIM_SEEDS=0+2 $(GO) test -race -timeout 20m ./...

.PHONY: sim
sim: ## simulate clusters under random faults in virtual time (SEEDS=FIRST+COUNT)
	TRIVET_SIM_SEEDS=$(SEEDS) $(GO) test -count=1 -timeout 60m -run 'TestSimNemesis|TestSimMembershipNemesis' ./raftnode

.PHONY: calm
calm: ## an hour of virtual time on a slow network, under load, without an election
	TRIVET_SIM_CALM=1h $(GO) test -count=1 -timeout 10m -v -run 'TestSimSlowNetwork' ./raftnode

.PHONY: rolling
rolling: ## restart all members one by one under load, ROUNDS times; BINARY_OLD=… BINARY_NEW=… upgrade them
	ROUNDS=$(or $(ROUNDS),5) BINARY_OLD=$(abspath $(BINARY_OLD)) BINARY_NEW=$(abspath $(BINARY_NEW)) \
		$(GO) test -count=1 -timeout 30m -v -run 'TestRollingRestart' ./cmd/trivet

.PHONY: mutants
mutants: ## break the program on purpose, each time in one way, and expect the tests to notice
	scripts/mutants

.PHONY: jepsen
jepsen: ## attack a cluster of real processes for a minute and check what clients saw (SEED=1)
	$(GO) run ./jepsen-lite --duration 60s --seed $(SEED)

.PHONY: jepsen-long
jepsen-long: ## the same for DURATION, in rounds; what a violation leaves is in jepsen-report
	$(GO) run ./jepsen-lite --duration $(DURATION) --seed $(SEED) --wall-clocks --report jepsen-report

.PHONY: mutants-jepsen
mutants-jepsen: ## break the server on purpose, and expect jepsen-lite to show it; takes a quarter of an hour
	scripts/mutants-jepsen

.PHONY: fuzz
fuzz: ## run every fuzz target for FUZZTIME
	scripts/fuzz $(FUZZTIME)

.PHONY: bench
bench: build ## measure the store, the write path, and a cluster of real processes; takes minutes
	scripts/bench

.PHONY: bench-peers
bench-peers: build ## the same work against Trivet, etcd, PostgreSQL and Redis: bench/README.md (ARGS="-quick")
	cd bench && $(GO) run . $(ARGS)

.PHONY: bench-check
bench-check: ## vet, staticcheck, go.mod and the quick tests of the side-by-side benchmarks
	cd bench && $(GO) vet ./...
	cd bench && $(GO) run $(STATICCHECK) ./...
	cd bench && $(GO) mod tidy -diff
	cd bench && $(GO) test ./internal/load ./internal/rows ./internal/report

.PHONY: generate
generate: ## make the protobuf code anew from trivetpb/trivet.proto
	cd trivetpb && $(GO) run $(BUF) generate

.PHONY: clean
clean: ## remove what was built (not the data of a cluster)
	rm -rf $(BIN)
