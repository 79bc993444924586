//! The exit of a user-mode read from a page that is not present, in 64-bit mode with four levels of page tables.
//!
//! The memory that matters is identity-mapped by pages of 4 KiB: IDT, GDT, the handler followed by filler, the
//! handler's stack, and the code that faulted.

use kvm_bindings::{kvm_dtable, kvm_regs, kvm_segment, kvm_sregs, kvm_vcpu_events};
use vector14_hook::{ErrorCode, GuestError, Pa};

use crate::machine::memory::Memory;
use crate::machine::vcpu::{Direction, Io, Vcpu, VmExit};
use crate::vm::{VmError, host};

/// How the fault reaches the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// The OUT of engine `gate`'s stub.
    Stub,
    /// KVM_EXIT_EXCEPTION of engine `exception-bitmap`.
    Exception,
}

const PML4: u64 = 0x1000;
const PDPT: u64 = 0x2000;
const PAGE_DIRECTORY: u64 = 0x3000;
const PAGE_TABLE: u64 = 0x4000;
const IDT: u64 = 0x5000;
const GDT: u64 = 0x6000;
const HANDLER: u64 = 0x7000;
/// Address at which the CPU pushed the error code.
const FRAME: u64 = 0x8fd0;
const CODE: u64 = 0x9000;
/// Address that the code reads; nothing is mapped there.
const ABSENT: u64 = 0x10_0000;

const KERNEL_CS: u16 = 0x10;
const USER_CS: u16 = 0x33;
const USER_SS: u16 = 0x2b;
const USER_RSP: u64 = 0x7fff_f000;
/// IF, RF and the bit that is always set.
const USER_RFLAGS: u64 = 0x1_0202;

/// Guest memory at the first fault of the code.
pub(super) fn memory() -> Result<Memory, VmError> {
    /// Present, writable, user-accessible.
    const MAPPED: u64 = 7;
    /// Descriptor of a code segment in 64-bit mode, privilege level 3.
    const USER_CODE: u64 = 0x00af_fb00_0000_ffff;
    let memory = Memory::new(2 << 20)?;
    let tables = [(PML4, PDPT), (PDPT, PAGE_DIRECTORY), (PAGE_DIRECTORY, PAGE_TABLE)];
    let pages = [IDT, GDT, HANDLER, FRAME & !0xfff, CODE].map(|page| (PAGE_TABLE + (page >> 12) * 8, page));
    let mapped = tables.into_iter().chain(pages).map(|(slot, page)| (slot, page | MAPPED));
    let gates = [13, 14].map(|vector| (IDT + vector * 16, interrupt_gate()));
    for (slot, word) in mapped.chain(gates).chain([(GDT + u64::from(USER_CS & !7), USER_CODE)]) {
        write(&memory, slot, &word.to_le_bytes())?;
    }
    write(&memory, HANDLER, &[0xcc; 128])?;
    write(&memory, HANDLER, &[0x90; 16])?;
    // mov al, [rdi]
    write(&memory, CODE, &[0x8a, 0x07])?;
    Ok(memory)
}

/// The lower half of a present 64-bit interrupt gate; the upper half is 0 for a handler below 4 GiB.
fn interrupt_gate() -> u64 {
    HANDLER & 0xffff | u64::from(KERNEL_CS) << 16 | 0x8e << 40 | HANDLER >> 16 << 48
}

fn write(memory: &Memory, address: u64, bytes: &[u8]) -> Result<(), VmError> {
    in_memory(memory.write(Pa(address), bytes))
}

fn in_memory<T>(result: Result<T, GuestError>) -> Result<T, VmError> {
    host("the recorded guest's memory", result.map_err(std::io::Error::other))
}

/// System registers at the exit; CS and SS are those of the handler.
pub(super) fn system_registers() -> kvm_sregs {
    kvm_sregs {
        cs: kvm_segment { selector: KERNEL_CS, l: 1, present: 1, ..kvm_segment::default() },
        idt: kvm_dtable { base: IDT, limit: 0xfff, ..kvm_dtable::default() },
        gdt: kvm_dtable { base: GDT, limit: 0x7f, ..kvm_dtable::default() },
        // PG, WP and PE; PAE; NXE, LMA, LME and SCE.
        cr0: 0x8001_0001,
        cr4: 0x20,
        efer: 0xd01,
        cr3: PML4,
        cr2: ABSENT,
        ..kvm_sregs::default()
    }
}

/// The state that KVM leaves at the exit.
pub(super) struct Recording {
    pub(super) exit: VmExit,
    regs: kvm_regs,
    sregs: kvm_sregs,
}

impl Recording {
    /// The exit in a guest with this memory. With a stub, gate 14 must already point to it.
    pub(super) fn of(exit: Exit, memory: &Memory) -> Result<Self, VmError> {
        let user = kvm_regs { rdi: ABSENT, rip: CODE, rsp: USER_RSP, rflags: USER_RFLAGS, ..kvm_regs::default() };
        let system = system_registers();
        if exit == Exit::Exception {
            let cs = kvm_segment { selector: USER_CS, ..system.cs };
            let ss = kvm_segment { selector: USER_SS, ..system.ss };
            let exit = VmExit::Exception { vector: 14, error_code: ErrorCode::USER.bits() };
            return Ok(Self { exit, regs: user, sregs: kvm_sregs { cs, ss, ..system } });
        }
        let gate = in_memory(memory.load(Pa(IDT + 14 * 16)))?;
        let stub = gate & 0xffff | gate >> 48 << 16;
        let mut out = [0; 2];
        in_memory(memory.read(Pa(stub), &mut out))?;
        let io = Io { port: u16::from(out[1]), direction: Direction::Out, size: 1, count: 1 };
        let regs = kvm_regs { rip: stub, rsp: FRAME, rflags: 2, ..user };
        Ok(Self { exit: VmExit::Io(io), regs, sregs: system })
    }

    /// Restores the vCPU and the handler's stack to their state at the exit.
    pub(super) fn restore(&self, cpu: &mut Vcpu, memory: &Memory) -> Result<(), VmError> {
        *cpu.regs_mut() = self.regs;
        *cpu.sregs_mut() = self.sregs;
        *cpu.events_mut() = kvm_vcpu_events::default();
        let frame = [ErrorCode::USER.bits().into(), CODE, USER_CS.into(), USER_RFLAGS, USER_RSP, USER_SS.into()];
        (FRAME..)
            .step_by(8)
            .zip(frame)
            .try_for_each(|(slot, word): (u64, u64)| write(memory, slot, &word.to_le_bytes()))
    }
}
