//! Emulates a faulting instruction, so that it can be skipped: the common move and arithmetic instructions of 64-bit
//! code with one memory operand of 1 to 8 bytes, inside one page. No other instruction is emulated.
//!
//! - this file: the supported instructions, and their operands
//! - `arithmetic`: results and flags
//! - `registers`: access to registers by operand name

mod arithmetic;
mod registers;

use iced_x86::{Instruction, Mnemonic, OpKind, Register};
use vector14_hook::{Guest, GuestError, PAGE_SIZE, Pa, Registers, Va};

use arithmetic::{Arithmetic, Width};

/// RFLAGS.TF: a debug exception follows each instruction, but would not follow a skipped one (SDM vol. 3B, 18.3.1.4).
const RFLAGS_TF: u64 = 1 << 8;

/// An instruction's effect on memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Effect {
    /// Size of the operand, in bytes.
    pub(crate) size: usize,
    /// The value that was read.
    pub(crate) read: Option<u64>,
    /// The value that was written.
    pub(crate) written: Option<u64>,
}

/// Emulates `instruction`, which faulted at `address`: changes memory at `place`, and registers except RIP, which
/// `Skip` advances. Returns `None` if the instruction is not supported; then nothing has changed.
pub(crate) fn emulate(
    instruction: &Instruction,
    address: Va,
    place: Pa,
    guest: &mut dyn Guest,
) -> Result<Option<Effect>, GuestError> {
    let Some(Plan { operation, width }) = Plan::of(instruction) else { return Ok(None) };
    if guest.registers().rflags & RFLAGS_TF != 0 || !is_at(instruction, address, width, guest) {
        return Ok(None);
    }
    let mut bytes = [0; 8];
    let read = if operation.reads() {
        guest.read_physical(place, &mut bytes[..width.bytes()])?;
        Some(u64::from_le_bytes(bytes))
    } else {
        None
    };
    let Done { store, registers } = operation.run(read.unwrap_or(0), width, guest.registers());
    if let Some(value) = store {
        guest.write_physical(place, &value.to_le_bytes()[..width.bytes()])?;
    }
    *guest.registers_mut() = registers;
    Ok(Some(Effect { size: width.bytes(), read, written: store }))
}

/// Whether the memory operand lies in one page, and is the access that faulted at `address`.
fn is_at(instruction: &Instruction, address: Va, width: Width, guest: &dyn Guest) -> bool {
    let base = |register| match register {
        Register::FS => guest.system_registers().fs_base.0,
        Register::GS => guest.system_registers().gs_base.0,
        // These segments have base 0 in 64-bit mode.
        _ => 0,
    };
    let value = |register: Register, _, _| {
        if register.is_segment_register() {
            Some(base(register))
        } else {
            registers::value(guest.registers(), register)
        }
    };
    let operand = (0..2).find(|operand| instruction.op_kind(*operand) == OpKind::Memory);
    address.page_offset() + width.bytes() as u64 <= PAGE_SIZE
        && operand.and_then(|operand| instruction.virtual_address(operand, 0, value)) == Some(address.0)
}

/// The operation, and the size of the memory operand.
struct Plan {
    operation: Operation,
    width: Width,
}

/// The value of an operand that is not memory.
#[derive(Clone, Copy)]
enum Source {
    Register(Register),
    Immediate(u64),
}

enum Operation {
    /// Loads memory into a register, extended to the register's size.
    Load { to: Register, signed: bool },
    /// Stores a register or an immediate to memory.
    Store { from: Source },
    /// Combines memory with another operand, into memory; `Cmp` and `Test` write no result.
    IntoMemory { arithmetic: Arithmetic, with: Source },
    /// Combines a register with memory, into the register; `Cmp` writes no result.
    IntoRegister { arithmetic: Arithmetic, register: Register },
}

struct Done {
    store: Option<u64>,
    registers: Registers,
}

impl Plan {
    fn of(instruction: &Instruction) -> Option<Self> {
        let plain = !instruction.has_lock_prefix() && !instruction.has_rep_prefix() && !instruction.has_repne_prefix();
        let width = Width::of_bytes(instruction.memory_size().size())?;
        let operation =
            Self::operation(instruction).filter(|_| plain && instruction.code_size() == iced_x86::CodeSize::Code64)?;
        Some(Self { operation, width })
    }

    fn operation(instruction: &Instruction) -> Option<Operation> {
        let arithmetic = Arithmetic::of(instruction.mnemonic());
        match (instruction.op0_kind(), instruction.op_count()) {
            (OpKind::Memory, 1) => Some(Operation::IntoMemory { arithmetic: arithmetic?, with: Source::Immediate(1) }),
            (OpKind::Memory, 2) => {
                let from = source(instruction)?;
                Some(match instruction.mnemonic() {
                    Mnemonic::Mov => Operation::Store { from },
                    _ => Operation::IntoMemory { arithmetic: arithmetic?, with: from },
                })
            }
            (OpKind::Register, 2) if instruction.op1_kind() == OpKind::Memory => {
                let to = instruction.op0_register();
                if !to.is_gpr() {
                    return None;
                }
                Some(match instruction.mnemonic() {
                    Mnemonic::Mov | Mnemonic::Movzx => Operation::Load { to, signed: false },
                    Mnemonic::Movsx | Mnemonic::Movsxd => Operation::Load { to, signed: true },
                    _ => Operation::IntoRegister { arithmetic: arithmetic?, register: to },
                })
            }
            _ => None,
        }
    }
}

/// The second operand, if it is a general register or an immediate.
fn source(instruction: &Instruction) -> Option<Source> {
    match instruction.op1_kind() {
        OpKind::Register => {
            let register = instruction.op1_register();
            register.is_gpr().then_some(Source::Register(register))
        }
        OpKind::Memory => None,
        _ => instruction.try_immediate(1).ok().map(Source::Immediate),
    }
}

impl Source {
    fn value(self, registers: &Registers) -> u64 {
        match self {
            Self::Register(register) => registers::value(registers, register).unwrap_or(0),
            Self::Immediate(value) => value,
        }
    }
}

impl Operation {
    fn reads(&self) -> bool {
        match self {
            Self::Store { .. } => false,
            Self::Load { .. } | Self::IntoMemory { .. } | Self::IntoRegister { .. } => true,
        }
    }

    fn run(&self, memory: u64, width: Width, before: &Registers) -> Done {
        let mut registers = *before;
        let store = match *self {
            Self::Load { to, signed } => {
                let value = if signed { width.sign_extend(memory) } else { memory };
                registers::set(&mut registers, to, value);
                None
            }
            Self::Store { from } => Some(width.cut(from.value(before))),
            Self::IntoMemory { arithmetic, with } => {
                arithmetic.run(width, memory, with.value(before), &mut registers.rflags)
            }
            Self::IntoRegister { arithmetic, register } => {
                let old = registers::value(before, register).unwrap_or(0);
                if let Some(value) = arithmetic.run(width, old, memory, &mut registers.rflags) {
                    registers::set(&mut registers, register, value);
                }
                None
            }
        };
        Done { store, registers }
    }
}

#[cfg(test)]
mod tests;
