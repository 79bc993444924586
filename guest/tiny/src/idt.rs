//! The interrupt descriptor table (SDM vol. 3A, 6.14).

use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::gdt::KERNEL_CODE;
use crate::ring0;

/// The vector of #UD.
pub const INVALID_OPCODE: usize = 6;
/// The vector of #GP.
pub const GENERAL_PROTECTION: usize = 13;
/// The vector of #PF.
pub const PAGE_FAULT: usize = 14;

/// Exception vectors.
pub const VECTORS: usize = 32;
/// Limit of an [`Idt`].
pub const LIMIT: u16 = (size_of::<Idt>() - 1) as u16;

/// The table that the guest boots with.
pub static IDT: Idt = Idt::new();

/// A table of gates, on a page of its own, as Linux's is.
#[repr(C, align(4096))]
pub struct Idt([Gate; VECTORS]);

/// A gate: the address and stack of a vector's handler.
#[repr(C)]
pub struct Gate {
    low: AtomicU64,
    high: AtomicU64,
}

/// The 16 bytes of a gate.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct GateBytes {
    low: u64,
    high: u64,
}

impl Idt {
    /// A table of absent gates.
    pub const fn new() -> Self {
        Self([const { Gate { low: AtomicU64::new(0), high: AtomicU64::new(0) } }; VECTORS])
    }

    /// Its address.
    #[inline(always)]
    pub fn address(&self) -> u64 {
        self as *const Self as u64
    }

    /// The gate of `vector`.
    #[inline(always)]
    pub fn gate(&self, vector: usize) -> &Gate {
        // SAFETY: every caller names an exception vector. No bounds check: ring 0 cannot panic.
        unsafe { self.0.get_unchecked(vector) }
    }

    /// Copies all gates from `other`.
    pub fn copy(&self, other: &Self) {
        for (to, from) in self.0.iter().zip(&other.0) {
            to.write(from.read());
        }
    }

    /// Makes this the IDT of the CPU that this runs on.
    pub fn load(&'static self) {
        ring0::load_idt(self.address(), LIMIT);
    }
}

impl Gate {
    /// Points the gate at `handler`: a present 64-bit interrupt gate of DPL 0, without IST.
    #[inline(always)]
    pub fn set(&self, handler: u64) {
        const PRESENT_INTERRUPT_GATE: u64 = 0x8e << 40;
        self.high.store(handler >> 32, Relaxed);
        let low = handler & 0xffff | KERNEL_CODE << 16 | PRESENT_INTERRUPT_GATE | (handler >> 16 & 0xffff) << 48;
        self.low.store(low, Relaxed);
    }

    /// Makes its handler run on the stack IST 1 of the TSS.
    pub fn set_ist1(&self) {
        self.low.fetch_or(1 << 32, Relaxed);
    }

    /// The address of its handler.
    pub fn handler(&self) -> u64 {
        let GateBytes { low, high } = self.read();
        low & 0xffff | (low >> 48) << 16 | high << 32
    }

    /// Clears its present bit.
    pub fn remove(&self) {
        self.low.fetch_and(!(1 << 47), Relaxed);
    }

    /// Flips bits of its first 8 bytes: bits 34:32 are the stack, 31:16 the segment.
    pub fn change_low(&self, bits: u64) {
        self.low.fetch_xor(bits, Relaxed);
    }

    /// Reads its bytes.
    pub fn read(&self) -> GateBytes {
        GateBytes { low: self.low.load(Relaxed), high: self.high.load(Relaxed) }
    }

    /// Writes its bytes.
    pub fn write(&self, bytes: GateBytes) {
        self.high.store(bytes.high, Relaxed);
        self.low.store(bytes.low, Relaxed);
    }
}
