# KVM with exception exits: kvm.ko, kvm-amd.ko and kvm-intel.ko, for a Debian kernel or for one of your own. Included by the
# top Makefile.

# One of the lab's kernels, 6.1 or 6.12; or, with KVM_SOURCE, the folder that your kernel's modules are built against.
KVM_KERNEL ?= 6.1
KVM_OUT ?= target/kvm

.PHONY: kvm-module

## kvm-module: KVM's modules with exception exits for KVM_KERNEL=6.1 or 6.12, or for your own: kvm/README.md says how
kvm-module:
ifdef KVM_SOURCE
	@kvm/build $(KVM_KERNEL) $(KVM_SOURCE) $(KVM_OUT)
else
	@$(LAB_COMMAND) --kernel linux-$(KVM_KERNEL) kvm-module
endif
