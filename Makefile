# The tasks of Oona. `make` lists them, with the help after "##".

SHELL       := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

GO        ?= go
PYTHON    ?= python3
VENV      := .cache/venv
TESTARGS  ?=
PARALLEL  ?= 8
TIMEOUT   ?= 30m
FUZZTIME  ?= 20s
FUZZ      ?= .
BENCH     ?= .
BENCHTIME ?= 1s
MUTANTS   ?= all
SEEDS     ?= 100000
SEED      ?= 0
ARGS      ?=
KAFKA     ?=
VERSION   ?=
ROW       ?=

GOLANGCI_LINT := $(GO) run github.com/golangci/golangci-lint/v2/cmd/golangci-lint@v2.15.0
GOVULNCHECK   := $(GO) run golang.org/x/vuln/cmd/govulncheck@v1.9.0
GO_FILES       = $(shell git ls-files -co --exclude-standard -- '*.go')

# PARALLEL is how many tests of a package run at the same time. It exceeds the number
# of cores, as most parallel tests wait for brokers.

# TIMEOUT is for the tests of a package on a very busy machine. See .ci/budget for what
# they take on an idle one.

# KAFKA has flags of kafkactl, for example "-port 29092 -dir DIR" for a second cluster, or
# "-nodes 1 -secure" for listeners with TLS, SASL and client certificates.

# Use what make python has installed, if it has.
export PATH := $(CURDIR)/$(VENV)/bin:$(PATH)

.PHONY: help
help: ## this list
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: test
test: ## all tests, Go and Python; it prints which tests it skips (TESTARGS=)
	@mkdir -p .cache
	$(GO) test -timeout $(TIMEOUT) -parallel $(PARALLEL) $(TESTARGS) ./... | tee .cache/test-output
	@awk -f .ci/budget.awk .ci/budget .cache/test-output
	@$(MAKE) --no-print-directory test-python skipped

# go test prints nothing about tests that are skipped, so this does.
.PHONY: skipped
skipped:
	@[[ -n "$${OONA_KAFKA:-}" ]] || echo "SKIPPED: the tests on real Kafka. \`export OONA_KAFKA=\$$(make -s kafka-up)\` starts three brokers." >&2
	@$(PYTHON) -c 'import fastavro' 2>/dev/null || echo "SKIPPED: the cross-check of the schemas with fastavro. \`make python\` installs it." >&2
	@$(PYTHON) -c 'import fastavro, numpy' 2>/dev/null || echo "SKIPPED: the comparison of rollups with what NumPy makes of the frames. \`make python\` installs it." >&2
	@$(PYTHON) -c 'import confluent_kafka, fastavro' 2>/dev/null || echo "SKIPPED: the raw topic with a trainer in Python. \`make python\` installs what it needs." >&2
	@$(PYTHON) -c 'import duckdb, pandas, polars, pyarrow' 2>/dev/null || echo "SKIPPED: Parquet files as DuckDB, pandas, Polars and pyarrow read them. \`make python\` installs these." >&2
	@$(PYTHON) -c 'import prometheus_client' 2>/dev/null || echo "SKIPPED: the check of OpenMetrics output with a strict parser. \`make python\` installs it." >&2
	@command -v promtool >/dev/null || echo "SKIPPED: the checks of the exporter's metrics and of the alerts with promtool, which comes with Prometheus." >&2
	@command -v systemd-analyze >/dev/null || echo "SKIPPED: the check of the units in deploy/systemd with systemd-analyze." >&2
	@command -v prometheus >/dev/null || echo "SKIPPED: the test of the exporter with a real Prometheus. Debian: apt-get install prometheus." >&2

# The tests of the Python examples. The rest needs only Go, so they are skipped if Python
# lacks something, unless OONA_REQUIRE_PYTHON is set.
.PHONY: test-python
test-python: test-digits test-analysis test-client

# NOT_SKIPPED fails if Python is required and the output of pytest, in a file, has tests that were skipped,
# except those of make test-torch, and those of a package that Python has itself from 3.14 on.
NOT_SKIPPED = if [[ -n "$${OONA_REQUIRE_PYTHON:-}" ]] && grep '^SKIPPED' $(1) | grep -vE '(t|PyT)orch is not installed|Python has zstd'; \
	then echo "FAILED: OONA_REQUIRE_PYTHON is set, and the tests above were skipped" >&2; exit 1; fi

