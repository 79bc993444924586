//! One guest page fault, as the CPU described it.

use std::fmt;

use crate::{Cr3, Va};

bitflags::bitflags! {
    /// The error code of a #PF (SDM vol. 3A, 4.7; APM vol. 2, 8.4.2).
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
    pub struct ErrorCode: u32 {
        /// P: the page was present, and an access right was missing. If clear, the page was not present.
        const PRESENT = 1 << 0;
        /// W: the access was a write.
        const WRITE = 1 << 1;
        /// U: the access came from CPL 3.
        const USER = 1 << 2;
        /// RSVD: a reserved bit was set in a paging-structure entry.
        const RESERVED = 1 << 3;
        /// I: the access was an instruction fetch.
        const FETCH = 1 << 4;
        /// PK: a protection key forbade the access.
        const PROTECTION_KEY = 1 << 5;
        /// SS: the access was to a shadow stack.
        const SHADOW_STACK = 1 << 6;
        /// Other bits are kept as the CPU pushed them.
        const _ = !0;
    }
}

impl ErrorCode {
    /// All bits that a CPU sets: the named ones and bit 15 (SGX).
    pub const DEFINED: Self = Self::from_bits_retain(0x807f);
}

/// Human-readable, for example `write, user, not present`.
impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let access = if self.contains(Self::FETCH) {
            "fetch"
        } else if self.contains(Self::WRITE) {
            "write"
        } else {
            "read"
        };
        let mode = if self.contains(Self::USER) { "user" } else { "kernel" };
        let cause = if self.contains(Self::RESERVED) {
            "reserved bit"
        } else if self.contains(Self::PROTECTION_KEY) {
            "protection key"
        } else if self.contains(Self::PRESENT) {
            "present"
        } else {
            "not present"
        };
        write!(f, "{access}, {mode}, {cause}")
    }
}

/// One guest #PF, with the context that it interrupted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fault {
    /// Number of the fault among all faults of this VM, from 0, in the order in which they reached the host.
    pub sequence: u64,
    /// The vCPU that faulted, from 0.
    pub vcpu: u32,
    /// The linear address whose access faulted (CR2).
    pub address: Va,
    /// The error code of the fault.
    pub error_code: ErrorCode,
    /// Selector of the interrupted code segment; its low two bits are the CPL.
    pub cs: u16,
    /// Address of the faulting instruction.
    pub rip: Va,
    /// Stack pointer of the interrupted context.
    pub rsp: Va,
    /// Selector of the interrupted stack segment.
    pub ss: u16,
    /// Flags of the interrupted context.
    pub rflags: u64,
    /// CR3 at the exit: the page tables that were in use.
    pub cr3: Cr3,
}

impl Fault {
    /// Whether the faulting instruction ran at CPL 3.
    #[must_use]
    pub const fn from_user(&self) -> bool {
        self.cs & 3 == 3
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn error_codes_read_as_words() {
        let read = |bits| ErrorCode::from_bits_retain(bits).to_string();
        assert_eq!(read(0), "read, kernel, not present");
        assert_eq!(read(7), "write, user, present");
        assert_eq!(read(0x15), "fetch, user, present");
        assert_eq!(read(9), "read, kernel, reserved bit");
        assert_eq!(read(0x8000_0006), "write, user, not present");
    }
}
