//! Ring 0 of the tiny guest uses general registers only, keeps to itself, and leaves room for a stub.
//!
//! Some of the KVMs that run the guest emulate ring 0, and know few instructions beyond the general ones; and nothing
//! in ring 0 saves other registers. The compiler knows neither, so this looks at what it made.

use elf::ElfBytes;
use elf::endian::LittleEndian;
use iced_x86::{Decoder, DecoderOptions, Instruction, InstructionInfoFactory, Register};
use vector14_guest::TINY;

/// The bytes of `.ring0`, and the address that they are linked at.
fn ring0() -> (&'static [u8], u64) {
    let elf = ElfBytes::<LittleEndian>::minimal_parse(TINY).expect("an ELF file");
    let header = elf.section_header_by_name(".ring0").expect("section headers").expect("a .ring0 section");
    let (bytes, _) = elf.section_data(&header).expect("its data");
    (bytes, header.sh_addr)
}

fn instructions() -> impl Iterator<Item = Instruction> {
    let (bytes, address) = ring0();
    let mut decoder = Decoder::with_ip(64, bytes, address, DecoderOptions::NONE);
    std::iter::from_fn(move || decoder.can_decode().then(|| decoder.decode()))
}

fn is_general(register: Register) -> bool {
    register.is_gpr() || register.is_segment_register() || register.is_ip() || register.is_cr()
}

#[test]
fn uses_general_registers_only() {
    let mut factory = InstructionInfoFactory::new();
    for instruction in instructions() {
        assert!(!instruction.is_invalid(), "{:#x}: not an instruction", instruction.ip());
        for used in factory.info(&instruction).used_registers() {
            let register = used.register();
            assert!(is_general(register), "{:#x}: {:?} {register:?}", instruction.ip(), instruction.code());
        }
    }
}

#[test]
fn calls_nothing_outside() {
    let (bytes, start) = ring0();
    let section = start..start + bytes.len() as u64;
    for instruction in instructions() {
        if instruction.is_call_near() || instruction.is_jmp_short_or_near() || instruction.is_jcc_short_or_near() {
            let target = instruction.near_branch_target();
            assert!(section.contains(&target), "{:#x}: branches to {target:#x}", instruction.ip());
        }
    }
}

#[test]
fn leaves_room_for_a_stub_beside_the_page_fault_entry() {
    const PAGE: usize = 4096;
    const ROOM: usize = 64;
    let elf = ElfBytes::<LittleEndian>::minimal_parse(TINY).expect("an ELF file");
    let (symbols, names) = elf.symbol_table().expect("symbols").expect("a symbol table");
    let entries: Vec<u64> = symbols
        .iter()
        .filter(|symbol| names.get(symbol.st_name as usize).is_ok_and(|name| name.ends_with("page_fault_entry")))
        .map(|symbol| symbol.st_value)
        .collect();
    assert_eq!(entries.len(), 2, "two page-fault handlers");

    let (bytes, start) = ring0();
    for entry in entries {
        let page = usize::try_from(entry - start).expect("an offset") / PAGE * PAGE;
        let filler = bytes[page..][..PAGE].split(|&byte| byte != 0xcc).map(<[u8]>::len).max();
        assert!(filler >= Some(ROOM), "{entry:#x}: {filler:?} bytes of filler on its page");
    }
}
