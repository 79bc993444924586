//! Boot: the first instructions, and the page tables.
//!
//! Entered by the Linux 64-bit boot protocol: long mode, low memory mapped to itself, interrupts off, RSI =
//! `boot_params`. The page tables are built at link time, so that one write to CR3 loads them.

use core::arch::global_asm;

use crate::gdt::{USER_CODE, USER_DATA};
use crate::paging::{LARGE, PRESENT, PageTable, UNCACHED, USER, WRITABLE};
use crate::{cpu, exception, main, smp};

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

/// The fourth GiB: the local APIC, and a hole.
static HIGH: PageTable = PageTable::identity(3 << 30, PRESENT | WRITABLE | USER | LARGE | UNCACHED);
