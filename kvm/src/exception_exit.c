// SPDX-License-Identifier: GPL-2.0-only
/*
 * Exits to user space for guest exceptions (KVM_CAP_X86_EXCEPTION_EXIT).
 *
 * User space names the #PFs that it wants to see.  Such a fault is not
 * delivered: KVM_RUN returns with KVM_EXIT_EXCEPTION, the guest stands at the
 * faulting instruction, and CR2 has the address for user space to read.  User
 * space then queues the #PF, or another event, or nothing, and the next KVM_RUN
 * goes on with that.
 *
 * A #PF comes here in one of two ways:
 *
 *  - With nested paging, hardware delivers #PFs without KVM's knowledge.  The
 *    vendor modules intercept them as long as a filter is set, and pass what
 *    they intercept to kvm_exception_exit_intercepted().
 *
 *  - Where KVM itself finds that the guest has to get a #PF (shadow paging,
 *    the emulator), it comes by kvm_inject_page_fault(), deep inside of what
 *    found it.  kvm_exception_exit_queue() keeps it; a request takes the vCPU
 *    out before it enters the guest again.  The fault may be forgotten in
 *    between, as a fault always may: the instruction has not been completed,
 *    and faults again when it is restarted.
 *
 * An event whose delivery has caused the fault is not touched: it has been
 * requeued for injection by the time that a #PF comes here, and user space
 * finds it among the vCPU's events.
 *
 * L2's faults are L1's or L2's own, and never exit.
 */
#include <linux/kvm_host.h>

#include "exception_exit.h"
#include "kvm_emulate.h"
#include "x86.h"

/* KVM_ENABLE_CAP: args[0] are the vectors, args[1] mask and match for #PF. */
int kvm_exception_exit_enable(struct kvm *kvm, const struct kvm_enable_cap *cap)
{
	u64 filter = KVM_EXCEPTION_EXIT_NONE;

	if (cap->args[0] & ~KVM_EXCEPTION_EXIT_VALID_MASK)
		return -EINVAL;
	if (cap->args[2] || cap->args[3])
		return -EINVAL;
	if (cap->args[0] & BIT(PF_VECTOR))
		filter = cap->args[1];

	/*
	 * vCPUs become visible under the lock, too: a vCPU that this does not
	 * reach yet sees the new filter when it serves the request that
	 * kvm_arch_vcpu_postcreate() makes.
	 */
	mutex_lock(&kvm->lock);
	WRITE_ONCE(kvm->arch.exception_exit.pf, filter);
	kvm_make_all_cpus_request(kvm, KVM_REQ_EXCEPTION_EXIT_UPDATE);
	mutex_unlock(&kvm->lock);
	return 0;
}

static bool wanted(struct kvm_vcpu *vcpu, u32 error_code)
{
	u64 filter = kvm_exception_exit_pf(vcpu);

	return !is_guest_mode(vcpu) &&
	       (error_code & lower_32_bits(filter)) == upper_32_bits(filter);
}

/*
 * Whether user space has queued the fault: as the #PF that it was, or as the
 * #DF that it makes of another event.  A #PF that was there before is the
 * other event.
 */
static bool queued(const struct kvm_vcpu *vcpu)
{
	const struct kvm_queued_exception *ex = &vcpu->arch.exception;

	if (!ex->injected && !ex->pending)
		return false;
	if (ex->vector == PF_VECTOR)
		return !vcpu->arch.exception_exit.vectoring_pf;
	return ex->vector == DF_VECTOR;
}

/*
 * The guest must not learn of a fault that it was never shown: it gets its CR2
 * back, unless the fault is what it gets or user space has written CR2.
 */
static int complete_exception_exit(struct kvm_vcpu *vcpu)
{
	const struct kvm_vcpu_exception_exit *exit = &vcpu->arch.exception_exit;

	if (vcpu->arch.cr2 == exit->address && !queued(vcpu))
		vcpu->arch.cr2 = exit->cr2;
	return 1;
}

static void prepare_exception_exit(struct kvm_vcpu *vcpu)
{
	struct kvm_vcpu_exception_exit *exit = &vcpu->arch.exception_exit;
	const struct kvm_queued_exception *ex = &vcpu->arch.exception;
	struct kvm_run *run = vcpu->run;
	unsigned long rflags;

	exit->vectoring_pf = ex->injected && ex->vector == PF_VECTOR;
	exit->cr2 = vcpu->arch.cr2;
	vcpu->arch.cr2 = exit->address;

	/* RFLAGS as a fault pushes it; VMX has done that, SVM has not. */
	rflags = static_call(kvm_x86_get_rflags)(vcpu);
	static_call(kvm_x86_set_rflags)(vcpu, rflags | X86_EFLAGS_RF);

	run->exit_reason = KVM_EXIT_EXCEPTION;
	run->ex.exception = PF_VECTOR;
	run->ex.error_code = exit->error_code;
	vcpu->arch.complete_userspace_io = complete_exception_exit;
}

/*
 * A #PF that hardware has intercepted while nested paging is on, so that it is
 * certain to be the guest's own.  Returns what an exit handler returns: 0 to
 * leave for user space, 1 to go on with the guest.
 */
int kvm_exception_exit_intercepted(struct kvm_vcpu *vcpu, unsigned long address,
				   u32 error_code)
{
	if (!wanted(vcpu, error_code)) {
		/* CR2 changes even if the #PF becomes a #DF. */
		vcpu->arch.cr2 = address;
		kvm_queue_exception_e(vcpu, PF_VECTOR, error_code);
		return 1;
	}

	vcpu->arch.exception_exit.address = address;
	vcpu->arch.exception_exit.error_code = error_code;
	prepare_exception_exit(vcpu);
	return 0;
}
EXPORT_SYMBOL_GPL(kvm_exception_exit_intercepted);

/*
 * A #PF that KVM is about to inject.  Returns whether it was taken, and is not
 * to be injected.  Those that tell the guest of absent host pages are KVM's.
 */
bool kvm_exception_exit_queue(struct kvm_vcpu *vcpu,
			      const struct x86_exception *fault)
{
	if (fault->async_page_fault || !wanted(vcpu, fault->error_code))
		return false;

	vcpu->arch.exception_exit.address = fault->address;
	vcpu->arch.exception_exit.error_code = fault->error_code;
	kvm_make_request(KVM_REQ_EXCEPTION_EXIT, vcpu);
	return true;
}

/* Serves the requests.  Returns whether the vCPU has to leave for user space. */
bool kvm_exception_exit_requested(struct kvm_vcpu *vcpu)
{
	if (kvm_check_request(KVM_REQ_EXCEPTION_EXIT_UPDATE, vcpu)) {
		static_call(kvm_x86_update_exception_bitmap)(vcpu);
		vcpu->arch.exception_exit.stale = is_guest_mode(vcpu);
	}

	if (!kvm_check_request(KVM_REQ_EXCEPTION_EXIT, vcpu))
		return false;

	prepare_exception_exit(vcpu);
	return true;
}
