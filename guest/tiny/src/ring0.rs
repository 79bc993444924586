//! Calls from ring 3 into ring 0.
//!
//! `int N` and `syscall` do not work on every KVM that runs this guest, but exceptions do. So a call is a deliberate
//! #UD at one known address: its handler calls the function that RAX names, and returns after the UD2.

use core::arch::{asm, naked_asm};
use core::sync::atomic::AtomicU32;

/// A function that can be called in ring 0. It lies in `.ring0`, and uses general registers only.
pub type Function = unsafe extern "C" fn(u64, u64) -> u64;

/// Calls `function` in ring 0, with interrupts off, on the stack that exceptions switch to.
pub fn call(function: Function, first: u64, second: u64) -> u64 {
    let result;
    // SAFETY: to the caller this is a call of `function` by the C ABI; the handler keeps to it.
    unsafe {
        asm!("call {gate}", gate = sym ring0_gate, inout("rax") function => result,
            in("rdi") first, in("rsi") second, clobber_abi("C"));
    }
    result
}

/// The instruction whose #UD is a call.
#[unsafe(naked)]
pub unsafe extern "C" fn ring0_gate() {
    naked_asm!("ud2", "ret")
}

/// Flushes all translations.
pub fn flush_all() {
    call(reload_cr3, 0, 0);
}

/// Writes CR0.
pub fn write_cr0(value: u64) {
    call(mov_cr0, value, 0);
}

/// Sets bits of CR4.
pub fn set_cr4(bits: u64) {
    call(or_cr4, bits, 0);
}

/// Loads IDTR.
pub fn load_idt(base: u64, limit: u16) {
    call(lidt, base, limit as u64);
}

/// Loads GDTR. The segments that are loaded stay as they are.
pub fn load_gdt(base: u64, limit: u16) {
    call(lgdt, base, limit as u64);
}

/// Flushes the translation of `address`; for code that already runs in ring 0.
#[inline(always)]
pub fn flush_here(address: u64) {
    // SAFETY: a flushed translation is looked up again.
    unsafe { asm!("invlpg [{}]", in(reg) address, options(nostack, preserves_flags)) };
}

#[unsafe(naked)]
#[unsafe(link_section = ".ring0")]
unsafe extern "C" fn reload_cr3(_: u64, _: u64) -> u64 {
    naked_asm!("mov rax, cr3", "mov cr3, rax", "ret")
}

#[unsafe(naked)]
#[unsafe(link_section = ".ring0")]
unsafe extern "C" fn mov_cr0(_value: u64, _: u64) -> u64 {
    naked_asm!("mov cr0, rdi", "ret")
}

#[unsafe(naked)]
#[unsafe(link_section = ".ring0")]
unsafe extern "C" fn or_cr4(_bits: u64, _: u64) -> u64 {
    naked_asm!("mov rax, cr4", "or rax, rdi", "mov cr4, rax", "ret")
}

#[unsafe(naked)]
#[unsafe(link_section = ".ring0")]
unsafe extern "C" fn lidt(_base: u64, _limit: u64) -> u64 {
    naked_asm!("push rdi", "shl rsi, 48", "push rsi", "lidt [rsp + 6]", "add rsp, 16", "ret")
}

#[unsafe(naked)]
#[unsafe(link_section = ".ring0")]
unsafe extern "C" fn lgdt(_base: u64, _limit: u64) -> u64 {
    naked_asm!("push rdi", "shl rsi, 48", "push rsi", "lgdt [rsp + 6]", "add rsp, 16", "ret")
}

/// Reads `address` with RSP = `stack`.
#[unsafe(naked)]
#[unsafe(link_section = ".ring0")]
pub unsafe extern "C" fn load_on_stack(_stack: u64, _address: u64) -> u64 {
    naked_asm!("mov rsp, rdi", "mov rax, [rsi]", "2: jmp 2b")
}

/// Jumps to `target` with RSP = `stack`.
#[unsafe(naked)]
#[unsafe(link_section = ".ring0")]
pub unsafe extern "C" fn jump_on_stack(_stack: u64, _target: u64) -> u64 {
    naked_asm!("mov rsp, rdi", "jmp rsi")
}

/// The result of CPUID.
#[derive(Clone, Copy)]
pub struct Cpuid {
    pub eax: u32,
    pub ebx: u32,
    pub ecx: u32,
}

/// CPUID in ring 0, where every KVM returns the guest's values.
pub fn cpuid(leaf: u32) -> Cpuid {
    static ANSWER: [AtomicU32; 3] = [const { AtomicU32::new(0) }; 3];
    call(cpuid_into, leaf as u64, ANSWER.as_ptr() as u64);
    let [eax, ebx, ecx] = ANSWER.each_ref().map(|word| word.load(core::sync::atomic::Ordering::Relaxed));
    Cpuid { eax, ebx, ecx }
}

#[unsafe(naked)]
#[unsafe(link_section = ".ring0")]
unsafe extern "C" fn cpuid_into(_leaf: u64, _answer: u64) -> u64 {
    naked_asm!(
        "push rbx",
        "mov eax, edi",
        "xor ecx, ecx",
        "cpuid",
        "mov [rsi], eax",
        "mov [rsi + 4], ebx",
        "mov [rsi + 8], ecx",
        "pop rbx",
        "ret"
    )
}

/// CPUID, for code that already runs in ring 0.
#[inline(always)]
pub fn cpuid_here(leaf: u32, subleaf: u32) -> Cpuid {
    let (eax, ebx, ecx): (u32, u64, u32);
    // SAFETY: CPUID changes nothing but its outputs, all of which are named. The compiler keeps RBX to itself.
    unsafe {
        asm!("mov {0:r}, rbx", "cpuid", "xchg {0:r}, rbx", out(reg) ebx, inout("eax") leaf => eax,
            inout("ecx") subleaf => ecx, out("edx") _, options(nomem, nostack, preserves_flags));
    }
    Cpuid { eax, ebx: ebx as u32, ecx }
}
