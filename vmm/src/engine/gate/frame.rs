//! What the CPU pushed on the way through gate 14, and the fault that it tells of.

use kvm_bindings::kvm_regs;
use vector14_hook::{ErrorCode, Fault, GuestError, Registers, Va};

use crate::guest::{read_virtual, write_virtual};
use crate::memory::Memory;
use crate::walk::Paging;

/// The frame of an exception with an error code, in 64-bit mode (SDM vol. 3A, 6.14.2; APM vol. 2, 8.9.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Frame {
    /// Where it is: RSP at the handler's entry.
    pub(super) at: Va,
    pub(super) error_code: u64,
    pub(super) rip: u64,
    cs: u64,
    pub(super) rflags: u64,
    rsp: u64,
    ss: u64,
}

const WORDS: usize = 6;

impl Frame {
    /// Reads the frame at `at`.
    pub(super) fn read(memory: &Memory, paging: &Paging, at: Va) -> Result<Self, GuestError> {
        let mut bytes = [0; 8 * WORDS];
        read_virtual(memory, paging, at, &mut bytes)?;
        let mut words = [0; WORDS];
        for (word, bytes) in words.iter_mut().zip(bytes.as_chunks::<8>().0) {
            *word = u64::from_le_bytes(*bytes);
        }
        let [error_code, rip, cs, rflags, rsp, ss] = words;
        Ok(Self { at, error_code, rip, cs, rflags, rsp, ss })
    }

    /// Writes it back to where it was read from.
    pub(super) fn write(&self, memory: &Memory, paging: &Paging) -> Result<(), GuestError> {
        let mut bytes = [0; 8 * WORDS];
        let words = [self.error_code, self.rip, self.cs, self.rflags, self.rsp, self.ss];
        for (bytes, word) in bytes.as_chunks_mut::<8>().0.iter_mut().zip(words) {
            *bytes = word.to_le_bytes();
        }
        write_virtual(memory, paging, self.at, &bytes)
    }

    /// The fault that it tells of. Selectors and the error code are as wide as the CPU makes them; what else is in
    /// their words is padding.
    #[expect(clippy::cast_possible_truncation, reason = "the upper bits of these words are padding")]
    pub(super) fn fault(&self, sequence: u64, vcpu: u32, address: Va, paging: &Paging) -> Fault {
        Fault {
            sequence,
            vcpu,
            address,
            error_code: ErrorCode::from_bits_retain(self.error_code as u32),
            cs: self.cs as u16,
            rip: Va(self.rip),
            rsp: Va(self.rsp),
            ss: self.ss as u16,
            rflags: self.rflags,
            cr3: paging.cr3,
        }
    }

    /// Registers of the interrupted context: the stub has changed none, and the CPU only those that it pushed.
    pub(super) fn interrupted(&self, regs: &kvm_regs) -> Registers {
        Registers {
            rax: regs.rax,
            rbx: regs.rbx,
            rcx: regs.rcx,
            rdx: regs.rdx,
            rsi: regs.rsi,
            rdi: regs.rdi,
            rbp: regs.rbp,
            rsp: self.rsp,
            r8: regs.r8,
            r9: regs.r9,
            r10: regs.r10,
            r11: regs.r11,
            r12: regs.r12,
            r13: regs.r13,
            r14: regs.r14,
            r15: regs.r15,
            rip: self.rip,
            rflags: self.rflags,
        }
    }

    /// Takes the pushed registers over from `registers`.
    pub(super) fn set_interrupted(&mut self, registers: &Registers) {
        (self.rip, self.rsp, self.rflags) = (registers.rip, registers.rsp, registers.rflags);
    }

    /// Selector of the interrupted code segment.
    #[expect(clippy::cast_possible_truncation, reason = "the upper bits of the word are padding")]
    pub(super) fn cs(&self) -> u16 {
        self.cs as u16
    }
}

/// Takes the registers that the CPU did not push over into `regs`.
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
