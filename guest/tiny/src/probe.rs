//! Probes: single accesses that are meant to fault, from ring 3 or ring 0.
//!
//! Each sets [`Cpu::resume`](crate::cpu::Cpu) to the instruction after the access, and then makes the access. They use
//! general registers only, so that the same code serves both rings.

use core::arch::naked_asm;
use core::fmt;

use crate::cpu::RESUME;
use crate::ring0::{self, Function};

/// Length of the instruction that [`Ring::load`] faults on; `resume` points after it.
pub const LOAD_LENGTH: u64 = 3;

/// The code in a page that [`Ring::fetch`] jumps to: `jmp rax`.
pub const FETCH_TARGET: u64 = 0xe0ff;

/// The privilege level that an access is made from.
#[derive(Clone, Copy)]
pub enum Ring {
    Zero,
    Three,
}

impl fmt::Display for Ring {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(match self {
            Self::Zero => "0",
            Self::Three => "3",
        })
    }
}

impl Ring {
    /// Reads 8 bytes. Returns 0 if the read was abandoned.
    pub fn load(self, address: u64) -> u64 {
        self.run(load, address, 0)
    }

    /// Writes 8 bytes.
    pub fn store(self, address: u64, value: u64) {
        self.run(store, address, value);
    }

    /// Writes 8 bytes, by a locked read-modify-write instruction.
    pub fn exchange(self, address: u64, value: u64) -> u64 {
        self.run(exchange, address, value)
    }

    /// Jumps to `address`, where [`FETCH_TARGET`] jumps back. Returns 0 if the jump was abandoned.
    pub fn fetch(self, address: u64) -> u64 {
        self.run(fetch, address, 0)
    }

    /// Copies 8 bytes with one instruction.
    pub fn copy(self, from: u64, to: u64) {
        self.run(copy, from, to);
    }

    /// The U bit of the page-fault error code for an access from this ring.
    pub fn user_bit(self) -> u64 {
        match self {
            Self::Zero => 0,
            Self::Three => 1 << 2,
        }
    }

    /// Calls `function` in this ring.
    pub fn run(self, function: Function, first: u64, second: u64) -> u64 {
        match self {
            Self::Zero => ring0::call(function, first, second),
            // SAFETY: a function that ring 0 can call, ring 3 can call: it lies in user-accessible memory.
            Self::Three => unsafe { function(first, second) },
        }
    }
}

/// A naked function that sets `resume` to its label 2, then runs the instructions given.
macro_rules! probe {
    ($name:ident, $($instruction:literal),+) => {
        #[unsafe(naked)]
        #[unsafe(link_section = ".ring0")]
        unsafe extern "C" fn $name(_first: u64, _second: u64) -> u64 {
            naked_asm!("lea rax, [rip + 2f]", "mov gs:[{resume}], rax", $($instruction,)+ "ret", resume = const RESUME)
        }
    };
}

probe!(load, "xor eax, eax", "mov rax, [rdi]", "2:");
probe!(store, "mov [rdi], rsi", "2:");
probe!(exchange, "lock xadd [rdi], rsi", "2:", "mov rax, rsi");
probe!(fetch, "xor edx, edx", "lea rax, [rip + 3f]", "jmp rdi", "3: inc edx", "2: mov eax, edx");
probe!(copy, "xchg rdi, rsi", "movsq", "2:");
