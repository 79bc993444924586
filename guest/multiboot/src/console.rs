//! Text and numbers on COM1, for 32-bit code. EBX and EDI survive each of these.

use core::arch::global_asm;

use vector14_guest_abi::COM1;

global_asm!(
    r#"
    .text
    .code32
    .globl print, print_decimal, print_bytes

/* Prints the text at ESI up to its NUL. */
print:
    mov edx, {com1}
2:  mov al, [esi]
    test al, al
    jz 3f
    out dx, al
    inc esi
    jmp 2b
3:  ret

/* Prints EAX, unsigned. */
print_decimal:
    xor ecx, ecx
    mov esi, 10
2:  xor edx, edx
    div esi
    add edx, '0'
    push edx
    inc ecx
    test eax, eax
    jnz 2b
    mov edx, {com1}
3:  pop eax
    out dx, al
    dec ecx
    jnz 3b
    ret

/* Prints ECX bytes at ESI in hexadecimal. */
print_bytes:
    mov edx, {com1}
2:  mov al, [esi]
    shr al, 4
    call print_digit
    mov al, [esi]
    and al, 15
    call print_digit
    inc esi
    dec ecx
    jnz 2b
    ret

print_digit:
    add al, '0'
    cmp al, '9'
    jbe 3f
    add al, 'a' - '9' - 1
3:  out dx, al
    ret

    .code64
    "#,
    com1 = const COM1,
);