.PHONY: test-digits test-analysis
test-digits: NEEDS := fastavro, numpy, pytest, sklearn
test-analysis: NEEDS := confluent_kafka, duckdb, fastavro, matplotlib, numpy, pandas, pyarrow, pytest
test-digits test-analysis: test-%:
	@if why=$$($(PYTHON) -c 'import $(NEEDS)' 2>&1); then \
		$(GO) build -o .cache/test-client/ ./cmd/oona ./cmd/ingest && \
		echo "$(PYTHON) -m pytest -q examples/$*" && \
		OONA_BINARY=$(CURDIR)/.cache/test-client/oona OONA_INGEST_BINARY=$(CURDIR)/.cache/test-client/ingest \
			$(PYTHON) -m pytest -q -rs -p no:cacheprovider examples/$* | tee .cache/test-$* && \
		$(call NOT_SKIPPED,.cache/test-$*); \
	elif [[ -n "$${OONA_REQUIRE_PYTHON:-}" ]]; then \
		echo "FAILED: OONA_REQUIRE_PYTHON is set and $(PYTHON) cannot run the tests of examples/$*: $${why##*$$'\n'}" >&2; exit 1; \
	else \
		echo "SKIPPED: the Python tests of examples/$* ($${why##*$$'\n'}). \`make python\` installs what they need." >&2; \
	fi

.PHONY: test-client
test-client: ## the tests of the Python client, some of them with a real ingest
	@if why=$$($(PYTHON) -c 'import fastavro, numpy, pytest' 2>&1); then \
		$(GO) build -o .cache/test-client/ ./cmd/oona ./cmd/ingest && \
		echo "$(PYTHON) -m pytest -q clients/python" && \
		OONA_BINARY=$(CURDIR)/.cache/test-client/oona OONA_INGEST_BINARY=$(CURDIR)/.cache/test-client/ingest \
			$(PYTHON) -m pytest -q -rs -p no:cacheprovider -c clients/python/pyproject.toml clients/python | tee .cache/test-client/output && \
		$(call NOT_SKIPPED,.cache/test-client/output); \
	elif [[ -n "$${OONA_REQUIRE_PYTHON:-}" ]]; then \
		echo "FAILED: OONA_REQUIRE_PYTHON is set and $(PYTHON) cannot run the tests of clients/python: $${why##*$$'\n'}" >&2; exit 1; \
	else \
		echo "SKIPPED: the tests of clients/python ($${why##*$$'\n'}). \`make python\` installs what they need." >&2; \
	fi

# Debian's PyTorch, as the wheel is many times as large.
.PHONY: test-torch
test-torch: ## the Python tests that need a real PyTorch or Lightning; installs both, on Debian, as root
	/usr/bin/python3 -c 'import torch, venv, ensurepip' || { apt-get update -qq && apt-get install -y -qq --no-install-recommends python3-torch python3-venv; }
	/usr/bin/python3 -m venv --system-site-packages .cache/torch
	.cache/torch/bin/python -m pip install --quiet --no-deps --requirement=clients/python/tests/torch.txt
	.cache/torch/bin/python -m pytest -q -rs -p no:cacheprovider -c clients/python/pyproject.toml \
		clients/python/tests/test_{modules,device,lightning,examples}.py examples/digits/test_backend.py | tee .cache/test-torch
	@! grep SKIPPED .cache/test-torch

.PHONY: pictures
pictures: ## docs/images/run-*.svg again, from the recorded run, by examples/analysis (make python)
	rm -rf .cache/pictures
	$(PYTHON) examples/analysis/recorded.py .cache/pictures
	$(PYTHON) examples/analysis/with_duckdb.py .cache/pictures/parquet -o .cache/pictures/out
	for name in states gradients survival; do cp .cache/pictures/out/$$name.svg docs/images/run-$$name.svg; done

# These packages start no goroutine, so the race detector has nothing to find there.
SEQUENTIAL := windows(/.*)?|verdict(/.*)?|replay/whatif|internal/simulate|internal/lint

.PHONY: race
race: ## the Go tests under the race detector (TESTARGS=-short: without long tests that measure)
	$(GO) test -race -timeout $(TIMEOUT) -parallel $(PARALLEL) $(TESTARGS) $$($(GO) list ./... | grep -vE '/oona/($(SEQUENTIAL))$$')

.PHONY: e2e
e2e: ## only the end-to-end tests; on Kafka, too, if OONA_KAFKA has brokers
	$(GO) test -count=1 -v $(TESTARGS) ./internal/demo/...

