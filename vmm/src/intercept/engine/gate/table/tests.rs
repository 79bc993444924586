use std::sync::Arc;

use vector14_hook::paging::Mode;
use vector14_hook::{Cr3, Pa};

use super::*;
use crate::sys::mapped::{Access, AccessError};

const PAGING: Paging = Paging { cr3: Cr3(0x1000), mode: Mode::Long { levels: 4 }, no_execute: true };
const IDT: GateSlot = slot(0x5000);
const COPY: GateSlot = slot(0x6000);

const fn slot(physical: u64) -> GateSlot {
    GateSlot { physical: Pa(physical), width: Width::Bits64 }
}

/// Which pages the guest can only read.
#[derive(Clone, Default)]
struct Slots(Arc<Mutex<Vec<Pa>>>);

impl SetAccess for Slots {
    fn set_access(&self, page: Pa, access: Access) -> Result<(), AccessError> {
        let mut read_only = lock(&self.0);
        read_only.retain(|other| *other != page);
        if access == Access::ReadOnly {
            read_only.push(page);
        }
        Ok(())
    }
}

fn table() -> Table {
    table_with(Room::default())
}

fn table_with(room: Room) -> Table {
    Table::new(room, ArmWhen::GateIsPresent, Box::new(Slots::default()))
}

fn arming(memory: &Memory) -> Arming<'_> {
    Arming { memory, paging: &PAGING, idt: Va(0x5000), rip: 0, others: &[], thorough: true }
}

fn arm(table: &Table, memory: &Memory, slot: GateSlot) {
    table.arm(&arming(memory), slot, None).unwrap();
}

fn notes(table: &Table) -> Vec<String> {
    table.take_notes(Instant::now())
}

/// 4 MiB, the first 2 mapped at 0, with two handlers that are followed by filler.
fn guest() -> Memory {
    let memory = Memory::new(4 << 20).unwrap();
    for (slot, entry) in [(0x1000, 0x2003u64), (0x2000, 0x3003), (0x3000, 0x83)] {
        memory.write(Pa(slot), &entry.to_le_bytes()).unwrap();
    }
    for handler in [0x8000, 0x9000] {
        memory.write(Pa(handler), &[0x90; 64]).unwrap();
        memory.write(Pa(handler + 64), &[0xcc; 64]).unwrap();
    }
    IDT.write(&memory, gate_to(0x8000));
    memory
}

fn gate_to(handler: u64) -> Gate {
    Gate([0, 0, 0x10, 0, 0, 0x8e, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]).with_offset(Va(handler))
}

fn offset(memory: &Memory, gate: GateSlot) -> Va {
    gate.read(memory).unwrap().offset()
}

fn snapshot(memory: &Memory) -> Vec<u8> {
    let mut bytes = vec![0; 4 << 20];
    memory.read(Pa(0), &mut bytes).unwrap();
    bytes
}

#[test]
fn disarming_restores_the_gate_and_leaves_the_stub_to_contexts_that_return_there() {
    let (memory, table) = (guest(), table());
    let gate = IDT.read(&memory).unwrap();
    arm(&table, &memory, IDT);
    let stub = table.stubs()[0];
    assert_eq!(offset(&memory, IDT), stub.place.start);
    assert!(table.armed_at().is_some() && table.in_place());
    let armed = snapshot(&memory);
    table.disarm(&memory).unwrap();
    assert_eq!(IDT.read(&memory), Some(gate));
    assert!(!table.in_place() && stub.is_intact(&memory, &PAGING));
    arm(&table, &memory, IDT);
    assert_eq!(table.stubs(), [stub], "the stub serves again");
    assert_eq!(snapshot(&memory), armed);
}

#[test]
fn a_stub_that_the_guest_has_overwritten_is_not_used_again() {
    let (memory, table) = (guest(), table());
    arm(&table, &memory, IDT);
    let first = table.stubs()[0];
    table.disarm(&memory).unwrap();
    memory.write(first.place.physical, &[0x90; 4]).unwrap();
    arm(&table, &memory, IDT);
    let stubs = table.stubs();
    assert!(stubs.len() == 1 && stubs[0] != first && stubs[0].is_intact(&memory, &PAGING), "{stubs:?}");
}

