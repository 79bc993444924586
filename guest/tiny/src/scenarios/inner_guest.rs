//! `inner-guest`: runs a guest of its own, by AMD-V, which has an IDT of its own and leaves by a port write.

use core::arch::naked_asm;

use vector14_guest_abi::NOP_PORT;
use vector14_guest_abi::window::{DEMAND, PAGE_SIZE, pattern};

use super::fault;
use crate::exception::PageFaultHandler;
use crate::gdt::{GDT, GDT_LIMIT, KERNEL_CODE};
use crate::idt::{IDT, Idt, LIMIT, PAGE_FAULT};
use crate::probe::Ring;
use crate::window::open_demand;
use crate::{check, console, frames, ring0, say};

/// CPUID.80000001h, ECX: AMD-V.
const SVM: u32 = 1 << 2;
/// Exit code of HLT (APM vol. 2, appendix C).
const EXIT_HLT: u64 = 0x78;

pub(super) fn run() {
    if ring0::cpuid(0x8000_0001).ecx & SVM == 0 {
        console::fail(format_args!("the CPU says that it has no AMD-V"));
    }
    let [vmcb, host_save_area, table] = [(); 3].map(|()| frames::take_zeroed(1));
    // SAFETY: zeros are absent gates, and the frame, mapped at its own address, is nobody else's.
    let inner = unsafe { &*(table as *const Idt) };
    inner.copy(&IDT);
    inner.gate(PAGE_FAULT).set(PageFaultHandler::Second.address());
    let gate = inner.gate(PAGE_FAULT).read();
    describe(vmcb, inner);
    ring0::call(vmrun, vmcb, host_save_area);
    check!(EXIT_HLT, read(vmcb + 0x70), "exit code of the inner guest");
    check!(true, inner.gate(PAGE_FAULT).read() == gate, "the inner guest's gate 14 is as it was written");

    open_demand(&DEMAND, 1);
    let (page, ring) = (DEMAND.start, Ring::Three);
    let word = fault(page, ring.user_bit(), || ring.load(page));
    check!(pattern(page), word, "first word");
    say!("the inner guest has left by its HLT");
}

/// Writes the state that the inner guest begins with, but for control registers (APM vol. 2, appendix B).
fn describe(vmcb: u64, idt: &Idt) {
    const INTERCEPT_HLT: u64 = 1 << 24;
    const INTERCEPT_VMRUN: u64 = 1 << 0;
    let stack = frames::take_zeroed(1) + PAGE_SIZE;
    let segment = |selector: u64, attributes: u64| selector | attributes << 16 | 0xffff_ffff << 32;
    let (code, data) = (segment(KERNEL_CODE, 0xa9b), segment(0x18, 0xc93));
    let state = [
        (0x8, INTERCEPT_HLT << 32),
        (0x10, INTERCEPT_VMRUN),
        (0x58, 1), // its ASID
        (0x400, data),
        (0x410, code),
        (0x420, data),
        (0x430, data),
        (0x460, u64::from(GDT_LIMIT) << 32),
        (0x468, &raw const GDT as u64),
        (0x480, u64::from(LIMIT) << 32),
        (0x488, idt.address()),
        (0x560, 0x400),       // DR7
        (0x568, 0xffff_0ff0), // DR6
        (0x570, 2),           // RFLAGS
        (0x578, inner as *const () as u64),
        (0x5d8, stack),
        (0x668, 0x0007_0406_0007_0406), // PAT
    ];
    for (offset, value) in state {
        // SAFETY: the VMCB is a frame of this scenario's. Volatile: the CPU reads it.
        unsafe { ((vmcb + offset) as *mut u64).write_volatile(value) };
    }
}

fn read(address: u64) -> u64 {
    // SAFETY: callers name a word of a frame of this scenario's. Volatile: the CPU writes it.
    unsafe { (address as *const u64).read_volatile() }
}

/// Copies the control registers to the VMCB, turns AMD-V on, and runs the inner guest until it leaves.
#[unsafe(naked)]
#[unsafe(link_section = ".ring0")]
unsafe extern "C" fn vmrun(_vmcb: u64, _host_save_area: u64) -> u64 {
    naked_asm!(
        "mov rax, cr0",
        "mov [rdi + 0x558], rax",
        "mov rax, cr3",
        "mov [rdi + 0x550], rax",
        "mov rax, cr4",
        "mov [rdi + 0x548], rax",
        "mov ecx, 0xc0000080", // EFER
        "rdmsr",
        "or eax, 0x1000", // SVME
        "wrmsr",
        "mov [rdi + 0x4d0], eax",
        "mov [rdi + 0x4d4], edx",
        "mov ecx, 0xc0010117", // VM_HSAVE_PA
        "mov rax, rsi",
        "xor edx, edx",
        "wrmsr",
        "mov rax, rdi",
        "vmrun rax",
        "stgi",
        "ret",
    )
}

/// The inner guest: an exit to the host, with its own IDTR, and the end.
#[unsafe(naked)]
#[unsafe(link_section = ".ring0")]
unsafe extern "C" fn inner() -> ! {
    naked_asm!("out 0xf5, al", "hlt", "2: jmp 2b")
}

// The instruction above names it as a literal.
const _: () = assert!(NOP_PORT == 0xf5);
