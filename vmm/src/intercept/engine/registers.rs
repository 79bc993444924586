//! Converts registers between KVM's form and the one that hooks see.

use kvm_bindings::{kvm_regs, kvm_sregs};
use vector14_hook::{Registers, SystemRegisters, Va};

/// RFLAGS.IF.
pub(super) const RFLAGS_IF: u64 = 1 << 9;
/// RFLAGS.RF: suppresses instruction breakpoints for one instruction. The CPU sets it in the RFLAGS that it pushes
/// for a fault, so that the restarted instruction does not hit its own breakpoint again (SDM vol. 3B, 18.3.1.1).
pub(super) const RFLAGS_RF: u64 = 1 << 16;

/// General registers as a hook sees them.
pub(super) fn from_kvm(regs: &kvm_regs) -> Registers {
    Registers {
        rax: regs.rax,
        rbx: regs.rbx,
        rcx: regs.rcx,
        rdx: regs.rdx,
        rsi: regs.rsi,
        rdi: regs.rdi,
        rbp: regs.rbp,
        rsp: regs.rsp,
        r8: regs.r8,
        r9: regs.r9,
        r10: regs.r10,
        r11: regs.r11,
        r12: regs.r12,
        r13: regs.r13,
        r14: regs.r14,
        r15: regs.r15,
        rip: regs.rip,
        rflags: regs.rflags,
    }
}

/// Converts back to KVM's form, except for the registers that an exception pushes: RIP, RSP and RFLAGS.
pub(super) fn set_general(regs: &mut kvm_regs, registers: &Registers) {
    regs.rax = registers.rax;
    regs.rbx = registers.rbx;
    regs.rcx = registers.rcx;
    regs.rdx = registers.rdx;
    regs.rsi = registers.rsi;
    regs.rdi = registers.rdi;
    regs.rbp = registers.rbp;
    regs.r8 = registers.r8;
    regs.r9 = registers.r9;
    regs.r10 = registers.r10;
    regs.r11 = registers.r11;
    regs.r12 = registers.r12;
    regs.r13 = registers.r13;
    regs.r14 = registers.r14;
    regs.r15 = registers.r15;
}

/// System registers as a hook sees them.
pub(super) fn system(sregs: &kvm_sregs) -> SystemRegisters {
    SystemRegisters {
        cr0: sregs.cr0,
        cr4: sregs.cr4,
        efer: sregs.efer,
        fs_base: Va(sregs.fs.base),
        gs_base: Va(sregs.gs.base),
    }
}
