//! The header that makes this a multiboot kernel (specification, 3.1), its entry, and the boot information (3.3). The
//! end of the command line selects what follows: `paging=32`, `paging=pae`, `no-idt` and `firmware`, or else long mode.

use core::arch::global_asm;

use vector14_guest_abi::EXIT_PORT;

const HEADER_MAGIC: u32 = 0x1bad_b002;
/// In EAX at the entry.
const LOADER_MAGIC: u32 = 0x2bad_b002;

/// Modules begin at pages; the size of memory is wanted.
const FLAGS: u32 = 1 << 0 | 1 << 1;

/// What the boot information must have: memory, command line, modules, memory map.
const WANTED: u32 = 1 << 0 | 1 << 2 | 1 << 3 | 1 << 6;

// EBX points at the boot information until long mode; `print` and its like preserve it.
global_asm!(
    r#"
    .section .multiboot, "a"
    .balign 4
    .long {header_magic}, {flags}, {checksum}

    .section .text
    .code32
    .globl _start, fail
_start:
    cmp eax, {loader_magic}
    jne fail
    mov esp, offset stack_end
    cld
    mov eax, [ebx]
    and eax, {wanted}
    cmp eax, {wanted}
    jne fail

    mov esi, offset memory_text
    call print
    mov eax, [ebx + 4]
    call print_decimal
    mov esi, offset and_text
    call print
    mov eax, [ebx + 8]
    call print_decimal
    mov esi, offset ranges_text
    call print
    call count_ranges
    call print_decimal
    mov esi, offset cmdline_text
    call print
    mov esi, [ebx + 16]
    call print

    mov esi, offset modules_text
    call print
    mov eax, [ebx + 20]
    call print_decimal
    cmp dword ptr [ebx + 20], 0
    je 2f
    mov edi, [ebx + 24]
    mov esi, offset module_text
    call print
    mov esi, [edi + 8]
    call print
    mov esi, offset begins_text
    call print
    mov ecx, 4
    mov esi, [edi]
    call print_bytes
2:
    mov esi, offset end_text
    call print
    mov esi, [ebx + 16]
5:  cmp byte ptr [esi], 0
    je 6f
    inc esi
    jmp 5b
6:  mov eax, [esi - 4]
    cmp eax, {bits32}
    je enter_32_bit_paging
    cmp eax, {pae}
    je enter_pae_paging
    cmp eax, {no_idt}
    je fault_without_idt
    cmp eax, {firmware}
    je report_firmware
    jmp enter_long_mode

/* EAX: how many entries the memory map has; each is preceded by its size. */
count_ranges:
    xor eax, eax
    mov edx, [ebx + 48]
    mov ecx, edx
    add ecx, [ebx + 44]
3:  cmp edx, ecx
    jae 4f
    add edx, [edx]
    add edx, 4
    inc eax
    jmp 3b
4:  ret

fail:
    mov al, 1
    out {exit_port}, al
5:  hlt
    jmp 5b

    .section .rodata
memory_text: .asciz "multiboot: memory "
and_text: .asciz "+"
ranges_text: .asciz " KiB, ranges "
cmdline_text: .asciz "\nmultiboot: cmdline "
modules_text: .asciz "\nmultiboot: modules "
module_text: .asciz "\nmultiboot: module "
begins_text: .asciz " begins "
end_text: .asciz "\n"

    .section .bss
    .balign 16
    .fill 4096
    .globl stack_end
stack_end:

    .text
    .code64
    "#,
    header_magic = const HEADER_MAGIC,
    flags = const FLAGS,
    checksum = const HEADER_MAGIC.wrapping_add(FLAGS).wrapping_neg(),
    loader_magic = const LOADER_MAGIC,
    wanted = const WANTED,
    bits32 = const u32::from_le_bytes(*b"g=32"),
    pae = const u32::from_le_bytes(*b"=pae"),
    firmware = const u32::from_le_bytes(*b"ware"),
    no_idt = const u32::from_le_bytes(*b"-idt"),
    exit_port = const EXIT_PORT,
);
