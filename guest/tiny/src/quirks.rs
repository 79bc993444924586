//! Where QEMU's software emulation differs from a CPU. The interceptor's tests also run there, and the guest then
//! expects what the emulation does.

use crate::ring0;

/// Whether QEMU emulates the CPU: its brand string begins with "QEMU" (CPUID leaf 0x8000_0002).
pub fn emulated_by_qemu() -> bool {
    ring0::cpuid(0x8000_0002).eax == u32::from_le_bytes(*b"QEMU")
}

/// P in the error code of a reserved-bit violation: QEMU leaves it clear, where a CPU sets it (SDM vol. 3A, 4.7).
pub fn reserved_bit_error(error: u64) -> u64 {
    const P: u64 = 1 << 0;
    const RSVD: u64 = 1 << 3;
    if error & RSVD != 0 && emulated_by_qemu() { error & !P } else { error }
}

/// W in the error code of an exchange with an absent page: QEMU reads first, and reports a read.
pub fn exchange_error(error: u64) -> u64 {
    const W: u64 = 1 << 1;
    if emulated_by_qemu() { error & !W } else { error }
}
