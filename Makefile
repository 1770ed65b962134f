# The entry points for people and for continuous integration. Each target installs the Debian packages it needs, but
# only those that are missing, and says which; as another user than root by sudo.

BUILD_PACKAGES := gcc libc6-dev libtss2-dev pkg-config
TPM_PACKAGES := swtpm swtpm-tools tpm2-tools

.PHONY: help demo test lint bench fmt build-needs tpm-needs demo-needs

help:
	@echo 'make demo   build, and run central with two sites and three hosts in ./dev until Ctrl-C;'
	@echo '            ports 7373, 7443/udp, 4646 to 4648'
	@echo 'make test   build, and run every test'
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

demo-needs:
	$(call install,$(BUILD_PACKAGES) $(TPM_PACKAGES) curl)
