//! The accesses of a faulting instruction: who makes them, where and how. They follow from the instruction at RIP and
//! the registers alone.

use std::fmt;

use iced_x86::{Instruction, InstructionInfoFactory, OpAccess, Register, UsedMemory};
use vector14_hook::{Fault, Guest, PAGE_SIZE, Registers, Va};

use crate::harness::emulated_by_qemu;

/// How memory is accessed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    Read,
    Write,
    Fetch,
}

/// Who makes an access.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    /// An instruction of user code.
    User,
    /// An instruction of the kernel. If RFLAGS.AC is set, it may access user pages in spite of SMAP.
    Kernel { ac: bool },
    /// The CPU itself, to read a descriptor table or push a frame.
    Cpu,
}

/// An access that an instruction makes.
#[derive(Clone, Debug)]
pub struct Access {
    start: u64,
    /// In bytes; 0 if the instruction alone does not determine it.
    size: u64,
    /// In the order in which the CPU checks them.
    pub ways: &'static [Way],
    pub by: By,
}

impl Access {
    /// Whether the access covers `address`.
    pub fn touches(&self, address: Va) -> bool {
        // The largest access of undetermined size is XSAVE's, of less than a page and a half.
        let size = if self.size == 0 { PAGE_SIZE * 2 } else { self.size };
        address.0.wrapping_sub(self.start) < size
    }
}

impl fmt::Display for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} of {} bytes at {:#x} by {:?}", self.ways, self.size, self.start, self.by)
    }
}

/// All accesses of the instruction that faulted, including its fetch.
pub fn of_instruction(fault: &Fault, guest: &dyn Guest) -> Vec<Access> {
    const RFLAGS_AC: u64 = 1 << 18;
    let by = if fault.from_user() { By::User } else { By::Kernel { ac: fault.rflags & RFLAGS_AC != 0 } };
    let instruction = guest.instruction().ok();
    // An instruction that can't be decoded may have any length up to the maximum.
    let length = instruction.map_or(15, |instruction| instruction.len() as u64);
    let mut accesses = vec![Access { start: fault.rip.0, size: length, ways: &[Way::Fetch], by }];
    accesses.extend(instruction.iter().flat_map(|instruction| of_operands(instruction, guest, by)));
    accesses
}

fn of_operands(instruction: &Instruction, guest: &dyn Guest, by: By) -> Vec<Access> {
    let mut factory = InstructionInfoFactory::new();
    let used = factory.info(instruction).used_memory();
    used.iter().filter_map(|memory| of_operand(memory, guest, by)).collect()
}

fn of_operand(memory: &UsedMemory, guest: &dyn Guest, by: By) -> Option<Access> {
    let size = memory.memory_size().size() as u64;
    let ways: &[Way] = match memory.access() {
        OpAccess::Read | OpAccess::CondRead => &[Way::Read],
        OpAccess::Write | OpAccess::CondWrite => &[Way::Write],
        // A CPU checks both at once. QEMU reads first (guest/tiny/src/quirks.rs), except for XSAVE, whose size is 0.
        OpAccess::ReadWrite | OpAccess::ReadCondWrite if emulated_by_qemu() && size > 0 => &[Way::Read, Way::Write],
        OpAccess::ReadWrite | OpAccess::ReadCondWrite => &[Way::Write],
        OpAccess::None | OpAccess::NoMemAccess => return None,
    };
    let start = memory.virtual_address(0, |register, _, _| value(register, guest))?;
    Some(Access { start, size, ways, by })
}

/// The value of a register as part of an address. The base of a flat segment is 0.
fn value(register: Register, guest: &dyn Guest) -> Option<u64> {
    let (registers, system) = (guest.registers(), guest.system_registers());
    Some(match register {
        Register::CS | Register::DS | Register::ES | Register::SS => 0,
        Register::FS => system.fs_base.0,
        Register::GS => system.gs_base.0,
        _ => {
            let whole = general(register.full_register(), registers)?;
            match register.size() {
                8 => whole,
                size => whole & ((1 << (8 * size)) - 1),
            }
        }
    })
}

fn general(register: Register, registers: &Registers) -> Option<u64> {
    Some(match register {
        Register::RAX => registers.rax,
        Register::RBX => registers.rbx,
        Register::RCX => registers.rcx,
        Register::RDX => registers.rdx,
        Register::RSI => registers.rsi,
        Register::RDI => registers.rdi,
        Register::RBP => registers.rbp,
        Register::RSP => registers.rsp,
        Register::R8 => registers.r8,
        Register::R9 => registers.r9,
        Register::R10 => registers.r10,
        Register::R11 => registers.r11,
        Register::R12 => registers.r12,
        Register::R13 => registers.r13,
        Register::R14 => registers.r14,
        Register::R15 => registers.r15,
        _ => return None,
    })
}
