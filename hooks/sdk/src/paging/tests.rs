//! Tests walks in every mode, through valid and invalid tables.

use std::collections::HashMap;

use super::entry::{LARGE, NO_EXECUTE, PRESENT, USER, WRITE};
use super::*;
use crate::{Cr3, GuestError, Pa, Va};

/// Tables as a map from an entry's address to its value; entries not in the map read as 0.
fn tables(entries: &[(u64, u64)]) -> impl Fn(Pa) -> Result<u64, GuestError> + use<> {
    let entries: HashMap<u64, u64> = entries.iter().copied().collect();
    move |slot| {
        if slot.0 >= 1 << 30 {
            return Err(GuestError::OutsideMemory(slot));
        }
        Ok(entries.get(&slot.0).copied().unwrap_or(0))
    }
}

const PAGING: Paging = Paging { cr3: Cr3(0x1000), mode: Mode::Long { levels: 4 }, no_execute: true };
const ALL: u64 = PRESENT | WRITE | USER;

#[test]
fn leaves_of_every_size_are_found() {
    let load = tables(&[
        (0x1000, 0x2000 | ALL),
        (0x2000, 0x3000 | ALL),
        (0x2008, 0x4000_0000 | ALL | LARGE),
        (0x3000, 0x4000 | ALL),
        (0x3008, 0x0020_0000 | ALL | LARGE),
        (0x4008, 0x9000 | PRESENT | USER | NO_EXECUTE),
    ]);
    let at = |va| PAGING.translate(Va(va), &load).unwrap();
    let expect = |address, page_size, access| Translation { address: Pa(address), page_size, access };
    assert_eq!(at(0x1234), expect(0x9234, 4096, Access::USER));
    assert_eq!(at(0x0020_1234), expect(0x0020_1234, 2 << 20, Access::all()));
    assert_eq!(at(0x4012_3456), expect(0x4012_3456, 1 << 30, Access::all()));
}

#[test]
fn five_levels_are_walked_where_cr4_says_so() {
    let load = tables(&[(0x1008, 0x2000 | ALL), (0x2000, 0x3000 | ALL), (0x3000, 0x4000_0000 | ALL | LARGE)]);
    let five = Paging { mode: Mode::Long { levels: 5 }, ..PAGING };
    assert_eq!(five.translate(Va(1 << 48), &load).unwrap().address, Pa(0x4000_0000));
    assert_eq!(PAGING.translate(Va(1 << 48), &load), Err(GuestError::Malformed(Va(1 << 48))));
}

#[test]
fn a_table_that_points_to_itself_ends_after_its_levels() {
    let load = tables(&[(0x1000, 0x1000 | ALL)]);
    assert_eq!(PAGING.translate(Va(0x123), &load).unwrap().address, Pa(0x1123));
}

#[test]
fn reserved_bits_and_tables_outside_of_memory_are_errors() {
    let outside = tables(&[(0x1000, 0x7000_0000 | ALL)]);
    assert_eq!(PAGING.translate(Va(0), outside), Err(GuestError::OutsideMemory(Pa(0x7000_0000))));
    let large_at_top = tables(&[(0x1000, 0x2000 | ALL | LARGE)]);
    assert_eq!(PAGING.translate(Va(0), large_at_top), Err(GuestError::Malformed(Va(0))));
    let misplaced = tables(&[(0x1000, 0x2000 | ALL), (0x2000, 0x0020_0000 | ALL | LARGE)]);
    assert_eq!(PAGING.translate(Va(0), misplaced), Err(GuestError::Malformed(Va(0))));
}

#[test]
fn an_absent_entry_names_its_level_and_place() {
    let load = tables(&[(0x1000, 0x2000 | ALL)]);
    let walk = PAGING.walk(Va(8 << 30), &load).unwrap();
    assert_eq!(walk.end(), Step::Absent(TableEntry { level: 3, slot: Pa(0x2040), entry: 0 }));
    assert_eq!(walk.entries()[0], TableEntry { level: 4, slot: Pa(0x1000), entry: 0x2000 | ALL });
    assert_eq!(walk.entries().len(), 2);
    assert_eq!(PAGING.translate(Va(8 << 30), &load), Err(GuestError::NotMapped(Va(8 << 30))));
}

#[test]
fn canonical_addresses_are_sign_extended() {
    assert!(PAGING.is_canonical(Va(0x0000_7fff_ffff_ffff)));
    assert!(PAGING.is_canonical(Va(0xffff_8000_0000_0000)));
    assert!(!PAGING.is_canonical(Va(0x0000_8000_0000_0000)));
    assert!(!PAGING.is_canonical(Va(0xff00_0000_0000_0000)));
    assert!(Paging { mode: Mode::Long { levels: 5 }, ..PAGING }.is_canonical(Va(0xff00_0000_0000_0000)));
}

const BITS32: Paging = Paging { mode: Mode::Bits32 { large_pages: true }, no_execute: false, ..PAGING };
const PAE: Paging = Paging { cr3: Cr3(0x1020), mode: Mode::Pae, no_execute: true };

/// Packs two 4-byte entries into a word.
fn pair(low: u32, high: u32) -> u64 {
    u64::from(low) | u64::from(high) << 32
}