#[test]
fn a_gate_that_is_rewritten_gets_a_stub_of_its_new_handler() {
    let (memory, table) = (guest(), table());
    arm(&table, &memory, IDT);
    let saved = IDT.read(&memory).unwrap();
    IDT.write(&memory, gate_to(0x9000));
    assert!(!table.adopt(IDT, gate_to(0x9000)));
    arm(&table, &memory, IDT);
    let handlers: Vec<Va> = table.stubs().iter().map(|stub| stub.handler).collect();
    assert_eq!(handlers, [Va(0x8000), Va(0x9000)]);
    assert_eq!(offset(&memory, IDT), table.stubs()[1].place.start);

    IDT.write(&memory, saved);
    assert!(table.adopt(IDT, saved), "a gate that was read back leads to its first stub");
    table.disarm(&memory).unwrap();
    assert_eq!(offset(&memory, IDT), Va(0x8000));
}

#[test]
fn a_copied_gate_is_known_and_restored_too() {
    let (memory, table) = (guest(), table());
    arm(&table, &memory, IDT);
    let copy = IDT.read(&memory).unwrap();
    COPY.write(&memory, copy);
    assert!(table.adopt(COPY, copy) && !table.has_settled(COPY), "its page is not kept yet");
    arm(&table, &memory, COPY);
    assert!(table.keeps(Pa(0x6000)));
    table.disarm(&memory).unwrap();
    assert_eq!((offset(&memory, IDT), offset(&memory, COPY)), (Va(0x8000), Va(0x8000)));
}

/// A guest with many handlers, 0x200 bytes apart, each followed by filler.
fn guest_with_handlers(count: u64) -> (Memory, impl Iterator<Item = u64>) {
    let memory = guest();
    let handlers = (0..count).map(|index| 0x1_0000 + index * 0x200);
    for handler in handlers.clone() {
        memory.write(Pa(handler), &[0x90; 64]).unwrap();
        memory.write(Pa(handler + 64), &[0xcc; 64]).unwrap();
    }
    (memory, handlers)
}

#[test]
fn ever_new_handlers_take_over_the_stubs_of_those_that_have_gone() {
    let (memory, handlers) = guest_with_handlers(2 * STUB_LIMIT as u64);
    let table = table();
    for handler in handlers {
        IDT.write(&memory, gate_to(handler));
        arm(&table, &memory, IDT);
        let stub = *lock(&table.state).stub_at(offset(&memory, IDT)).unwrap();
        assert_eq!(stub.handler, Va(handler));
        memory.write(Pa(handler), &[0xcc; 16]).unwrap();
    }
    assert_eq!((table.stubs().len(), notes(&table)), (STUB_LIMIT, Vec::new()));
}

#[test]
fn a_handler_that_is_still_there_keeps_its_stub_and_the_next_is_reported() {
    let (memory, handlers) = guest_with_handlers(STUB_LIMIT as u64 + 2);
    let table = table();
    for handler in handlers {
        IDT.write(&memory, gate_to(handler));
        arm(&table, &memory, IDT);
    }
    let told = notes(&table);
    assert!(told.len() == 2 && told[0].contains("all of its 16 stubs are in use"), "{told:?}");
}

#[test]
fn a_stub_that_a_gate_leads_to_or_a_vcpu_stands_in_is_not_given_up() {
    let (memory, handlers) = guest_with_handlers(STUB_LIMIT as u64);
    let table = table();
    let slots: Vec<_> = (0..).map(|index| slot(0x5000 + 16 * index)).zip(handlers).collect();
    for (slot, handler) in &slots {
        slot.write(&memory, gate_to(*handler));
        arm(&table, &memory, *slot);
        memory.write(Pa(*handler), &[0xcc; 16]).unwrap();
    }
    let first = table.stubs()[0];
    let mut arming = arming(&memory);
    COPY.write(&memory, gate_to(0x8000));
    table.arm(&arming, COPY, None).unwrap();
    assert_eq!(notes(&table).len(), 1, "gates lead to all");
    slots[0].0.write(&memory, gate_to(0x9000));
    let inside = [first.out().0];
    arming.others = &inside;
    table.arm(&arming, slots[0].0, None).unwrap();
    assert_eq!(notes(&table).len(), 1, "a vCPU stands in it");
    arming.others = &[];
    table.arm(&arming, slots[0].0, None).unwrap();
    assert_eq!((offset(&memory, slots[0].0), notes(&table).len()), (first.place.start, 0));
}

#[test]
fn a_named_range_holds_several_stubs() {
    let memory = guest();
    let table = table_with(Room { named: Some(Va(0xa000)..Va(0xa020)), ..Room::default() });
    for (handler, start) in [(0x8000, 0xa000), (0x9000, 0xa010)] {
        IDT.write(&memory, gate_to(handler));
        arm(&table, &memory, IDT);
        assert_eq!(offset(&memory, IDT), Va(start));
    }
}

