# `make run` and `make test` are all that a newcomer needs; both want Rust, gcc and /dev/kvm. With LAB=1 they run in a QEMU
# machine that has a KVM of its own.

CARGO ?= cargo

.PHONY: help run test bench-check guest check deny install uninstall clean

## help: this list
help:
	@sed -n 's/^## /make /p' $(MAKEFILE_LIST)

include tests/lab/lab.mk
include kvm/kvm.mk

## run: show a fault being reinjected and one being resolved
run: $(if $(LAB),lab-run,run-here)

## test: run all tests
test: $(if $(LAB),lab-test,test-here)

## kvm-unit-tests: kernels of kvm-unit-tests in the folder FLATS, with each engine and without; T=access chooses by name
kvm-unit-tests: export VECTOR14_FLATS = $(abspath $(FLATS))
kvm-unit-tests: $(if $(LAB),kvm-unit-tests-lab,kvm-unit-tests-here)

.PHONY: run-here test-here kvm kvm-unit-tests kvm-unit-tests-here kvm-unit-tests-lab
kvm-unit-tests-here: kvm flats
	$(CARGO) test --locked --package vector14 --test integration -- kvm-unit-tests::$(T) --test-threads=1

kvm-unit-tests-lab: flats
	@VECTOR14_LAB_TIMEOUT=$(or $(VECTOR14_LAB_TIMEOUT),2h) $(LAB_COMMAND) --kvm $(or $(KVM),exception-exit) test kvm-unit-tests::$(T) --test-threads=1

.PHONY: flats
flats:
	@[ -d '$(FLATS)' ] || { echo 'make: FLATS names no folder: `make kvm-unit-tests FLATS=.../kvm-unit-tests/x86`' >&2; exit 2; }

run-here: kvm
	@$(CARGO) run --locked --bin vector14 -- demo

test-here: kvm
	$(CARGO) test --locked --workspace --doc
	$(CARGO) test --locked --workspace --exclude vector14-workloads --lib --bins --tests

kvm:
	@[ -r /dev/kvm -a -w /dev/kvm ] || echo 'make: /dev/kvm is missing or not yours to use: `make $(MAKECMDGOALS) LAB=1`' \
		'runs in a QEMU machine that has one' >&2

# Times mean something only where nothing else runs, so one KVM at a time: stock, unless KVM chooses another.
## bench-check: compare what faults and hooks cost with limits, on a quiet machine; LAB=1 includes a boot of Linux
bench-check: $(if $(LAB),lab-bench-check,bench-check-here)

.PHONY: bench-check-here lab-bench-check
bench-check-here: kvm
	$(CARGO) test --locked --release --package vector14 --test integration -- --bench

lab-bench-check:
	@$(LAB_COMMAND) $(if $(KVM),,--kvm stock) $(LAB_MACHINE) test --bench

## guest: the tiny guest kernel, which is built in, as a file for a debugger
guest:
	@$(CARGO) run --quiet --locked --package vector14-guest --example extract -- target/tiny.elf

# The guest kernels are freestanding, and workspaces of their own.
check:
	$(CARGO) fmt --all --check
	$(CARGO) fmt --manifest-path guest/tiny/Cargo.toml --check
	$(CARGO) fmt --manifest-path guest/multiboot/Cargo.toml --check
	$(CARGO) clippy --locked --workspace --all-targets -- -D warnings
	$(CARGO) clippy --locked --release --manifest-path guest/tiny/Cargo.toml -- -D warnings
	$(CARGO) clippy --locked --release --manifest-path guest/multiboot/Cargo.toml -- -D warnings
	RUSTDOCFLAGS='-D warnings' $(CARGO) doc --locked --workspace --no-deps --document-private-items
	@if command -v cargo-deny >/dev/null; then $(MAKE) --no-print-directory deny; fi

# cargo-deny is not part of Rust; `cargo install --locked cargo-deny` installs it.
## deny: check the licences and sources of dependencies; needs cargo-deny
deny:
	$(CARGO) deny --locked --workspace --all-features check licenses sources

# Where `make install` puts things, below DESTDIR.
PREFIX ?= /usr/local
BIN = $(DESTDIR)$(PREFIX)/bin
INCLUDE = $(DESTDIR)$(PREFIX)/include
SHARE = $(DESTDIR)$(PREFIX)/share
BASH_COMPLETION = $(SHARE)/bash-completion/completions/vector14
ZSH_COMPLETION = $(SHARE)/zsh/site-functions/_vector14
FISH_COMPLETION = $(SHARE)/fish/vendor_completions.d/vector14.fish

## install: the command, its manual pages and completions, and the header for hooks in C, below PREFIX, by default /usr/local
install:
	$(CARGO) build --locked --release --package vector14 --bin vector14
	install -D target/release/vector14 $(BIN)/vector14
	install -D -m 644 hooks/sdk/include/vector14_hook.h $(INCLUDE)/vector14_hook.h
	target/release/vector14 man $(SHARE)/man/man1
	install -d $(dir $(BASH_COMPLETION) $(ZSH_COMPLETION) $(FISH_COMPLETION))
	target/release/vector14 completions bash > $(BASH_COMPLETION)
	target/release/vector14 completions zsh > $(ZSH_COMPLETION)
	target/release/vector14 completions fish > $(FISH_COMPLETION)

## uninstall: remove what `make install` with the same PREFIX and DESTDIR installed
uninstall:
	rm -f $(BIN)/vector14 $(INCLUDE)/vector14_hook.h $(SHARE)/man/man1/vector14.1 $(SHARE)/man/man1/vector14-*.1
	rm -f $(BASH_COMPLETION) $(ZSH_COMPLETION) $(FISH_COMPLETION)

## clean: remove what was built
clean:
	$(CARGO) clean
