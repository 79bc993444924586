//! Tests each instruction against its expected effect; the code bytes come from an assembler.

use super::*;
use vector14_hook::mock::{MockGuest, Outcome, write_fault};
use vector14_hook::{Access, Fault, Hook, Result, SystemRegisters, Verdict};

const AT: Va = Va(0x40_0100);
const WORD: u64 = 0x8877_6655_4433_22f1;

/// Emulates what it can, and leaves everything else to the guest.
struct Emulates;

impl Hook for Emulates {
    fn on_fault(&self, fault: &Fault, guest: &mut dyn Guest) -> Result {
        let instruction = guest.instruction()?;
        let Ok(at) = guest.translate(fault.address) else { return Ok(Verdict::Pass) };
        Ok(if emulate(&instruction, fault.address, at.address, guest)?.is_some() {
            Verdict::Skip
        } else {
            Verdict::Pass
        })
    }
}

/// Runs one instruction with RDI pointing to a word of memory. Returns the word and the registers afterwards.
fn run(code: &[u8]) -> (Outcome, u64, Registers) {
    let mut guest = MockGuest::new(0);
    let fault = write_fault(AT.0);
    guest.load(fault.rip, code, Access::USER | Access::EXECUTE);
    guest.load(AT, &WORD.to_le_bytes(), Access::USER | Access::WRITE);
    *guest.registers_mut() = Registers {
        rax: 0x1111_1111_1111_1111,
        rcx: 0x0203,
        rdi: AT.0,
        rsi: AT.0 - 0x10,
        r8: 2,
        ..Registers::default()
    };
    guest.set_system_registers(SystemRegisters { fs_base: Va(0x10), ..*guest.system_registers() });
    let outcome = guest.take(&Emulates, &fault);
    let mut word = [0; 8];
    guest.read(AT, &mut word).unwrap();
    (outcome, u64::from_le_bytes(word), *guest.registers())
}

#[test]
fn loads_fill_registers_as_wide_as_they_are() {
    for (code, rax) in [
        (&[0x48, 0x8b, 0x07][..], WORD),                     // mov rax, [rdi]
        (&[0x8b, 0x07], 0x4433_22f1),                        // mov eax, [rdi]
        (&[0x66, 0x8b, 0x07], 0x1111_1111_1111_22f1),        // mov ax, [rdi]
        (&[0x8a, 0x07], 0x1111_1111_1111_11f1),              // mov al, [rdi]
        (&[0x8a, 0x27], 0x1111_1111_1111_f111),              // mov ah, [rdi]
        (&[0x0f, 0xb6, 0x07], 0xf1),                         // movzx eax, byte ptr [rdi]
        (&[0x48, 0x0f, 0xbe, 0x07], 0xffff_ffff_ffff_fff1),  // movsx rax, byte ptr [rdi]
        (&[0x48, 0x63, 0x07], 0x4433_22f1),                  // movsxd rax, dword ptr [rdi]
        (&[0x4a, 0x8b, 0x04, 0xc6], WORD),                   // mov rax, [rsi + 8*r8]
        (&[0x64, 0x48, 0x8b, 0x06], WORD),                   // mov rax, fs:[rsi]
        (&[0x33, 0x07], 0x5522_33e0),                        // xor eax, [rdi]
        (&[0x48, 0x03, 0x07], WORD + 0x1111_1111_1111_1111), // add rax, [rdi]
        (&[0x48, 0x3b, 0x07], 0x1111_1111_1111_1111),        // cmp rax, [rdi]
    ] {
        let (outcome, word, registers) = run(code);
        assert_eq!((outcome, word), (Outcome::Skipped, WORD), "{code:02x?}");
        assert_eq!(registers.rax, rax, "{code:02x?}");
    }
}

#[test]
fn stores_change_as_many_bytes_as_they_have() {
    for (code, expected) in [
        (&[0x48, 0x89, 0x07][..], 0x1111_1111_1111_1111),   // mov [rdi], rax
        (&[0x88, 0x2f], 0x8877_6655_4433_2202),             // mov [rdi], ch
        (&[0xc7, 0x07, 4, 0, 0, 0], 0x8877_6655_0000_0004), // mov dword ptr [rdi], 4
        (&[0x48, 0xc7, 0x07, 0xff, 0xff, 0xff, 0xff], u64::MAX), // mov qword ptr [rdi], -1
        (&[0x01, 0x07], 0x8877_6655_5544_3402),             // add [rdi], eax
        (&[0x80, 0x27, 0x0f], 0x8877_6655_4433_2201),       // and byte ptr [rdi], 0xf
        (&[0x48, 0xff, 0x07], WORD + 1),                    // inc qword ptr [rdi]
        (&[0x48, 0xf7, 0x07, 1, 0, 0, 0], WORD),            // test qword ptr [rdi], 1
        (&[0x83, 0x3f, 0x01], WORD),                        // cmp dword ptr [rdi], 1
    ] {
        let (outcome, word, _) = run(code);
        assert_eq!((outcome, word), (Outcome::Skipped, expected), "{code:02x?}: {word:#x}");
    }
}

#[test]
fn what_is_not_known_for_sure_is_left_alone() {
    for code in [
        &[0xf0, 0x01, 0x07][..],   // lock add [rdi], eax
        &[0x87, 0x07],             // xchg [rdi], eax
        &[0xf3, 0x48, 0xab],       // rep stosq
        &[0x0f, 0x11, 0x07],       // movups [rdi], xmm0
        &[0xff, 0x37],             // push qword ptr [rdi]
        &[0x8e, 0x1f],             // mov ds, [rdi]
        &[0x48, 0xf7, 0x1f],       // neg qword ptr [rdi]
        &[0x48, 0x8b, 0x47, 0x08], // mov rax, [rdi + 8]: not what faulted
    ] {
        let (outcome, word, registers) = run(code);
        assert!(matches!(outcome, Outcome::Handled { .. }), "{code:02x?}");
        assert_eq!((word, registers.rax), (WORD, 0x1111_1111_1111_1111), "{code:02x?}");
    }
}

#[test]
fn an_access_across_pages_is_left_alone() {
    let mut guest = MockGuest::new(0);
    let registers = Registers { rdi: 0x40_0fff, ..Registers::default() };
    *guest.registers_mut() = registers;
    let fault = write_fault(0x40_0fff);
    guest.load(fault.rip, &[0x48, 0x89, 0x07], Access::USER | Access::EXECUTE);
    guest.load(fault.address, &[0; 8], Access::USER | Access::WRITE);
    assert!(matches!(guest.take(&Emulates, &fault), Outcome::Handled { .. }));
    // An access that extends into the next page.
    assert!(matches!(guest.take(&Emulates, &Fault { address: Va(0x40_1000), ..fault }), Outcome::Handled { .. }));
}
