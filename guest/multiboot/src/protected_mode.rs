//! Page faults in protected mode, with 32-bit or PAE paging (SDM vol. 3A, 4.3 and 4.4): what `paging=32` and `paging=pae` at
//! the end of the command line ask for, and `no-idt`, which faults before there is a descriptor table for interrupts.
//!
//! The first 4 MiB are mapped to themselves; the window's pages are absent, and each is for one verdict of the host's:
//! its first is for the guest's own handler to map, the second for the host, an instruction on the third is skipped, on
//! the fourth it becomes a #GP, and of the fifth the handler is told something else. The sixth is written to.

use core::arch::global_asm;

use vector14_guest_abi::EXIT_PORT;
use vector14_guest_abi::protected_mode::{FILL, OTHER_ERROR, OTHER_OFFSET, RAISED_ERROR, WINDOW};

use crate::long_mode::{CODE_SELECTOR, DATA_SELECTOR};

const PRESENT_WRITABLE: u32 = 0b11;
const LARGE: u32 = 1 << 7;
const CR4_PSE: u32 = 1 << 4;
const CR4_PAE: u32 = 1 << 5;
const CR0_PG: u32 = 1 << 31;
/// What EAX holds before an instruction that is not to have an effect.
const UNTOUCHED: u32 = 0x1234_5678;
/// What the frame of the pages that the guest maps is filled with.
const MAPPED: u32 = 0x7777_7777;

