# `make run` and `make test` are all that a newcomer needs; both want Rust, gcc and /dev/kvm. With LAB=1 they run in a QEMU
# machine that has a KVM of its own.

CARGO ?= cargo

.PHONY: help run test bench-check guest check clean

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

## clean: remove what was built
clean:
	$(CARGO) clean
