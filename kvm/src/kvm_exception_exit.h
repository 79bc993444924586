/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Exits to user space for guest exceptions: what struct kvm_arch and struct
 * kvm_vcpu_arch hold of it.  Becomes <asm/kvm_exception_exit.h>.
 */
#ifndef _ASM_X86_KVM_EXCEPTION_EXIT_H
#define _ASM_X86_KVM_EXCEPTION_EXIT_H

#include <linux/bits.h>
#include <linux/types.h>

/**
 * struct kvm_exception_exit - what a VM's user space has asked for
 * @pf: which #PFs exit: those with (error code & @pf[31:0]) == @pf[63:32].
 *	KVM_EXCEPTION_EXIT_NONE, the one filter that is never met, is "none".
 *
 * Written with kvm->lock held, read by vCPUs without it: one word, so that a
 * vCPU can't see half of a change.
 */
struct kvm_exception_exit {
	u64 pf;
};

#define KVM_EXCEPTION_EXIT_NONE	BIT_ULL(32)

/**
 * struct kvm_vcpu_exception_exit - a vCPU's fault on its way to user space
 * @address: where the guest faulted; in CR2 while user space looks at it
 * @error_code: as the guest's handler would find it on its stack
 * @cr2: the guest's CR2, which the fault has not reached yet
 * @vectoring_pf: the fault came up while another #PF was being delivered
 * @stale: the filter changed while L2 ran; L1's controls have to follow
 */
struct kvm_vcpu_exception_exit {
	unsigned long address;
	u32 error_code;
	unsigned long cr2;
	bool vectoring_pf;
	bool stale;
};

#endif /* _ASM_X86_KVM_EXCEPTION_EXIT_H */
