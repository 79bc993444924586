//! The other CPUs: started by INIT and STARTUP (SDM vol. 3A, 11.4.4), then given work.

use core::arch::{asm, global_asm};
use core::sync::atomic::{AtomicPtr, AtomicU32, AtomicU64, Ordering};

use crate::gdt::{GDT, GDT_LIMIT, KERNEL_CODE, MAX_CPUS};
use crate::{console, cpu, ring0};

/// The page in which a CPU starts, in real mode.
const TRAMPOLINE: u64 = 0x8000;

/// The local APIC's interrupt command register, in the page that is mapped to itself.
const ICR: *mut u32 = 0xfee0_0300 as *mut u32;
const INIT_OTHERS: u32 = 0b11 << 18 | 1 << 14 | 0b101 << 8;
const STARTUP_OTHERS: u32 = 0b11 << 18 | 1 << 14 | 0b110 << 8 | (TRAMPOLINE >> 12) as u32;

// Real mode to long mode in one step: PAE, CR3 and EFER.LME first, then PE and PG together. CS is TRAMPOLINE / 16.
global_asm!(
    r#"
    .section .rodata.trampoline, "a"
    .globl trampoline, trampoline_end
    .code16
trampoline:
    jmp 3f                          # 2 bytes: the operand of LGDT is at offset 2
    .word {gdt_limit}
    .long {gdt}
3:  cli
    mov eax, {cr4}
    mov cr4, eax
    mov eax, offset PML4
    mov cr3, eax
    mov ecx, 0xc0000080
    rdmsr
    or eax, {efer}
    wrmsr
    lgdtd cs:[2]
    mov eax, {cr0}
    mov cr0, eax
    .byte 0x66, 0xea
    .long start_ap
    .word {kernel_code}
trampoline_end:
    .code64
    .text
    "#,
    cr4 = const 1 << 5, // PAE
    efer = const 1 << 8, // LME
    cr0 = const cpu::CR0,
    kernel_code = const KERNEL_CODE,
    gdt_limit = const GDT_LIMIT,
    gdt = sym GDT,
);

/// The highest index assigned to a CPU. The first CPU has 0.
pub static LAST_CPU: AtomicU32 = AtomicU32::new(0);

static READY: AtomicU64 = AtomicU64::new(0);

/// The next job, and the number of CPUs that have done it.
static JOB: AtomicPtr<()> = AtomicPtr::new(core::ptr::null_mut());
static GENERATION: AtomicU64 = AtomicU64::new(0);
static DONE: AtomicU64 = AtomicU64::new(0);

/// A function that every CPU runs, with its index.
pub type Job = fn(u64);

/// Number of CPUs in the machine.
pub fn count() -> u64 {
    (ring0::cpuid(1).ebx as u64 >> 16 & 0xff).clamp(1, MAX_CPUS as u64)
}

/// Starts the other CPUs and waits for them. Returns the number of all CPUs.
pub fn start() -> u64 {
    unsafe extern "C" {
        static trampoline: u8;
        static trampoline_end: u8;
    }
    let (start, end) = (&raw const trampoline, &raw const trampoline_end);
    let others = count() - 1;
    if others == 0 {
        return 1;
    }
    // SAFETY: nothing that is still needed lies in the page at TRAMPOLINE; the APIC is mapped to itself, uncached.
    unsafe {
        (TRAMPOLINE as *mut u8).copy_from_nonoverlapping(start, end as usize - start as usize);
        ICR.write_volatile(INIT_OTHERS);
        ICR.write_volatile(STARTUP_OTHERS);
    }
    const A_FEW_SECONDS: u64 = 10_000_000_000;
    let began = timestamp();
    while READY.load(Ordering::Acquire) < others {
        if timestamp() - began > A_FEW_SECONDS {
            let ready = READY.load(Ordering::Acquire);
            console::fail(format_args!("expected {others} other CPUs to start, saw {ready}"));
        }
        core::hint::spin_loop();
    }
    others + 1
}

/// Runs `job` on all of the `cpus` that were started, and waits until all are done.
pub fn run(cpus: u64, job: Job) {
    DONE.store(0, Ordering::Relaxed);
    JOB.store(job as *mut (), Ordering::Relaxed);
    GENERATION.fetch_add(1, Ordering::Release);
    job(0);
    while DONE.load(Ordering::Acquire) < cpus - 1 {
        core::hint::spin_loop();
    }
}

/// A barrier: waits until all `cpus` have reached it `round` times, counted from 1.
pub fn meet(arrivals: &AtomicU64, cpus: u64, round: u64) {
    arrivals.fetch_add(1, Ordering::AcqRel);
    while arrivals.load(Ordering::Acquire) < cpus * round {
        core::hint::spin_loop();
    }
}

/// Ring 3 begins here on every other CPU.
pub extern "C" fn main_ap(index: u64) -> ! {
    READY.fetch_add(1, Ordering::Release);
    let mut generation = 0;
    loop {
        while GENERATION.load(Ordering::Acquire) == generation {
            core::hint::spin_loop();
        }
        generation += 1;
        let job = JOB.load(Ordering::Relaxed);
        // SAFETY: `run` stored a `Job` there before it counted the generation up.
        let job = unsafe { core::mem::transmute::<*mut (), Job>(job) };
        job(index);
        DONE.fetch_add(1, Ordering::Release);
    }
}

/// The time-stamp counter.
pub fn timestamp() -> u64 {
    let (low, high): (u32, u32);
    // SAFETY: reads a counter.
    unsafe { asm!("rdtsc", out("eax") low, out("edx") high, options(nomem, nostack, preserves_flags)) };
    (high as u64) << 32 | low as u64
}
