//! Boot: the first instructions, the page tables, and what the boot loader has to say.
//!
//! Entered by the Linux 64-bit boot protocol: long mode, low memory mapped to itself, interrupts off, RSI =
//! `boot_params`. The page tables here are laid down at build time, so that taking them over is one write to CR3.

use core::arch::global_asm;
use core::ffi::CStr;

use crate::gdt::{USER_CODE, USER_DATA};
use crate::paging::{LARGE, PRESENT, PageTable, UNCACHED, USER, WRITABLE};
use crate::{cpu, exception, main, smp};

/// RAM beyond this is not mapped, and not used.
const MAPPED_RAM: u64 = 1 << 30;

/// Ring 3's first RFLAGS: interrupts off, IOPL 3, and the bit that is always set.
const RFLAGS: u64 = 3 << 12 | 1 << 1;

// r12 and r13 are preserved across calls of Rust functions: they carry ring 3's argument and entry.
global_asm!(
    r#"
    .section .ring0, "ax"
    .globl _start, start_ap
_start:
    mov eax, offset PML4
    mov cr3, rax
    mov r12, rsi
    mov r13, offset {main}
    lea rsp, [{cpus} + {stack_end}]
    call {install}
    xor edi, edi
    jmp enter
start_ap:
    mov eax, 1
    lock xadd [{last_cpu}], eax
    lea edi, [rax + 1]
    mov r12, rdi
    mov r13, offset {main_ap}
enter:
    imul eax, edi, {cpu_size}
    lea rsp, [rax + {cpus} + {stack_end}]
    call {prepare}
    push {user_data}
    push rax
    push {rflags}
    push {user_code}
    push r13
    mov rdi, r12
    iretq

    .section .data.tables, "aw"
    .balign 4096
    .globl PML4, PDPT
PML4:
    .quad PDPT + {table}
    .fill 511, 8, 0
PDPT:
    .quad {low} + {table}, 0, 0, {high} + {table}
    .fill 508, 8, 0
    .text
    "#,
    main = sym main,
    main_ap = sym smp::main_ap,
    last_cpu = sym smp::LAST_CPU,
    cpus = sym cpu::CPUS,
    cpu_size = const size_of::<cpu::Block>(),
    stack_end = const cpu::RING0_STACK_END,
    install = sym exception::install,
    prepare = sym cpu::prepare,
    user_data = const USER_DATA,
    user_code = const USER_CODE,
    rflags = const RFLAGS,
    low = sym LOW,
    high = sym HIGH,
    table = const PRESENT | WRITABLE | USER,
);

/// The first GiB: RAM.
static LOW: PageTable = PageTable::identity(0, PRESENT | WRITABLE | USER | LARGE);

/// The fourth GiB: the local APIC, and nothing.
static HIGH: PageTable = PageTable::identity(3 << 30, PRESENT | WRITABLE | USER | LARGE | UNCACHED);

/// `struct boot_params`, of Linux's Documentation/arch/x86/zero-page.rst: the parts that matter here.
#[repr(C, packed)]
pub struct BootParams {
    _before_count: [u8; 0x1e8],
    e820_count: u8,
    _before_cmdline: [u8; 0x228 - 0x1e9],
    cmdline: u32,
    _before_e820: [u8; 0x2d0 - 0x22c],
    e820: [E820; 128],
}

#[repr(C, packed)]
#[derive(Clone, Copy)]
struct E820 {
    address: u64,
    size: u64,
    kind: u32,
}

impl BootParams {
    /// Where the RAM ends that this kernel lies in.
    pub fn ram_end(&self) -> u64 {
        const RAM: u32 = 1;
        let here = cpu::CPUS.address();
        let count = (self.e820_count as usize).min(128);
        let entries = self.e820;
        let entry = entries[..count].iter().find(|e| e.kind == RAM && (e.address..e.address + e.size).contains(&here));
        entry.map_or(0, |e| (e.address + e.size).min(MAPPED_RAM))
    }

    /// The command line; empty if there is none, or it is not ASCII.
    pub fn cmdline(&self) -> &'static str {
        if self.cmdline == 0 {
            return "";
        }
        // SAFETY: the boot protocol says that a NUL-terminated string is there. Nothing overwrites it: the frames that
        // this kernel gives out lie behind its image, and it is far from the page that CPUs are started from.
        let line = unsafe { CStr::from_ptr(self.cmdline as usize as *const _) };
        line.to_str().unwrap_or("")
    }
}
