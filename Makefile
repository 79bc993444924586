# `make run` and `make test` are all that a newcomer needs; both want Rust, gcc and /dev/kvm.

CARGO ?= cargo

.PHONY: run test guest check clean help

help:
	@echo 'make run    show a fault being reinjected and one being resolved'
	@echo 'make test   run all tests'
	@echo 'make guest  build the tiny guest kernel and say where it is'
	@echo 'make check  formatting, lints and documentation'

run:
	@$(CARGO) run --locked -- demo

test:
	$(CARGO) test --locked --workspace --doc
	$(CARGO) test --locked --workspace --lib --bins --tests

# The tiny guest is built with everything else and embedded; this leaves its ELF file where a debugger finds it.
guest:
	@$(CARGO) run --quiet --locked --package vector14-guest --example extract -- target/tiny.elf

# The tiny guest is freestanding, and a workspace of its own.
check:
	$(CARGO) fmt --all --check
	$(CARGO) fmt --manifest-path guest/tiny/Cargo.toml --check
	$(CARGO) clippy --locked --workspace --all-targets -- -D warnings
	$(CARGO) clippy --locked --release --manifest-path guest/tiny/Cargo.toml -- -D warnings
	RUSTDOCFLAGS='-D warnings' $(CARGO) doc --locked --workspace --no-deps --document-private-items

clean:
	$(CARGO) clean
