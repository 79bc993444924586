//! `skip`: instructions of many encodings fault, and the host skips each. None may have had an effect.

use core::arch::naked_asm;

use vector14_guest_abi::window::SKIP;

use crate::fault::Action;
use crate::window::open;
use crate::{check, ring0, say};

/// An instruction that touches the window, as a function of its own.
struct Encoding {
    text: &'static str,
    code: unsafe extern "C" fn(),
}

/// Instructions by their text. In them RBX, RSI and RDI point where [`Registers::new`] says.
macro_rules! encodings {
    ($($text:literal),+ $(,)?) => {
        &[$(Encoding {
            text: $text,
            code: {
                #[unsafe(naked)]
                unsafe extern "C" fn code() {
                    naked_asm!($text, "ret")
                }
                code
            },
        }),+]
    };
}

const GENERAL: &[Encoding] = encodings![
    "mov al, [rbx]",
    "mov cx, [rbx]",
    "mov edx, [rbx]",
    "mov r8, [rbx]",
    "mov [rbx], al",
    "mov [rbx], cx",
    "mov [rbx], edx",
    "mov [rbx], r8",
    "movzx eax, byte ptr [rbx]",
    "movsx r10, word ptr [rbx + 8*r9]",
    "add [rbx], ecx",
    "lock xadd [rbx], rdx",
    "lock cmpxchg [rbx], rcx",
    "push qword ptr [rbx]",
    "pop qword ptr [rbx]",
    "movsb",
    "stosb",
    "lodsq",
    "movups xmm0, [rbx]",
    "movups [rbx], xmm0",
    "movabs rax, [0x1200000000]",
    "mov qword ptr [rbx + 0x12345678], 0x1234567",
    "lock add qword ptr fs:[rbx + 8*r9 + 0x12345678], 0x1234567",
];

// One of the above names it as a literal.
const _: () = assert!(SKIP.start == 0x12_0000_0000);

const AVX: &[Encoding] = encodings!["vmovups ymm0, [rbx]", "vmovups [rbx], ymm0"];

pub(super) fn run() {
    open(&SKIP, 1, Action::Fatal);
    GENERAL.iter().for_each(|encoding| check_skipped(encoding, run_sse));
    let avx = has_avx();
    if avx {
        AVX.iter().for_each(|encoding| check_skipped(encoding, run_avx));
    } else {
        say!("NO AVX: CPUID offers no XSAVE and AVX, so vmovups ymm was left out");
    }
    let count = GENERAL.len() + if avx { AVX.len() } else { 0 };
    say!("{count} encodings skipped, none had an effect");
}

/// AVX and XSAVE: boot code has turned both on where CPUID offers them.
fn has_avx() -> bool {
    const BOTH: u32 = 1 << 26 | 1 << 28;
    ring0::cpuid(1).ecx & BOTH == BOTH
}

/// Runs an instruction, and compares all that it could have changed with what was there before.
fn check_skipped(encoding: &Encoding, run: Runner) {
    let before = Registers::new();
    let mut after = Registers::new();
    // SAFETY: `run` gives back every register that the caller needs; the instruction itself is skipped.
    unsafe { run(&mut after, encoding.code) };
    say!("{}", encoding.text);
    for (i, (before, after)) in before.general.iter().zip(after.general).enumerate() {
        check!(*before, after, "{}: general register {i}", encoding.text);
    }
    check!(before.flags, after.flags & FLAGS, "{}: RFLAGS", encoding.text);
    check!(true, before.vector == after.vector, "{}: vector register 0 unchanged", encoding.text);
}

/// CF, PF, AF, ZF, SF, DF, OF.
const FLAGS: u64 = 0xcd5;

/// Registers to run an instruction with, and as it left them.
#[repr(C)]
struct Registers {
    /// By their number: RAX, RCX, RDX, RBX, (RSP is not set), RBP, RSI, RDI, R8 to R15.
    general: [u64; 16],
    flags: u64,
    _reserved: u64,
    vector: [u64; 4],
}

impl Registers {
    fn new() -> Self {
        let mut general = core::array::from_fn(|i| 0x0101_0101_0101_0101 * (i as u64 + 1));
        const RBX: usize = 3;
        const RSP: usize = 4;
        const RSI: usize = 6;
        const RDI: usize = 7;
        const R9: usize = 9;
        general[RBX] = SKIP.start + 0x100;
        general[RSI] = SKIP.start + 0x200;
        general[RDI] = SKIP.start + 0x300;
        general[R9] = 1;
        general[RSP] = 0;
        // CF, AF, SF
        Self { general, flags: 0x91, _reserved: 0, vector: [3, 5, 7, 11] }
    }
}

type Runner = unsafe extern "C" fn(&mut Registers, unsafe extern "C" fn());

/// A function that loads the registers, calls the code, and stores them.
macro_rules! runner {
    ($name:ident, $load:literal, $store:literal) => {
        #[unsafe(naked)]
        unsafe extern "C" fn $name(_registers: &mut Registers, _code: unsafe extern "C" fn()) {
            naked_asm!(
                "push rbx",
                "push rbp",
                "push r12",
                "push r13",
                "push r14",
                "push r15",
                "push rdi",
                "push rsi",
                $load,
                "push qword ptr [rdi + 0x80]",
                "popfq",
                "mov rax, [rdi]",
                "mov rcx, [rdi + 0x08]",
                "mov rdx, [rdi + 0x10]",
                "mov rbx, [rdi + 0x18]",
                "mov rbp, [rdi + 0x28]",
                "mov rsi, [rdi + 0x30]",
                "mov r8, [rdi + 0x40]",
                "mov r9, [rdi + 0x48]",
                "mov r10, [rdi + 0x50]",
                "mov r11, [rdi + 0x58]",
                "mov r12, [rdi + 0x60]",
                "mov r13, [rdi + 0x68]",
                "mov r14, [rdi + 0x70]",
                "mov r15, [rdi + 0x78]",
                "mov rdi, [rdi + 0x38]",
                "call [rsp]",
                "pushfq",
                "push rdi",
                "mov rdi, [rsp + 0x18]",
                "mov [rdi], rax",
                "mov [rdi + 0x08], rcx",
                "mov [rdi + 0x10], rdx",
                "mov [rdi + 0x18], rbx",
                "mov [rdi + 0x28], rbp",
                "mov [rdi + 0x30], rsi",
                "mov [rdi + 0x40], r8",
                "mov [rdi + 0x48], r9",
                "mov [rdi + 0x50], r10",
                "mov [rdi + 0x58], r11",
                "mov [rdi + 0x60], r12",
                "mov [rdi + 0x68], r13",
                "mov [rdi + 0x70], r14",
                "mov [rdi + 0x78], r15",
                $store,
                "pop qword ptr [rdi + 0x38]",
                "pop qword ptr [rdi + 0x80]",
                "cld",
                "pop rsi",
                "pop rdi",
                "pop r15",
                "pop r14",
                "pop r13",
                "pop r12",
                "pop rbp",
                "pop rbx",
                "ret",
            )
        }
    };
}

runner!(run_sse, "movups xmm0, [rdi + 0x90]", "movups [rdi + 0x90], xmm0");
runner!(run_avx, "vmovups ymm0, [rdi + 0x90]", "vmovups [rdi + 0x90], ymm0");