#[test]
fn a_handler_without_room_has_its_stubs_in_a_page_beside_the_idt() {
    let (memory, table) = (guest(), table());
    memory.write(Pa(0x3000), &0x4003u64.to_le_bytes()).unwrap();
    for page in [0x5000, 0x8000, 0x9000u64] {
        memory.write(Pa(0x4000 + (page >> 9)), &(page | 3).to_le_bytes()).unwrap();
    }
    memory.write(Pa(0x8000), &[0x90; 0x2000]).unwrap();
    for (handler, start) in [(0x8000, 0x1f_f000), (0x9000, 0x1f_f010)] {
        IDT.write(&memory, gate_to(handler));
        arm(&table, &memory, IDT);
        assert_eq!(offset(&memory, IDT), Va(start));
    }
    assert!(table.stubs().iter().all(|stub| stub.is_intact(&memory, &PAGING)));
}

#[test]
fn a_gate_of_protected_mode_gets_a_stub_of_32_bit_code() {
    let (memory, table) = (guest(), table());
    let paging = Paging { cr3: Cr3(0x7000), mode: Mode::Bits32 { large_pages: true }, no_execute: false };
    memory.write(Pa(0x7000), &[0x83, 0, 0, 0]).unwrap();
    let slot = GateSlot { physical: Pa(0x5000), width: Width::Bits32 };
    slot.write(&memory, gate_to(0x9000));
    table.arm(&Arming { paging: &paging, ..arming(&memory) }, slot, None).unwrap();
    assert_eq!(slot.read(&memory).unwrap().offset(), table.stubs()[0].place.start);
    assert_eq!(table.stubs()[0].code.bytes().len(), 6);
}

#[test]
fn linux_is_armed_in_the_cpu_entry_area_only() {
    let linux = Table::new(Room::default(), ArmWhen::IdtIsInCpuEntryArea, Box::new(Slots::default()));
    assert!(linux.may_arm(Va(0xffff_fe00_0000_0000)));
    assert!(!linux.may_arm(Va(0xffff_ffff_8300_0000)));
    assert!(table().may_arm(Va(0x1000)));
}

#[test]
fn a_handler_without_room_is_reported_once() {
    let (memory, table) = (guest(), table());
    memory.write(Pa(0), &vec![0x90; 0x1000]).unwrap();
    memory.write(Pa(0x4000), &vec![0x90; 0x1f_c000]).unwrap();
    IDT.write(&memory, gate_to(0x8000));
    arm(&table, &memory, IDT);
    assert!(table.has_refused(gate_to(0x8000)), "it is not tried again");
    arm(&table, &memory, IDT);
    let told = notes(&table);
    assert_eq!(told.len(), 1);
    assert!(told[0].contains("0x8000") && told[0].contains("intercept.stub"), "{}", told[0]);
}

#[test]
fn a_write_to_a_gate_changes_what_the_guest_believes_and_leaves_the_stub_in_place() {
    let (memory, slots) = (guest(), Slots::default());
    let table = Table::new(Room::default(), ArmWhen::GateIsPresent, Box::new(slots.clone()));
    arm(&table, &memory, IDT);
    assert_eq!(*lock(&slots.0), [Pa(0x5000)]);
    let write = |at, data: &[u8]| table.write_gate(&arming(&memory), Pa(at), data, 0);
    let armed = IDT.read(&memory).unwrap();
    assert!(table.holds_gate(Pa(0x4fff), 2) && table.holds_gate(Pa(0x500f), 1));
    assert!(!table.holds_gate(Pa(0x4ff8), 8) && !table.holds_gate(Pa(0x5010), 8));

    write(0x5000, &gate_to(0x9000).0[..8]);
    write(0x5008, &gate_to(0x9000).0[8..]);
    let second = table.stubs()[1];
    assert_eq!((second.handler, offset(&memory, IDT)), (Va(0x9000), second.place.start));
    write(0x5005, &[0x0e]);
    assert_eq!(offset(&memory, IDT), Va(0x9000), "an absent gate has no stub");
    write(0x5005, &[0x8f]);
    assert_eq!(offset(&memory, IDT), second.place.start);
    assert!(!IDT.read(&memory).unwrap().masks_interrupts());

    write(0x5000, &armed.0[..8]);
    assert_eq!(IDT.read(&memory).unwrap(), armed, "what the guest has read, it can write back");
    table.disarm(&memory).unwrap();
    assert_eq!((offset(&memory, IDT), lock(&slots.0).len()), (Va(0x8000), 0));
    assert!(!table.keeps(Pa(0x5000)));
}