fn end(paging: &Paging, address: u64, load: impl Fn(Pa) -> Result<u64, GuestError>) -> Step {
    paging.walk(Va(address), load).unwrap().end()
}

#[test]
fn entries_of_4_bytes_are_halves_of_words() {
    let load = tables(&[(0x1000, pair(0x2007, 0x0080_0087)), (0x2000, pair(0x5005, 0x6003))]);
    let at = |va| BITS32.translate(Va(va), &load).unwrap();
    let rights = |access| access | Access::EXECUTE;
    let page = |address, access| Translation { address: Pa(address), page_size: 4096, access: rights(access) };
    assert_eq!(at(0x0123), page(0x5123, Access::USER));
    assert_eq!(at(0x1123), page(0x6123, Access::WRITE));
    assert_eq!((at(0x0040_1234).address, at(0x0040_1234).page_size), (Pa(0x0080_1234), 4 << 20));
    assert_eq!(end(&BITS32, 0x0080_0000, &load), Step::Absent(TableEntry { level: 2, slot: Pa(0x1008), entry: 0 }));
    assert_eq!(end(&BITS32, 0x0000_3000, &load), Step::Absent(TableEntry { level: 1, slot: Pa(0x200c), entry: 0 }));
    assert_eq!(BITS32.translate(Va(1 << 32), &load), Err(GuestError::Malformed(Va(1 << 32))));
}

#[test]
fn pages_of_4_mib_reach_above_4_gib_and_are_tables_without_pse() {
    let entry = 0x0080_0087 | 1 << 13;
    let load = tables(&[(0x1000, entry), (0x0080_2000, 0x5007)]);
    assert_eq!(BITS32.translate(Va(0x1234), &load).unwrap().address, Pa(1 << 32 | 0x0080_1234));
    let without = Paging { mode: Mode::Bits32 { large_pages: false }, ..BITS32 };
    assert_eq!(without.translate(Va(0x234), &load).unwrap().address, Pa(0x5234));
    let reserved = tables(&[(0x1000, 0x0080_0087 | 1 << 21)]);
    assert_eq!(BITS32.translate(Va(0), reserved), Err(GuestError::Malformed(Va(0))));
}

#[test]
fn pae_has_four_top_entries_that_take_no_rights_away() {
    let load = tables(&[
        (0x1038, 0x2000 | PRESENT),
        (0x2000, 0x3000 | ALL),
        (0x2008, 0x0040_0000 | ALL | LARGE | NO_EXECUTE),
        (0x3008, 0x9000 | PRESENT | USER),
    ]);
    let at = |va| PAE.translate(Va(va), &load).unwrap();
    let expect = |address, page_size, access| Translation { address: Pa(address), page_size, access };
    assert_eq!(at(0xc000_1234), expect(0x9234, 4096, Access::USER | Access::EXECUTE));
    assert_eq!(at(0xc020_1234), expect(0x0040_1234, 2 << 20, Access::USER | Access::WRITE));
    assert_eq!(end(&PAE, 0, &load), Step::Absent(TableEntry { level: 3, slot: Pa(0x1020), entry: 0 }));
    let reserved = tables(&[(0x1020, 0x2000 | PRESENT), (0x2000, 0x3000 | ALL | 1 << 52)]);
    assert_eq!(PAE.translate(Va(0), reserved), Err(GuestError::Malformed(Va(0))));
}

#[test]
fn without_paging_an_address_stands_for_itself() {
    let off = Paging { mode: Mode::Off, ..PAGING };
    assert_eq!(off.translate(Va(0x1234), tables(&[])).unwrap().address, Pa(0x1234));
    assert_eq!(off.translate(Va(1 << 32), tables(&[])), Err(GuestError::Malformed(Va(1 << 32))));
}

#[test]
fn entries_are_made_for_what_a_mode_can_name() {
    let high = Pa(1 << 32);
    assert_eq!(BITS32.leaf_entry(Pa(0x5000), Access::USER), Ok(0x5005));
    assert_eq!(BITS32.leaf_entry(high, Access::USER), Err(GuestError::OutsideMemory(high)));
    assert_eq!(PAE.leaf_entry(high, Access::WRITE), Ok(high.0 | 3 | NO_EXECUTE));
    assert_eq!(PAE.table_entry(Pa(0x5000), 2, Va(0)), Ok(0x5007));
    assert_eq!(PAE.table_entry(Pa(0x5000), 3, Va(0x123)), Err(GuestError::Malformed(Va(0x123))));
}

#[test]
fn an_entry_of_4_bytes_is_replaced_beside_its_neighbour() {
    assert_eq!(Part::Low.replace(0x1111_1111_2222_2222, 3), 0x1111_1111_0000_0003);
    assert_eq!(Part::High.replace(0x1111_1111_2222_2222, 3), 0x0000_0003_2222_2222);
    assert_eq!((Part::Low.of(0x1_0000_0002), Part::High.of(0x1_0000_0002)), (2, 1));
    assert_eq!((Part::Whole.of(7), Part::Whole.replace(7, 8)), (7, 8));
}
