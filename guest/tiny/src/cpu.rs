//! CPUs: the data of each, and the steps from long mode to the point where a CPU can take exceptions.

use core::arch::asm;
use core::cell::UnsafeCell;
use core::mem::offset_of;
use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::gdt::{self, MAX_CPUS, TableRegister, Tss};
use crate::{idt, ring0};

/// Offset of [`Cpu::resume`] from the GS base, for code that is not Rust.
pub const RESUME: usize = offset_of!(Cpu, resume);
/// Offset of [`Cpu::faults`] from the GS base, for code that is not Rust.
pub const FAULTS: usize = offset_of!(Cpu, faults);

/// A CPU's own data. Its GS base points here, in ring 0 and ring 3 alike.
#[repr(C)]
pub struct Cpu {
    this: AtomicU64,
    /// Where execution continues after an expected exception. Set it before causing one.
    pub resume: AtomicU64,
    /// The expected vector, other than 14; 0 means none.
    pub expected: AtomicU64,
    /// Page faults counted by the first handler.
    pub faults: AtomicU64,
    /// Page faults counted by the second handler, which `idt` installs.
    pub second_faults: AtomicU64,
    /// The last page fault, or expected exception.
    pub last: Last,
}

/// An exception as its handler saw it.
#[repr(C)]
pub struct Last {
    pub vector: AtomicU64,
    /// CR2, if it was a page fault.
    pub address: AtomicU64,
    pub error: AtomicU64,
    pub rip: AtomicU64,
}

const RING0_STACK: usize = 16 << 10;
const RING3_STACK: usize = 32 << 10;

/// Where the ring-0 stack of a [`Block`] ends.
pub const RING0_STACK_END: usize = offset_of!(Block, ring3_stack);

/// A CPU's stacks, its data and its TSS.
#[repr(C, align(4096))]
pub struct Block {
    ring0_stack: [u64; RING0_STACK / 8],
    ring3_stack: [u64; RING3_STACK / 8],
    cpu: Cpu,
    tss: Tss,
}

/// The [`Block`]s of all CPUs.
#[repr(transparent)]
pub struct Blocks(UnsafeCell<[Block; MAX_CPUS]>);

// SAFETY: a CPU touches its own block, and in those of others only atomics.
unsafe impl Sync for Blocks {}

pub static CPUS: Blocks = Blocks(UnsafeCell::new(
    // SAFETY: zeros are a value of every field.
    unsafe { core::mem::zeroed() },
));

impl Blocks {
    /// The address of the first.
    pub fn address(&self) -> u64 {
        self.0.get() as u64
    }

    #[inline(always)]
    fn block(&self, index: usize) -> *mut Block {
        // SAFETY: callers pass an index below MAX_CPUS.
        unsafe { self.0.get().cast::<Block>().add(index) }
    }

    /// The data of CPU `index`.
    pub fn cpu(&self, index: usize) -> &'static Cpu {
        assert!(index < MAX_CPUS);
        // SAFETY: the index is in range, and all of `Cpu` is atomics.
        unsafe { &(*self.block(index)).cpu }
    }
}

impl Cpu {
    /// Top of its ring-3 stack: right below this, and aligned as at a function's first instruction.
    #[inline(always)]
    pub fn ring3_stack(&self) -> u64 {
        self as *const Self as u64 - 8
    }
}

/// The CPU that this runs on.
#[inline(always)]
pub fn this() -> &'static Cpu {
    let cpu: *const Cpu;
    // SAFETY: `prepare` made the GS base point to a `Cpu`, whose first word is its own address.
    unsafe {
        asm!("mov {}, gs:[0]", out(reg) cpu, options(nostack, readonly, preserves_flags));
        &*cpu
    }
}

/// Page faults that the guest's handlers have counted, over all CPUs.
pub fn total_faults() -> u64 {
    let counts = |cpu: &Cpu| cpu.faults.load(Relaxed) + cpu.second_faults.load(Relaxed);
    (0..MAX_CPUS).map(|index| counts(CPUS.cpu(index))).sum()
}

/// Moves the stack that exceptions from ring 3 switch to, on the first CPU.
pub fn set_rsp0(rsp0: u64) {
    // SAFETY: the block is static, and mapped user-accessible.
    unsafe { gdt::set_rsp0(&raw mut (*CPUS.block(0)).tss, rsp0) }
}

