//! What `firmware` at the end of the command line asks for: the BIOS data area, the MP tables (Intel MultiProcessor
//! Specification 1.4), and the local APIC's timer in its mode TSC-deadline (SDM vol. 3A, 11.5.4.1), where CPUID has it.

use core::arch::global_asm;

use vector14_guest_abi::EXIT_PORT;

/// Local APIC registers: spurious interrupt vector, timer, and interrupt requests 64 to 95.
const SPURIOUS: u32 = 0xfee0_00f0;
const TIMER: u32 = 0xfee0_0320;
const REQUESTS_64: u32 = 0xfee0_0220;
const APIC_ENABLED: u32 = 1 << 8;
/// The timer's mode, and vector 64.
const TSC_DEADLINE_64: u32 = 2 << 17 | 64;
const IA32_TSC_DEADLINE: u32 = 0x6e0;
/// How far in the future the deadline is.
const TSC_DISTANCE: u32 = 1 << 16;

// EBX and EDI survive `print` and `print_decimal`.
global_asm!(
    r#"
    .text
    .code32
    .globl report_firmware

report_firmware:
    mov esi, offset memory_size_text
    call print
    movzx eax, word ptr [0x413]
    call print_decimal
    mov esi, offset ebda_text
    call print
    movzx eax, word ptr [0x40e]
    shr eax, 6
    call print_decimal
    mov esi, offset com1_text
    call print
    movzx eax, word ptr [0x400]
    call print_decimal

    mov edi, 0xf0000
2:  cmp dword ptr [edi], {mp}
    je 3f
    add edi, 16
    cmp edi, 0x100000
    jb 2b
    jmp fail
3:  mov ecx, 16
    call verify_sum
    mov edi, [edi + 4]
    cmp dword ptr [edi], {pcmp}
    jne fail
    movzx ecx, word ptr [edi + 4]
    call verify_sum
    call count_entries
    mov edi, offset entry_counts
4:  mov esi, [edi + 4]
    call print
    mov eax, [edi]
    call print_decimal
    add edi, 8
    cmp edi, offset entry_counts_end
    jne 4b

    mov esi, offset io_apic_text
    call print
    movzx eax, byte ptr [io_apic_id]
    call print_decimal
    mov esi, offset register_text
    call print
    mov dword ptr [0xfec00000], 0
    mov eax, [0xfec00010]
    shr eax, 24
    call print_decimal

    mov eax, 1
    cpuid
    mov esi, offset no_timer_text
    bt ecx, 24
    jnc 6f
    or dword ptr [{spurious}], {apic_enabled}
    mov dword ptr [{timer}], {tsc_deadline}
    rdtsc
    add eax, {distance}
    adc edx, 0
    mov ecx, {deadline_msr}
    wrmsr
    /* Interrupts are off: the request stays. */
5:  test dword ptr [{requests}], 1
    jz 5b
    mov esi, offset timer_text
6:  call print
    xor eax, eax
    out {exit_port}, al
7:  hlt
    jmp 7b

/* The ECX bytes at EDI make 0. */
verify_sum:
    xor eax, eax
2:  add al, [edi + ecx - 1]
    dec ecx
    jnz 2b
    test al, al
    jnz fail
    ret

/* Counts the entries of the configuration table at EDI by their types. */
count_entries:
    movzx ecx, word ptr [edi + 34]
    add edi, 44
2:  movzx eax, byte ptr [edi]
    cmp eax, 4
    ja fail
    inc dword ptr [entry_counts + 8 * eax]
    cmp eax, 2
    jne 3f
    mov dl, [edi + 1]
    mov [io_apic_id], dl
3:  test eax, eax
    jnz 4f
    add edi, 12
4:  add edi, 8
    dec ecx
    jnz 2b
    ret

    .section .rodata
memory_size_text: .asciz "multiboot: memory below "
ebda_text: .asciz " KiB, EBDA at "
com1_text: .asciz " KiB, COM1 at "
cpus_text: .asciz "\nmultiboot: MP tables: CPUs "
buses_text: .asciz ", buses "
io_apics_text: .asciz ", I/O APICs "
interrupts_text: .asciz ", interrupts "
local_interrupts_text: .asciz ", local interrupts "
io_apic_text: .asciz "\nmultiboot: I/O APIC "
register_text: .asciz ", by its register "
timer_text: .asciz "\nmultiboot: the TSC deadline has come\n"
no_timer_text: .asciz "\nmultiboot: no TSC deadline\n"

    .section .data
    .balign 4
entry_counts:
    .long 0, cpus_text, 0, buses_text, 0, io_apics_text, 0, interrupts_text, 0, local_interrupts_text
entry_counts_end:
io_apic_id: .byte 0

    .text
    .code64
    "#,
    mp = const u32::from_le_bytes(*b"_MP_"),
    pcmp = const u32::from_le_bytes(*b"PCMP"),
    spurious = const SPURIOUS,
    apic_enabled = const APIC_ENABLED,
    timer = const TIMER,
    tsc_deadline = const TSC_DEADLINE_64,
    distance = const TSC_DISTANCE,
    deadline_msr = const IA32_TSC_DEADLINE,
    requests = const REQUESTS_64,
    exit_port = const EXIT_PORT,
);
