//! Exceptions: the entry stubs, and the handler of each vector.
//!
//! #PF has entries of its own, with filler before them: a run of 0xCC on the same page, such as Linux has. #UD from
//! [`ring0::call`] is a call into ring 0. After an exception that a scenario expects, execution continues where the
//! scenario said. Anything else is fatal: it is recorded, and ring 3 reports it.

use core::arch::global_asm;
use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::cpu::{self, Cpu, FAULTS};
use crate::gdt::{USER_CODE, USER_DATA};
use crate::idt::{IDT, INVALID_OPCODE, PAGE_FAULT, VECTORS};
use crate::trap_frame::TrapFrame;
use crate::{console, fault, ring0, say};

/// Marks page faults that came through the second handler's gate.
const SECOND: u64 = 0x100;

/// Bytes from one entry stub to the next.
const STUB_SIZE: u64 = 16;

/// Vectors that push an error code: 8, 10 to 14, 17, 21, 29, 30.
const ERROR_CODE_VECTORS: u32 = 0x6022_7d00;

/// Length of the instruction that the storm's handler steps over.
pub const STORM_INSTRUCTION_LENGTH: usize = 2;

// Kept below 256 bytes so that the filler and the entries share a page wherever the linker puts them.
global_asm!(
    r#"
    .section .ring0, "ax"
    .balign 256
    .fill 64, 1, 0xcc
    .globl page_fault_entry, second_page_fault_entry, storm_entry, invalid_opcode_entry, exception_entries
page_fault_entry:
    push {page_fault}
    jmp save
second_page_fault_entry:
    push {second}
    jmp save

storm_entry:
    inc qword ptr gs:[{faults}]
    add qword ptr [rsp + 8], {length}
    add rsp, 8
    iretq

invalid_opcode_entry:
    cmp qword ptr [rsp], offset {gate}
    jne 2f
    add qword ptr [rsp], 2
    call rax
    iretq
2:  push 0
    push {invalid_opcode}

save:
    push rax
    push rcx
    push rdx
    push rbx
    push rbp
    push rsi
    push rdi
    push r8
    push r9
    push r10
    push r11
    push r12
    push r13
    push r14
    push r15
    cld
    mov rdi, rsp
    call {exception}
    pop r15
    pop r14
    pop r13
    pop r12
    pop r11
    pop r10
    pop r9
    pop r8
    pop rdi
    pop rsi
    pop rbp
    pop rbx
    pop rdx
    pop rcx
    pop rax
    add rsp, 16
    iretq

    .balign {stub_size}
exception_entries:
    .irp vector, 0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25,26,27,28,29,30,31
    .balign {stub_size}
    .ifeq ({error_code_vectors} >> \vector) & 1
    push 0
    .endif
    push \vector
    jmp save
    .endr
    .text
    "#,
    page_fault = const PAGE_FAULT,
    second = const PAGE_FAULT as u64 | SECOND,
    faults = const FAULTS,
    length = const STORM_INSTRUCTION_LENGTH,
    gate = sym ring0::ring0_gate,
    invalid_opcode = const INVALID_OPCODE,
    exception = sym exception,
    stub_size = const STUB_SIZE,
    error_code_vectors = const ERROR_CODE_VECTORS,
);

unsafe extern "C" {
    static page_fault_entry: u8;
    static second_page_fault_entry: u8;
    static storm_entry: u8;
    static invalid_opcode_entry: u8;
    static exception_entries: u8;
}

/// The page-fault handlers that gate 14 can point to.
#[derive(Clone, Copy)]
pub enum PageFaultHandler {
    /// The handler that gate 14 points to after boot.
    First,
    /// Does the same as the first, with a counter of its own.
    Second,
    /// Counts the fault, and steps over a two-byte instruction.
    Storm,
}

impl PageFaultHandler {
    /// Address of its first instruction.
    #[inline(always)]
    pub fn address(self) -> u64 {
        match self {
            Self::First => &raw const page_fault_entry as u64,
            Self::Second => &raw const second_page_fault_entry as u64,
            Self::Storm => &raw const storm_entry as u64,
        }
    }
}

/// Fills in the IDT, in ring 0.
#[unsafe(link_section = ".ring0")]
pub extern "C" fn install() {
    let entries = &raw const exception_entries as u64;
    for vector in 0..VECTORS {
        IDT.gate(vector).set(entries + STUB_SIZE * vector as u64);
    }
    IDT.gate(INVALID_OPCODE).set(&raw const invalid_opcode_entry as u64);
    IDT.gate(PAGE_FAULT).set(PageFaultHandler::First.address());
}

#[unsafe(link_section = ".ring0")]
extern "C" fn exception(frame: &mut TrapFrame) {
    let cpu = cpu::this();
    if frame.vector & !SECOND == PAGE_FAULT as u64 {
        let count = if frame.vector & SECOND == 0 { &cpu.faults } else { &cpu.second_faults };
        count.store(count.load(Relaxed) + 1, Relaxed);
        let address = fault::address();
        record(cpu, frame, address);
        if fault::serve(cpu, frame, address).is_err() {
            die(frame, address);
        }
    } else if frame.vector == cpu.expected.load(Relaxed) {
        record(cpu, frame, 0);
        frame.rip = cpu.resume.load(Relaxed);
    } else {
        die(frame, 0);
    }
}

#[inline(always)]
fn record(cpu: &Cpu, frame: &TrapFrame, address: u64) {
    cpu.last.vector.store(frame.vector & !SECOND, Relaxed);
    cpu.last.address.store(address, Relaxed);
    cpu.last.error.store(frame.error, Relaxed);
    cpu.last.rip.store(frame.rip, Relaxed);
}

/// The exception that ended the run.
static FATAL: Fatal = Fatal {
    vector: AtomicU64::new(0),
    address: AtomicU64::new(0),
    error: AtomicU64::new(0),
    rip: AtomicU64::new(0),
    cs: AtomicU64::new(0),
    rsp: AtomicU64::new(0),
};

struct Fatal {
    vector: AtomicU64,
    address: AtomicU64,
    error: AtomicU64,
    rip: AtomicU64,
    cs: AtomicU64,
    rsp: AtomicU64,
}

/// Makes ring 3 report the exception, on a stack that is no longer needed.
#[inline(always)]
fn die(frame: &mut TrapFrame, address: u64) {
    FATAL.vector.store(frame.vector & !SECOND, Relaxed);
    FATAL.address.store(address, Relaxed);
    FATAL.error.store(frame.error, Relaxed);
    FATAL.rip.store(frame.rip, Relaxed);
    FATAL.cs.store(frame.cs, Relaxed);
    FATAL.rsp.store(frame.rsp, Relaxed);
    frame.rip = report as *const () as u64;
    frame.cs = USER_CODE;
    frame.ss = USER_DATA;
    frame.rsp = cpu::this().ring3_stack();
}

/// Prints what [`die`] recorded.
extern "C" fn report() -> ! {
    let Fatal { vector, address, error, rip, cs, rsp } = &FATAL;
    let (rip, cs, rsp) = (rip.load(Relaxed), cs.load(Relaxed), rsp.load(Relaxed));
    let (vector, address, error) = (vector.load(Relaxed), address.load(Relaxed), error.load(Relaxed));
    let ring = cs & 3;
    if vector == PAGE_FAULT as u64 {
        say!("fatal #PF: address={address:#x} error={error:#x} rip={rip:#x} rsp={rsp:#x} ring={ring}");
    } else {
        say!("fatal exception: vector={vector} error={error:#x} rip={rip:#x} rsp={rsp:#x} ring={ring}");
    }
    console::exit(console::Status::Failed)
}
