//! `trap-gate`: a fault through a trap gate 14 while an interrupt is pending. The interrupt is taken before the first
//! instruction of gate 14's handler runs, and its own handler returns only when gate 14 leads to the guest's own
//! handler.

use core::arch::naked_asm;

use vector14_guest_abi::window::{DEMAND, HIDDEN};

use crate::exception::PageFaultHandler;
use crate::fault::Action;
use crate::idt::{IDT, Idt, PAGE_FAULT, VECTORS};
use crate::probe::Ring;
use crate::window::{open, open_demand};
use crate::{check, say};

/// The vector of the interrupt: the last that this guest's table has, and one that APICs take.
const VECTOR: usize = VECTORS - 1;
/// Bit 0 of a gate's type, in its first 8 bytes: a trap gate, not an interrupt gate.
const TRAP: u64 = 1 << 40;

/// The local APIC, in the page that is mapped to itself: spurious-interrupt vector, end of interrupt, interrupt
/// command.
const SVR: *mut u32 = 0xfee0_00f0 as *mut u32;
const EOI: u32 = 0xfee0_00b0;
const ICR: *mut u32 = 0xfee0_0300 as *mut u32;
const APIC_ENABLED: u32 = 1 << 8 | 0xff;
const INTERRUPT_SELF: u32 = 0b01 << 18 | VECTOR as u32;

/// What the host fills the page with.
const FILL: u64 = u64::from_ne_bytes([0x5a; 8]);

/// Gate 14 as the guest has made it.
static OWN: Idt = Idt::new();

pub(super) fn run() {
    open(&HIDDEN, 1, Action::Fatal);
    open_demand(&DEMAND, 1);
    OWN.gate(PAGE_FAULT).set(PageFaultHandler::First.address());
    OWN.gate(PAGE_FAULT).change_low(TRAP);
    IDT.gate(PAGE_FAULT).change_low(TRAP);
    IDT.gate(VECTOR).set(interrupt as *const () as u64);
    // SAFETY: the APIC is mapped to itself, uncached.
    unsafe {
        SVR.write_volatile(APIC_ENABLED);
        ICR.write_volatile(INTERRUPT_SELF);
    }
    let word = Ring::Zero.run(load_behind_sti, HIDDEN.start, 0);
    check!(FILL, word, "first word of the page");
    say!("the fault was interrupted, and resolved");
}

/// Reads `address` in the shadow of STI: a pending interrupt waits until the next instruction.
#[unsafe(naked)]
#[unsafe(link_section = ".ring0")]
unsafe extern "C" fn load_behind_sti(_address: u64, _: u64) -> u64 {
    naked_asm!("sti", "mov rax, [rdi]", "cli", "ret")
}

/// Faults on the first page of [`DEMAND`], which says that it has begun, and waits for the guest's own gate 14.
#[unsafe(naked)]
#[unsafe(link_section = ".ring0")]
unsafe extern "C" fn interrupt() {
    naked_asm!(
        "push rax",
        "push rdx",
        "mov rax, {begun}",
        "mov rax, [rax]",
        "mov rdx, [{own} + {gate}]",
        "2: pause",
        "cmp rdx, [{idt} + {gate}]",
        "jne 2b",
        "mov eax, {eoi}",
        "mov dword ptr [rax], 0",
        "pop rdx",
        "pop rax",
        "iretq",
        begun = const DEMAND.start,
        own = sym OWN,
        idt = sym IDT,
        gate = const PAGE_FAULT * 16,
        eoi = const EOI,
    )
}
