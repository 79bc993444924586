//! Access to general registers, and their parts, by the names in instructions (SDM vol. 1, 3.4.1.1).

use iced_x86::Register;
use vector14_hook::Registers;

/// The value of `register`; `None` if it is not a general register.
pub(super) fn value(registers: &Registers, register: Register) -> Option<u64> {
    let mut copy = *registers;
    let whole = *whole(&mut copy, register)?;
    Some(match register.size() {
        1 if is_high_byte(register) => whole >> 8 & 0xff,
        1 => whole & 0xff,
        2 => whole & 0xffff,
        4 => whole & 0xffff_ffff,
        _ => whole,
    })
}

/// Writes `register` as an instruction does: a 32-bit write clears the upper half, 8- and 16-bit writes leave the rest
/// alone.
pub(super) fn set(registers: &mut Registers, register: Register, value: u64) {
    let Some(whole) = whole(registers, register) else { return };
    *whole = match register.size() {
        1 if is_high_byte(register) => (*whole & !0xff00) | (value & 0xff) << 8,
        1 => (*whole & !0xff) | value & 0xff,
        2 => (*whole & !0xffff) | value & 0xffff,
        4 => value & 0xffff_ffff,
        _ => value,
    };
}

fn is_high_byte(register: Register) -> bool {
    matches!(register, Register::AH | Register::BH | Register::CH | Register::DH)
}

fn whole(registers: &mut Registers, register: Register) -> Option<&mut u64> {
    Some(match register.full_register() {
        Register::RAX => &mut registers.rax,
        Register::RBX => &mut registers.rbx,
        Register::RCX => &mut registers.rcx,
        Register::RDX => &mut registers.rdx,
        Register::RSI => &mut registers.rsi,
        Register::RDI => &mut registers.rdi,
        Register::RBP => &mut registers.rbp,
        Register::RSP => &mut registers.rsp,
        Register::R8 => &mut registers.r8,
        Register::R9 => &mut registers.r9,
        Register::R10 => &mut registers.r10,
        Register::R11 => &mut registers.r11,
        Register::R12 => &mut registers.r12,
        Register::R13 => &mut registers.r13,
        Register::R14 => &mut registers.r14,
        Register::R15 => &mut registers.r15,
        _ => return None,
    })
}
