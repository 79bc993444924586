//! How a kernel is entered.

use kvm_bindings::{kvm_regs, kvm_sregs};
use vector14_hook::{GuestError, Pa};

use super::{long_mode, protected_mode};
use crate::machine::memory::Memory;

/// How a kernel is entered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Entry {
    /// In long mode, with the lowest 4 GiB identity-mapped (Linux, Documentation/arch/x86/boot.rst, "64-bit Boot
    /// Protocol").
    LongMode {
        /// The entry point, for RIP.
        rip: Pa,
        /// Address of `struct boot_params`, for RSI.
        boot_params: Pa,
    },
    /// In 32-bit protected mode, without paging (Multiboot Specification 0.6.96, 3.2).
    ProtectedMode {
        /// The entry point, for EIP; below 4 GiB.
        eip: Pa,
        /// Address of the boot information, for EBX; below 4 GiB.
        info: Pa,
    },
}

impl Entry {
    /// Writes the descriptor and page tables that the entry needs into low memory.
    ///
    /// # Errors
    /// Memory ends before the end of [`layout::LONG_MODE`](super::layout::LONG_MODE).
    pub(crate) fn prepare_memory(self, memory: &Memory) -> Result<(), GuestError> {
        match self {
            Self::LongMode { .. } => long_mode::prepare_memory(memory),
            Self::ProtectedMode { .. } => protected_mode::prepare_memory(memory),
        }
    }

    /// Registers of the vCPU that enters the kernel; `sregs` are its system registers after reset.
    pub(crate) fn registers(self, sregs: kvm_sregs) -> (kvm_regs, kvm_sregs) {
        match self {
            Self::LongMode { rip, boot_params } => long_mode::registers(rip, boot_params, sregs),
            Self::ProtectedMode { eip, info } => protected_mode::registers(eip, info, sregs),
        }
    }
}