// ECX is free in all of this; EBX and EDI survive `print`.
global_asm!(
    r#"
    .text
    .code32
    .globl enter_32_bit_paging, enter_pae_paging, fault_without_idt

enter_32_bit_paging:
    mov esi, offset bits32_text
    call print
    call set_up_32_bit_paging
    jmp faults32

enter_pae_paging:
    mov esi, offset pae_text
    call print
    mov byte ptr [entry_shift], 3
    mov dword ptr [pae_pointers], offset upper_table + 1
    mov dword ptr [pae_pointers + 8], offset second_upper_table + 1
    mov dword ptr [upper_table], {leaf}
    mov dword ptr [upper_table + 8], 0x200000 + {leaf}
    mov dword ptr [second_upper_table], offset window_table + {table}
    mov eax, {pae}
    mov cr4, eax
    mov eax, offset pae_pointers
    call set_up_paging
    jmp faults32

/* The fault is the host's, or it is the end. */
fault_without_idt:
    mov esi, offset no_idt_text
    call print
    call set_up_32_bit_paging
    lidt [no_idt]
    mov eax, [{window} + 0x1000]
    cmp eax, {fill}
    jne fail
    mov edi, 0
    jmp report32

set_up_32_bit_paging:
    mov byte ptr [entry_shift], 2
    mov dword ptr [upper_table], {leaf}
    mov dword ptr [upper_table + ({window} >> 22) * 4], offset window_table + {table}
    mov eax, {pse}
    mov cr4, eax
    mov eax, offset upper_table

/* EAX: CR3. */
set_up_paging:
    mov cr3, eax
    mov eax, cr0
    or eax, {pg}
    mov cr0, eax
    lgdt [gdt32_pointer]
    mov eax, {data}
    mov ds, eax
    mov es, eax
    mov ss, eax
    pop edx
    push {code}
    push edx
    retf

/* EAX: a handler, EDI: its gate. */
set_gate32:
    mov [edi], ax
    mov word ptr [edi + 2], {code}
    mov word ptr [edi + 4], 0x8e00
    shr eax, 16
    mov [edi + 6], ax
    ret

faults32:
    mov eax, offset page_fault32
    mov edi, offset idt32 + 14 * 8
    call set_gate32
    mov eax, offset general_protection32
    mov edi, offset idt32 + 13 * 8
    call set_gate32
    lidt [idt32_pointer]
    mov dword ptr [window_frame], {mapped}

    mov esi, offset reinject_text
    call print
    mov edi, {window}
    mov eax, [edi]
    cmp eax, {mapped}
    jne fail
    cmp [last_address], edi
    jne fail
    cmp dword ptr [last_error], 0
    jne fail

    mov esi, offset resolve_text
    call print
    mov edi, {window} + 0x1000
    mov eax, [edi]
    cmp eax, {fill}
    jne fail
    cmp dword ptr [count32], 1
    jne fail

    mov esi, offset skip_text
    call print
    mov edi, {window} + 0x2000
    mov eax, {untouched}
    mov eax, [edi]
    cmp eax, {untouched}
    jne fail
    cmp dword ptr [count32], 1
    jne fail

    mov esi, offset raise_text
    call print
    mov edi, {window} + 0x3000
    mov eax, [edi]
after_raise:
    cmp dword ptr [raised], 1
    jne fail
    cmp dword ptr [count32], 1
    jne fail

    mov esi, offset other_text
    call print
    mov edi, {window} + 0x4000
    mov eax, [edi]
    lea eax, [edi + {other_offset}]
    cmp [last_address], eax
    jne fail
    cmp dword ptr [last_error], {other_error}
    jne fail

    mov esi, offset write_text
    call print
    mov edi, {window} + 0x5000
    mov dword ptr [edi], 5
    cmp [last_address], edi
    jne fail
    cmp dword ptr [last_error], 2
    jne fail
    mov edi, [count32]

/* EDI: how many faults the handler has counted. */
report32:
    mov esi, offset faults_text
    call print
    mov eax, edi
    call print_decimal
    mov esi, offset ok_text
    call print
    xor eax, eax
    out {exit_port}, al
2:  hlt
    jmp 2b

/* Maps the page of CR2 to the one frame that there is. */
page_fault32:
    push eax
    push ecx
    mov eax, [esp + 8]
    mov [last_error], eax
    mov eax, cr2
    mov [last_address], eax
    inc dword ptr [count32]
    shr eax, 12
    and eax, 0xff
    mov cl, [entry_shift]
    shl eax, cl
    mov dword ptr [window_table + eax], offset window_frame + {table}
    mov eax, cr2
    invlpg [eax]
    pop ecx
    pop eax
    add esp, 4
    iretd

/* Counts those that have the error code which the host gives its #GP, at the instruction that it gives it to. */
general_protection32:
    cmp dword ptr [esp], {raised_error}
    jne fail
    cmp dword ptr [esp + 4], offset after_raise - 2
    jne fail
    inc dword ptr [raised]
    add esp, 4
    mov dword ptr [esp], offset after_raise
    iretd

    .section .rodata
bits32_text: .asciz "multiboot: 32-bit paging\n"
pae_text: .asciz "multiboot: PAE paging\n"
no_idt_text: .asciz "multiboot: no IDT\n"
reinject_text: .asciz "multiboot: reinject\n"
resolve_text: .asciz "multiboot: resolve\n"
skip_text: .asciz "multiboot: skip\n"
raise_text: .asciz "multiboot: raise\n"
other_text: .asciz "multiboot: reinject as another fault\n"
write_text: .asciz "multiboot: write\n"
faults_text: .asciz "multiboot: faults="
ok_text: .asciz " ok\n"
    .balign 8
gdt32:
    .quad 0, 0x00cf9b000000ffff, 0x00cf93000000ffff
gdt32_pointer:
    .short gdt32_pointer - gdt32 - 1
    .long gdt32
idt32_pointer:
    .short 15 * 8 - 1
    .long idt32
no_idt:
    .short 0
    .long 0

    .section .bss
    .balign 4096
upper_table: .fill 4096
second_upper_table: .fill 4096
window_table: .fill 4096
window_frame: .fill 4096
pae_pointers: .fill 32
idt32: .fill 15 * 8
count32: .fill 4
raised: .fill 4
last_address: .fill 4
last_error: .fill 4
entry_shift: .fill 4

    .text
    .code64
    "#,
    table = const PRESENT_WRITABLE,
    leaf = const PRESENT_WRITABLE | LARGE,
    pse = const CR4_PSE,
    pae = const CR4_PAE,
    pg = const CR0_PG,
    code = const CODE_SELECTOR,
    data = const DATA_SELECTOR,
    window = const WINDOW,
    fill = const FILL,
    mapped = const MAPPED,
    untouched = const UNTOUCHED,
    raised_error = const RAISED_ERROR,
    other_offset = const OTHER_OFFSET,
    other_error = const OTHER_ERROR,
    exit_port = const EXIT_PORT,
);
