/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Exits to user space for guest exceptions (KVM_CAP_X86_EXCEPTION_EXIT).
 * See exception_exit.c.
 */
#ifndef __KVM_X86_EXCEPTION_EXIT_H
#define __KVM_X86_EXCEPTION_EXIT_H

#include <linux/kvm_host.h>

/* Far from the numbers that upstream gives out one after the other. */
#define KVM_CAP_X86_EXCEPTION_EXIT	0x7614

/* The vectors whose exits user space can ask for. */
#define KVM_EXCEPTION_EXIT_VALID_MASK	BIT(PF_VECTOR)

/* Counted from the end, for the same reason. */
#define KVM_REQ_EXCEPTION_EXIT		KVM_ARCH_REQ(55)
#define KVM_REQ_EXCEPTION_EXIT_UPDATE \
	KVM_ARCH_REQ_FLAGS(54, KVM_REQUEST_WAIT | KVM_REQUEST_NO_WAKEUP)

int kvm_exception_exit_enable(struct kvm *kvm, const struct kvm_enable_cap *cap);
bool kvm_exception_exit_requested(struct kvm_vcpu *vcpu);
bool kvm_exception_exit_queue(struct kvm_vcpu *vcpu,
			      const struct x86_exception *fault);
int kvm_exception_exit_intercepted(struct kvm_vcpu *vcpu, unsigned long address,
				   u32 error_code);

static inline void kvm_exception_exit_init_vm(struct kvm *kvm)
{
	kvm->arch.exception_exit.pf = KVM_EXCEPTION_EXIT_NONE;
}

/* The vCPU goes elsewhere: its instruction faults again if it ever runs. */
static inline void kvm_exception_exit_forget(struct kvm_vcpu *vcpu)
{
	kvm_clear_request(KVM_REQ_EXCEPTION_EXIT, vcpu);
}

static inline u64 kvm_exception_exit_pf(const struct kvm_vcpu *vcpu)
{
	return READ_ONCE(vcpu->kvm->arch.exception_exit.pf);
}

/* Whether hardware has to intercept #PF: whether any can meet the filter. */
static inline bool kvm_exception_exit_wants_pf(const struct kvm_vcpu *vcpu)
{
	u64 filter = kvm_exception_exit_pf(vcpu);

	return !(upper_32_bits(filter) & ~lower_32_bits(filter));
}

/*
 * Adds the filter to what VMX is told for L1: the exception bitmap, and mask
 * and match of #PF error codes.  With bit 14 of the bitmap set, a #PF exits if
 * (error code & mask) == match, and with the bit clear, if not (SDM vol. 3C,
 * 25.2): KVM keeps mask and match 0 for "none".  Where KVM wants some #PFs for
 * itself, the two wishes have no common mask: all #PFs exit then, and software
 * sorts them.
 */
static inline void kvm_exception_exit_vmx(const struct kvm_vcpu *vcpu, u32 *eb,
					  int *mask, int *match)
{
	u64 filter = kvm_exception_exit_pf(vcpu);
	bool taken = *eb & BIT(PF_VECTOR);

	if (!kvm_exception_exit_wants_pf(vcpu))
		return;

	*eb |= BIT(PF_VECTOR);
	*mask = taken ? 0 : lower_32_bits(filter);
	*match = taken ? 0 : upper_32_bits(filter);
}

/* Like load_eoi_exitmap_pending: what has waited for L1's controls. */
static inline void kvm_exception_exit_leave_l2(struct kvm_vcpu *vcpu)
{
	if (vcpu->arch.exception_exit.stale) {
		vcpu->arch.exception_exit.stale = false;
		kvm_make_request(KVM_REQ_EXCEPTION_EXIT_UPDATE, vcpu);
	}
}

#endif /* __KVM_X86_EXCEPTION_EXIT_H */