/// Moves the stack that gates with IST 1 switch to, on the first CPU.
pub fn set_ist1(ist1: u64) {
    // SAFETY: the block is static, and mapped user-accessible.
    unsafe { gdt::set_ist1(&raw mut (*CPUS.block(0)).tss, ist1) }
}

/// Loads this CPU's GDT, IDT, TSS and control registers. Returns the stack for ring 3.
///
/// # Safety
/// Only the boot code calls this: once per CPU, in ring 0, with an unused `index` below [`MAX_CPUS`].
#[unsafe(link_section = ".ring0")]
pub unsafe extern "C" fn prepare(index: usize) -> u64 {
    let block = CPUS.block(index);
    // SAFETY: the caller's promise makes the block this CPU's alone. All writes are volatile so that they
    // stay 8-byte stores.
    unsafe {
        let cpu = &raw mut (*block).cpu;
        let tss = &raw mut (*block).tss;
        (&raw mut (*cpu).this).cast::<u64>().write_volatile(cpu as u64);

        gdt::load(index, tss, block as u64 + RING0_STACK_END as u64);
        let idtr = TableRegister::new(idt::IDT.address(), idt::LIMIT);
        asm!("lidt [{}]", in(reg) &raw const idtr, options(nostack, readonly, preserves_flags));
        write_msr(MSR_GS_BASE, cpu as u64);
        write_msr(MSR_EFER, read_msr(MSR_EFER) | EFER_NXE);
        write_control_registers();
    }
    // SAFETY: as above.
    unsafe { (*block).cpu.ring3_stack() }
}

const MSR_EFER: u32 = 0xc000_0080;
const MSR_GS_BASE: u32 = 0xc000_0101;
const EFER_NXE: u64 = 1 << 11;

/// CR0: PE, MP, ET, NE, WP, PG. TS and EM are clear, for SSE in ring 3.
pub const CR0: u64 = CR0_WP | 0x8000_0033;
/// CR0.WP: ring 0 respects read-only pages.
pub const CR0_WP: u64 = 1 << 16;
const CR4_OSFXSR: u64 = 1 << 9;
const CR4_OSXMMEXCPT: u64 = 1 << 10;
const CR4_OSXSAVE: u64 = 1 << 18;

#[inline(always)]
unsafe fn write_control_registers() {
    const XSAVE_AND_AVX: u32 = 1 << 26 | 1 << 28;
    const X87_SSE_AVX: u32 = 7;
    let xsave = ring0::cpuid_here(1, 0).ecx & XSAVE_AND_AVX == XSAVE_AND_AVX;
    // SAFETY: turns on what CPUID offers; paging and protection stay as they are.
    unsafe {
        let mut cr4: u64;
        asm!("mov {}, cr4", out(reg) cr4, options(nomem, nostack, preserves_flags));
        cr4 |= CR4_OSFXSR | CR4_OSXMMEXCPT;
        if xsave {
            cr4 |= CR4_OSXSAVE;
        }
        asm!("mov cr4, {}", in(reg) cr4, options(nostack, preserves_flags));
        asm!("mov cr0, {}", in(reg) CR0, options(nostack, preserves_flags));
        if xsave {
            asm!("xsetbv", in("ecx") 0, in("eax") X87_SSE_AVX, in("edx") 0, options(nostack, preserves_flags));
        }
    }
}

#[inline(always)]
unsafe fn read_msr(msr: u32) -> u64 {
    let (low, high): (u32, u32);
    // SAFETY: callers name MSRs that every CPU with long mode has.
    unsafe { asm!("rdmsr", in("ecx") msr, out("eax") low, out("edx") high, options(nomem, nostack, preserves_flags)) };
    (high as u64) << 32 | low as u64
}

#[inline(always)]
unsafe fn write_msr(msr: u32, value: u64) {
    // SAFETY: as for `read_msr`; callers pass a valid value.
    unsafe {
        asm!("wrmsr", in("ecx") msr, in("eax") value as u32, in("edx") (value >> 32) as u32,
            options(nostack, preserves_flags));
    }
}
