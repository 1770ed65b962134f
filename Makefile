# The entry points for people and for continuous integration. Each target installs the Debian packages it needs, but
# only those that are missing, and says which; as another user than root by sudo.

BUILD_PACKAGES := gcc libc6-dev libtss2-dev pkg-config
TPM_PACKAGES := swtpm swtpm-tools tpm2-tools

.PHONY: help demo test soak fuzz lint bench fmt build-needs tpm-needs demo-needs fuzz-needs

help:
	@echo 'make demo   build, and run central with two sites and three hosts in ./dev until Ctrl-C;'
	@echo '            ports 7373, 7443/udp, 4646 to 4648'
	@echo 'make test   build, and run every test'
	@echo 'make soak   kill processes under load, ROUNDS=500 of them, then simulate whole deployments from SEED=1000'
	@echo '            on, seed after seed, until stopped; ROUNDS=0 only simulates'
	@echo 'make fuzz   search for inputs that no decoder bears: SECONDS=60 for each target, TARGET=name for one,'
	@echo '            KEEP=1 to take what reached further into the corpora (docs/fuzzing.md)'
	@echo 'make lint   formatting, clippy, and cargo-deny where it is installed'
	@echo 'make bench  run the benchmarks, and print their medians and what they are to the raw libraries'
	@echo 'make fmt    format the sources'

demo: demo-needs
	@echo '== building'
	cargo build --workspace --bins --locked
	@echo '== running'
	@exec "$${CARGO_TARGET_DIR:-target}/debug/holdfast" dev --dir ./dev --sites 2 --hosts 2,1 --unseal

# The programs are built with the tests, since the tests of whole processes run them.
test: tpm-needs
	@echo '== building'
	cargo build --workspace --bins --tests --locked
	@echo '== testing'
	@rm -rf "$${CARGO_TARGET_DIR:-target}/debug/figures"
	cargo test --workspace --locked
	@echo '== figures'
	@cat "$${CARGO_TARGET_DIR:-target}"/debug/figures/*.txt

# The choices of a run of rounds are repeated with HOLDFAST_SEED as it was printed. After them whole deployments are
# simulated, from SEED on until stopped; a seed that fails is printed with the command that steps through it.
soak: ROUNDS ?= 500
soak: SEED ?= 1000
soak: tpm-needs
	cargo build --workspace --bins --locked
	@if [ "$(ROUNDS)" != 0 ]; then \
	  HOLDFAST_ROUNDS=$(ROUNDS) cargo test --package holdfast-testbed --test crash --locked -- --nocapture rounds; fi
	cargo run --locked --package holdfast-testbed --bin soak -- --from $(SEED)

# For each target (the programs of fuzz/libfuzzer) libFuzzer starts from its seeds and corpus, and shows how far it gets.
FUZZ_FOLDER := $${CARGO_TARGET_DIR:-target}/fuzz
FUZZ_TARGETS := $(or $(TARGET),$(shell sed -n 's/^name = "\([a-z0-9]*\)"$$/\1/p' fuzz/libfuzzer/Cargo.toml))
FUZZ_CARGO := cargo +nightly fuzz
FUZZ_BUILD := --fuzz-dir fuzz/libfuzzer --sanitizer none --no-cfg-fuzzing --target-dir $(FUZZ_FOLDER)

fuzz: SECONDS ?= 60
fuzz: fuzz-needs
	@echo '== building'
	cargo build --package holdfast-fuzz --bins --locked
	@cp Cargo.lock fuzz/libfuzzer/Cargo.lock
	@for target in $(FUZZ_TARGETS); do $(FUZZ_CARGO) build $(FUZZ_BUILD) $$target || exit 1; done
	@for target in $(FUZZ_TARGETS); do \
	  echo "== $$target, for $(SECONDS) s"; \
	  corpus=$(FUZZ_FOLDER)/corpus/$$target; found=$(FUZZ_FOLDER)/found/$$target; \
	  mkdir -p $$corpus $$found; \
	  "$${CARGO_TARGET_DIR:-target}/debug/holdfast-fuzz-seeds" $$target $$corpus || exit 1; \
	  program=$$(find $(FUZZ_FOLDER) -path "*/release/$$target" -type f | head -n 1); \
	  "$$program" -max_total_time=$(SECONDS) -max_len=4096 -timeout=20 -rss_limit_mb=1536 -print_final_stats=1 \
	    -artifact_prefix=$$found/ $$corpus || { echo "$$target does not hold: see $$found"; exit 1; }; \
	done
	@if [ -n "$(KEEP)" ]; then for target in $(FUZZ_TARGETS); do sh fuzz/keep.sh $$target || exit 1; done; fi

lint: build-needs
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --locked -- -D warnings
	@if cargo deny --version >/dev/null 2>&1; then cargo deny --locked check bans licenses sources; \
	else echo 'cargo-deny is not installed: licences and sources not checked (cargo install cargo-deny)'; fi

bench: build-needs
	cargo bench --package holdfast-benches --locked
	@cargo run --package holdfast-benches --release --quiet --locked --bin holdfast-bench-table

fmt:
	cargo fmt --all

# Installs what is missing of the packages in $(1).
define install
	@command -v cargo >/dev/null || { echo 'cargo is missing: install Rust with rustup'; exit 1; }
	@missing=; \
	for package in $(1); do \
	  dpkg-query -W -f='$${Status}' $$package 2>/dev/null | grep -q 'ok installed' || missing="$$missing $$package"; \
	done; \
	if [ -n "$$missing" ]; then \
	  echo "installing Debian packages:$$missing"; \
	  command -v apt-get >/dev/null || { echo 'this is no Debian: install their like by hand'; exit 1; }; \
	  sudo=; \
	  if [ "$$(id -u)" != 0 ]; then \
	    sudo=sudo; command -v sudo >/dev/null || { echo 'sudo is missing: install them as root'; exit 1; }; \
	  fi; \
	  $$sudo apt-get update -q && \
	  $$sudo env DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends $$missing; \
	fi
endef

build-needs:
	$(call install,$(BUILD_PACKAGES))

tpm-needs:
	$(call install,$(BUILD_PACKAGES) $(TPM_PACKAGES))

fuzz-needs:
	$(call install,$(BUILD_PACKAGES) g++)
	@cargo +nightly --version >/dev/null 2>&1 \
	  || { echo 'a nightly compiler is missing: rustup toolchain install nightly --profile minimal'; exit 1; }
	@cargo fuzz --version >/dev/null 2>&1 || { echo 'cargo-fuzz is missing: cargo install cargo-fuzz --locked'; exit 1; }

demo-needs:
	$(call install,$(BUILD_PACKAGES) $(TPM_PACKAGES) curl)