.PHONY: fmt-check
fmt-check:
	@unformatted=$$(gofmt -l $(GO_FILES)); \
	if [[ -n "$$unformatted" ]]; then echo "run gofmt -w on:" >&2; echo "$$unformatted" >&2; exit 1; fi

.PHONY: vet
vet: fmt-check ## gofmt and go vet, the quick part of lint
	$(GO) vet ./...
	cd scenarios && $(GO) vet ./...

.PHONY: lint
lint: vet ## gofmt, go vet and golangci-lint, which is built the first time
	$(GOLANGCI_LINT) run ./...

.PHONY: bench
bench: ## the Go benchmarks (BENCH=regexp BENCHTIME=1s)
	$(GO) test -run '^$$' -bench '$(BENCH)' -benchmem -benchtime $(BENCHTIME) ./...

.PHONY: peers
peers: ## the tests of the programs that bench --peers compares with Oona; fetches and builds them
	cd bench/peers && $(GO) vet ./... && $(GO) test ./...
	OONA_PEERS=1 $(GO) test -count=1 -run '^TestOthers$$' ./bench

.PHONY: fuzz
fuzz: ## each fuzz target for FUZZTIME=20s (FUZZ=regexp)
	@targets=$$(grep -rnoE --include='*_test.go' --exclude-dir=.cache '^func Fuzz[A-Za-z0-9_]+' . | sort | grep -E '$(FUZZ)') \
		|| { echo "no fuzz target matches '$(FUZZ)'" >&2; exit 1; }; \
	while IFS=: read -r file _ declaration; do \
		echo "== $${declaration#func } in $$(dirname "$$file")"; \
		for attempt in 1 2 3; do \
			status=0; \
			said=$$($(GO) test -run '^$$' -fuzz "^$${declaration#func }\$$" -fuzztime $(FUZZTIME) -fuzzminimizetime 2s "$$(dirname "$$file")" </dev/null 2>&1) || status=$$?; \
			echo "$$said"; \
			((status == 0)) && break; \
			if grep -q 'Failing input' <<<"$$said" || ! grep -qx ' *context deadline exceeded' <<<"$$said" || ((attempt == 3)); then exit 1; fi; \
			echo "no input failed: on a busy machine Go's fuzzer may fail when its time ends; trying again"; \
		done; \
	done <<<"$$targets"

.PHONY: simulate
simulate: ## the window engine under SEEDS=100000 schedules of crashes, from SEED=0 on, on all cores
	$(GO) test -count=1 -timeout 0 -v -run '^TestSchedules$$' ./internal/simulate -schedules=$(SEEDS) -seed=$(SEED)

.PHONY: mutants
mutants: ## put errors into the window engine, and check that the schedules find each; minutes (MUTANTS=third)
	$(GO) test -count=1 -timeout 0 -v -run '^TestMutantsDie$$' ./internal/simulate -mutants=$(MUTANTS)

.PHONY: verdict-trial
verdict-trial: ## how well verdicts find faults, compared with other detectors and with the table of docs/verdict.md; a minute or two (UPDATE=1)
	$(GO) test -count=1 -timeout 20m -v -run '^TestTrial$$' ./verdict/trial -args -faulty 60 -clean 60 $(if $(UPDATE),-update)

.PHONY: scenarios
scenarios: ## the real binaries on three real brokers, with faults; half an hour (ROW=row03)
	cd scenarios && $(GO) test -count=1 -timeout 40m -v -run 'TestExamine|TestScenario/$(ROW)' . $(TESTARGS)

.PHONY: tracing
tracing: ## traces in a real Jaeger, from an exemplar to a request; it is built the first time
	cd scenarios && $(GO) test -count=1 -timeout 30m -v ./tracing $(TESTARGS)

.PHONY: objectstore
objectstore: ## tensor stores and ingest on a real S3 server, with faults; it is built the first time
	cd scenarios && $(GO) test -count=1 -timeout 30m -v $(TESTARGS) ./objectstore

.PHONY: registry-trial
registry-trial: ## frames and copies with a real schema registry (Apicurio) and Confluent's serializers; needs Java 17, Maven, make python
	cd scenarios && $(GO) test -count=1 -timeout 10m -v $(TESTARGS) ./registry

.PHONY: pressure
pressure: ## an ingest whose clients need more memory than it has, and disconnect or trickle, until it ends; 20 seconds
	cd scenarios && $(GO) test -count=1 -timeout 10m -v $(TESTARGS) ./pressure