#[test]
fn a_gate_whose_type_is_changed_by_a_read_and_a_write_keeps_its_handler() {
    let memory = guest();
    let table = table_with(Room { named: Some(Va(0x2_a000)..Va(0x2_a010)), ..Room::default() });
    arm(&table, &memory, IDT);
    let mut gate = IDT.read(&memory).unwrap();
    gate.0[5] |= 3 << 5;
    table.write_gate(&arming(&memory), Pa(0x5004), &gate.0[4..8], 0);
    assert_eq!(IDT.read(&memory), Some(gate));
    assert_eq!(table.stubs()[0].handler, Va(0x8000));
}

#[test]
fn a_stub_that_another_gate_points_at_is_not_taken_back() {
    let (memory, table) = (guest(), table());
    arm(&table, &memory, IDT);
    table.write_gate(&arming(&memory), Pa(0x5000), &gate_to(0x9000).0[..8], 0);
    COPY.write(&memory, gate_to(0x9000));
    arm(&table, &memory, COPY);
    table.write_gate(&arming(&memory), Pa(0x5000), &gate_to(0x8000).0[..8], 0);
    let shared = *lock(&table.state).stub_at(offset(&memory, COPY)).unwrap();
    assert!(shared.handler == Va(0x9000) && shared.is_intact(&memory, &PAGING));
}

#[test]
fn a_stub_that_is_taken_back_leaves_its_place_as_it_was() {
    let (memory, table) = (guest(), table());
    arm(&table, &memory, IDT);
    let before = snapshot(&memory);
    let armed = IDT.read(&memory).unwrap();
    table.write_gate(&arming(&memory), Pa(0x5000), &gate_to(0x9000).0[..8], 0);
    assert_eq!(table.stubs().len(), 2);
    table.write_gate(&arming(&memory), Pa(0x5000), &armed.0[..8], 0);
    assert!(table.stubs().len() == 1 && snapshot(&memory) == before);

    table.write_gate(&arming(&memory), Pa(0x5000), &gate_to(0x9000).0[..8], 0);
    table.settle();
    table.write_gate(&arming(&memory), Pa(0x5000), &armed.0[..8], 0);
    assert_eq!(table.stubs().len(), 2, "the guest did something else in between");
}

/// Until it is complete, the gate points at handlers that do not exist. No fault comes through their stubs.
#[test]
fn a_gate_that_is_written_piece_by_piece_uses_up_no_room() {
    let (memory, table) = (guest(), table());
    arm(&table, &memory, IDT);
    let handlers = [0x9000, 0x1_8000, 0x8000, 0x2_9000];
    for (round, handler) in (0..100).zip(handlers.into_iter().cycle()) {
        let gate = gate_to(handler).0;
        for piece in [0..2, 4..6, 6..8, 8..12] {
            let at = Pa(0x5000 + piece.start as u64);
            table.write_gate(&arming(&memory), at, &gate[piece], round);
        }
        let stub = *lock(&table.state).stub_at(offset(&memory, IDT)).unwrap();
        assert_eq!(stub.handler, Va(handler));
    }
    assert!(table.stubs().len() <= handlers.len() + 1, "{:x?}", table.stubs());
    assert_eq!(notes(&table), Vec::<String>::new());
}

#[test]
fn a_page_that_is_written_to_all_the_time_is_given_up_and_said_so() {
    let (memory, table) = (guest(), table());
    arm(&table, &memory, IDT);
    let page = Pa(0x5000);
    while !table.write_beside(&memory, Pa(0x5040), &[1]) {}
    table.give_up(page, "the guest writes to it all the time").unwrap();
    assert!(!table.keeps(page) && table.has_settled(IDT));
    let told = notes(&table);
    assert!(told.len() == 1 && told[0].contains("0x5000") && told[0].contains("all the time"), "{told:?}");
    arm(&table, &memory, IDT);
    assert!(!table.keeps(page), "it is not kept again");
}

#[test]
fn a_page_that_the_cpu_writes_to_is_armed_and_not_kept() {
    let (memory, slots) = (guest(), Slots::default());
    let table = Table::new(Room::default(), ArmWhen::GateIsPresent, Box::new(slots.clone()));
    table.arm(&arming(&memory), IDT, Some("a stack for exceptions is in it")).unwrap();
    assert!(table.adopt(IDT, IDT.read(&memory).unwrap()) && lock(&slots.0).is_empty());
    assert_eq!(notes(&table).len(), 1);
}
