//! From 32-bit protected mode to long mode (SDM vol. 3A, 10.8.5.1): the first 2 MiB mapped to themselves, and nothing else.

use core::arch::global_asm;

const PRESENT_WRITABLE: u32 = 0b11;
const LARGE: u32 = 1 << 7;
const CR4_PAE: u32 = 1 << 5;
const EFER: u32 = 0xc000_0080;
const EFER_LME: u32 = 1 << 8;
const CR0_PG: u32 = 1 << 31;

pub(crate) const CODE_SELECTOR: u16 = 0x08;
pub(crate) const DATA_SELECTOR: u16 = 0x10;

global_asm!(
    r#"
    .text
    .code32
    .globl enter_long_mode
enter_long_mode:
    mov dword ptr [pml4], offset pdpt + {table}
    mov dword ptr [pdpt], offset directory + {table}
    mov dword ptr [directory], {leaf}
    mov eax, cr4
    or eax, {cr4_pae}
    mov cr4, eax
    mov eax, offset pml4
    mov cr3, eax
    mov ecx, {efer}
    rdmsr
    or eax, {efer_lme}
    wrmsr
    mov eax, cr0
    or eax, {cr0_pg}
    mov cr0, eax
    lgdt [gdt_pointer]
    mov eax, {code}
    push eax
    mov eax, offset long_mode
    push eax
    retf

    .section .rodata
    .balign 8
gdt:
    .quad 0, 0x00af9b000000ffff, 0x00cf93000000ffff
gdt_pointer:
    .short gdt_pointer - gdt - 1
    .long gdt

    .section .bss
    .balign 4096
pml4: .fill 4096
pdpt: .fill 4096
directory: .fill 4096

    .text
    .code64
    "#,
    table = const PRESENT_WRITABLE,
    leaf = const PRESENT_WRITABLE | LARGE,
    cr4_pae = const CR4_PAE,
    efer = const EFER,
    efer_lme = const EFER_LME,
    cr0_pg = const CR0_PG,
    code = const CODE_SELECTOR,
);
