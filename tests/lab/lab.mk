# The lab: a QEMU machine with nested SVM, in which a stock kvm-amd runs. Included by the top Makefile.

LAB_COMMAND = $(CARGO) run --quiet --locked --package vector14-lab --

# KVM=stock or KVM=exception-exit (the modules of kvm/) chooses one KVM; LAB_KERNEL=linux-6.12 runs another kernel;
# LAB_CLOCK=instructions slows the lab's clock down to what its CPU gets done.
LAB_MACHINE = $(if $(KVM),--kvm $(KVM)) $(if $(LAB_KERNEL),--kernel $(LAB_KERNEL)) $(if $(LAB_CLOCK),--clock $(LAB_CLOCK))

.PHONY: lab lab-update lab-shell lab-test lab-run lab-boots lab-clean

## lab: build the lab: Debian kernels and tools in a cache folder, and programs for it
lab:
	$(LAB_COMMAND) $(LAB_MACHINE) build

## lab-update: build it with the newest packages that the release offers
lab-update:
	$(LAB_COMMAND) update
	$(LAB_COMMAND) $(LAB_MACHINE) build

## lab-shell: a shell in the lab, with vector14 in the PATH
lab-shell:
	@$(LAB_COMMAND) $(LAB_MACHINE) shell

## lab-test: the integration tests in the lab, on stock KVM and on that of kvm/, with each engine; T=linux chooses by name
lab-test:
	@$(LAB_COMMAND) $(LAB_MACHINE) test $(T)

## lab-run: the demo in the lab, or another command: C="vector14 doctor"
lab-run:
	@$(LAB_COMMAND) $(LAB_MACHINE) run $(or $(C),vector14 demo)

## lab-boots: boot a Linux guest N times (100) without an engine and with each, and count how the boots end; GUEST=linux-6.12-cloud
lab-boots:
	@VECTOR14_LAB_TIMEOUT=$${VECTOR14_LAB_TIMEOUT:-12h} $(LAB_COMMAND) $(LAB_MACHINE) run boots $(or $(N),100) $(GUEST)

## lab-clean: remove the lab with its downloads
lab-clean:
	rm -rf $(or $(VECTOR14_LAB),target/lab)