.PHONY: helm
helm: ## the Helm chart: what it renders, by Kubernetes' types and by each worker's --check
	cd deploy/helm/proof && $(GO) vet ./... && $(GO) test -count=1 $(TESTARGS) ./...

.PHONY: helm-golden
helm-golden: ## write what the Helm chart renders now, the table in its README, and the descriptions in its schema
	cd deploy/helm/proof && $(GO) test -count=1 . -update

.PHONY: helm-e2e
helm-e2e: ## the chart on a real Kubernetes API server, with the real binaries; needs root, and 20 minutes the first time
	cd deploy/helm/e2e && $(GO) vet ./... && $(GO) test -count=1 -timeout 60m -v $(TESTARGS) ./...

.PHONY: dashboards
dashboards: ## write the Grafana dashboards into the Helm chart, and check them
	cd deploy/grafana && $(GO) run . && $(GO) vet ./... && $(GO) test -count=1 $(TESTARGS) ./...

.PHONY: dashboard-pictures
dashboard-pictures: ## draw the dashboards for docs/dashboards.md; needs prometheus, and five minutes
	mkdir -p docs/images
	cd deploy/grafana && DASHBOARD_PICTURES=$(CURDIR)/docs/images $(GO) test -count=1 -timeout 15m ./e2e

.PHONY: demo
demo: ## the whole path in one process, on a recorded training run (ARGS="--once --speed max")
	$(GO) run ./cmd/oona demo $(ARGS)

.PHONY: image
image: ## the container images, in dist/images as OCI layouts; without Docker (VERSION=)
	VERSION="$(VERSION)" deploy/image/build dist/images

.PHONY: image-test
image-test: image ## check the images: the same digests again, and each starts as user 65532 on a read-only root
	cd deploy/image && OONA_IMAGES=$(CURDIR)/dist/images $(GO) test -count=1 -v -skip '^Test(Release|ARM64)' $(TESTARGS) ./...

.PHONY: arm64
arm64: image ## go vet and the golden tests for arm64, in an emulator, which also starts the arm64 images' binaries
	emulator=$$(deploy/image/arm64) && cd deploy/image && \
		OONA_IMAGES=$(CURDIR)/dist/images OONA_QEMU=$$emulator $(GO) test -count=1 -v -run '^TestARM64$$' .

.PHONY: wheel
wheel: ## the wheel of the Python client, in dist (VERSION=)
	VERSION="$(VERSION)" PYTHON="$(PYTHON)" clients/python/build dist

.PHONY: release
release: ## all files of a release in dist/release: binaries, images, chart, Python wheel, bills of materials, checksums (VERSION=)
	VERSION="$(VERSION)" deploy/release dist/release

.PHONY: release-test
release-test: release ## check the files of the release, and build them again: they must be the same
	cd deploy/image && OONA_RELEASE=$(CURDIR)/dist/release $(GO) test -count=1 -v -timeout 30m -run '^TestRelease' $(TESTARGS) .

.PHONY: compose-test
compose-test: ## check deploy/compose by the specification, and run its commands without containers
	cd deploy/compose && $(GO) test -count=1 $(TESTARGS) .

.PHONY: kafka-up
kafka-up: ## three Apache Kafka brokers on loopback, or one with KAFKA="-nodes 1"; export OONA_KAFKA=$(make -s kafka-up)
	$(GO) run ./internal/localkafka/kafkactl $(KAFKA) up

.PHONY: kafka-down
kafka-down: ## stop the brokers and delete their data
	$(GO) run ./internal/localkafka/kafkactl $(KAFKA) down

.PHONY: python
python: $(VENV)/installed ## a virtual environment with the packages of the examples and of the tests

$(VENV)/installed: clients/python/tests/requirements.txt examples/digits/requirements.txt examples/analysis/requirements.txt cmd/ingest/testdata/requirements.txt replay/parquet/testdata/requirements.txt replay/archive/testdata/readers/requirements.txt
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet $(addprefix --requirement=,$^)
	@touch $@

.PHONY: vuln
vuln: ## known vulnerabilities in the linked packages; needs the database at vuln.go.dev
	@if curl --fail --silent --show-error --output /dev/null --max-time 20 https://vuln.go.dev/index/db.json; then \
		$(GOVULNCHECK) ./...; \
	else \
		echo "SKIPPED: the vulnerability database at vuln.go.dev cannot be reached." >&2; \
		[[ -z "$${OONA_REQUIRE_VULN:-}" ]]; \
	fi
