//! Page faults in ring 0, each at a page of its own, and the handler that counts them and steps over the instruction.

use core::arch::global_asm;

use vector14_guest_abi::{COM1, EXIT_PORT};

use crate::long_mode::{CODE_SELECTOR, DATA_SELECTOR};

/// How many there are.
const FAULTS: u32 = 32;

/// Where nothing is mapped.
const NOWHERE: u64 = 1 << 30;

/// The 16 bytes of a gate are written at run time: the linker can't split an address.
const PRESENT_INTERRUPT_GATE: u16 = 0x8e00;

global_asm!(
    r#"
    .text
    .globl long_mode
long_mode:
    mov eax, {data}
    mov ss, eax
    mov ds, eax
    mov es, eax
    mov esp, offset stack_end
    mov eax, offset page_fault
    mov word ptr [gate], ax
    mov word ptr [gate + 2], {code}
    mov word ptr [gate + 4], {present_interrupt_gate}
    shr eax, 16
    mov word ptr [gate + 6], ax
    lidt [idt_pointer]
    /* An exit: from here on faults can be intercepted. */
    mov esi, offset ready_text
    call print64

    mov ecx, {faults}
    mov edi, {nowhere}
2:  mov rax, [rdi]
after_read:
    add rdi, 4096
    dec ecx
    jnz 2b

    mov esi, offset wrong_text
    mov edi, 1
    cmp qword ptr [count], {faults}
    jne 3f
    mov esi, offset passed_text
    xor edi, edi
3:  call print64
    mov eax, edi
    out {exit_port}, al
4:  hlt
    jmp 4b

print64:
    mov edx, {com1}
5:  mov al, [rsi]
    test al, al
    jz 6f
    out dx, al
    inc rsi
    jmp 5b
6:  ret

    .balign 16, 0xcc
page_fault:
    inc qword ptr [count]
    add rsp, 8
    mov qword ptr [rsp], offset after_read
    iretq

    .section .rodata
ready_text: .asciz "multiboot: long mode\n"
passed_text: .asciz "multiboot: faults={faults} ok\n"
wrong_text: .asciz "multiboot: the handler counted something else\n"
idt_pointer:
    .short 15 * 16 - 1
    .quad idt

    .section .bss
    .balign 16
idt: .fill 14 * 16
gate: .fill 16
count: .fill 8
    .text
    "#,
    data = const DATA_SELECTOR,
    code = const CODE_SELECTOR,
    present_interrupt_gate = const PRESENT_INTERRUPT_GATE,
    faults = const FAULTS,
    nowhere = const NOWHERE,
    com1 = const COM1,
    exit_port = const EXIT_PORT,
);
