//! What the engine has put into the guest: stubs, and gates that point at them. Shared by all vCPUs, changed only
//! while all of them stand still.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, OnceLock};
use std::time::Instant;

use vector14_hook::paging::Paging;
use vector14_hook::{GuestError, Va};

use super::idt::{Gate, GateSlot, Width};
use super::own_page::{self, NoPage};
use super::room::{self, NoRoom, Place, Room, Search};
use super::stub::{Code, Stub};
use crate::memory::Memory;
use crate::sys::lock;

/// A guest has no more stubs than this.
const STUB_LIMIT: usize = 16;
/// As many gates are remembered to be restored.
const GATE_LIMIT: usize = 64;

/// When a guest's gate 14 is the one that it means to keep.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum ArmWhen {
    /// As soon as there is one.
    #[default]
    GateIsPresent,
    /// As soon as the IDT is where Linux maps it for good. The tables that Linux loads before are rewritten while they
    /// are in use, in memory that is given back later.
    IdtIsInCpuEntryArea,
}

/// Where Linux maps its IDT on every CPU, KASLR or not, with 4 and with 5 levels of page tables
/// (Documentation/arch/x86/x86_64/mm.rst, `cpu_entry_area mapping`).
const CPU_ENTRY_AREA_IDT: Va = Va(0xffff_fe00_0000_0000);

impl ArmWhen {
    fn allows(self, idt: Va) -> bool {
        match self {
            Self::GateIsPresent => true,
            Self::IdtIsInCpuEntryArea => idt == CPU_ENTRY_AREA_IDT,
        }
    }
}

/// The engine's state of one VM.
#[derive(Default)]
pub(crate) struct Table {
    state: Mutex<State>,
    /// Grows with every change of the stubs.
    pub(super) generation: AtomicU64,
    /// Whether faults are to be intercepted.
    pub(super) wanted: AtomicBool,
    /// Whether gates lead to stubs.
    in_place: AtomicBool,
    armed_at: OnceLock<Instant>,
    room: Room,
    arm_when: ArmWhen,
}

#[derive(Default)]
struct State {
    stubs: Vec<Stub>,
    /// The gates that point at stubs, or did.
    gates: Vec<GateSlot>,
    /// The page of the host's that has been mapped for stubs.
    own_page: Option<Range<Va>>,
    /// Handlers, or gates, that can't be intercepted; each has been reported.
    refused: Vec<Va>,
    notes: Vec<String>,
}

/// Where a gate is armed from.
pub(super) struct Arming<'a> {
    pub(super) memory: &'a Memory,
    pub(super) paging: &'a Paging,
    /// Where the IDT begins.
    pub(super) idt: Va,
    /// RIP of this vCPU, and those of the others, which stand still.
    pub(super) rip: u64,
    pub(super) others: &'a [u64],
}

/// Why a handler has no stub.
#[derive(Debug, thiserror::Error)]
enum NoStub {
    #[error("its handler at {handler} can't be read: {source}")]
    Handler { handler: Va, source: GuestError },
    #[error("{room}; {page}")]
    NoRoom { room: NoRoom, page: NoPage },
    #[error("all of its {STUB_LIMIT} stubs are in use: the handler at {0} is not intercepted")]
    Limit(Va),
}

impl Table {
    /// Nothing is in the guest yet. `room` is what is known of places for stubs.
    pub(crate) fn new(room: Room, arm_when: ArmWhen) -> Self {
        Self { wanted: AtomicBool::new(true), room, arm_when, ..Self::default() }
    }

    /// Whether a gate of the IDT at `idt` is one to be armed.
    pub(super) fn may_arm(&self, idt: Va) -> bool {
        self.arm_when.allows(idt)
    }

    /// When faults began to be intercepted.
    pub(crate) fn armed_at(&self) -> Option<Instant> {
        self.armed_at.get().copied()
    }

    /// Has interception taken out of the guest, or put back, at the vCPUs' next inspection.
    pub(crate) fn want(&self, wanted: bool) {
        self.wanted.store(wanted, Ordering::Relaxed);
    }

    /// Whether interception is wanted.
    pub(crate) fn is_wanted(&self) -> bool {
        self.wanted.load(Ordering::Relaxed)
    }

    /// Whether gates lead to stubs.
    pub(crate) fn in_place(&self) -> bool {
        self.in_place.load(Ordering::Relaxed)
    }

    /// Sentences for the summary; each is given once.
    pub(crate) fn take_notes(&self) -> Vec<String> {
        std::mem::take(&mut lock(&self.state).notes)
    }

    pub(super) fn stubs(&self) -> Vec<Stub> {
        lock(&self.state).stubs.clone()
    }

    pub(super) fn note_once(&self, about: Va, note: String) {
        lock(&self.state).refuse(about, note);
    }

    /// Whether `gate` leads to a stub: because it was armed, or because the guest copied a gate that was. It is restored when
    /// the engine disarms.
    pub(super) fn adopt(&self, slot: GateSlot, gate: Gate) -> bool {
        let mut state = lock(&self.state);
        let known = state.stub_at(gate.offset()).is_some();
        if known {
            state.remember(slot);
        }
        known
    }

    /// Whether the handler of `gate` can't be intercepted, as the summary will say.
    pub(super) fn has_refused(&self, gate: Gate) -> bool {
        lock(&self.state).refused.contains(&gate.offset())
    }

    /// Points the gate in `slot` at a stub of its handler's. Every other vCPU stands still.
    pub(super) fn arm(&self, arming: &Arming<'_>, slot: GateSlot) {
        let mut state = lock(&self.state);
        let Some(gate) = slot.read(arming.memory).filter(|gate| gate.is_usable()) else { return };
        let handler = gate.offset();
        if state.stub_at(handler).is_some() {
            state.remember(slot);
            return;
        }
        let stub = match state.stub_of(handler, slot.width, &self.room, arming) {
            Ok(stub) => stub,
            Err(error) => {
                state.refuse(handler, format!("the guest's #PF can't be intercepted: {error}"));
                return;
            }
        };
        self.generation.fetch_add(1, Ordering::Release);
        self.in_place.store(true, Ordering::Relaxed);
        slot.write(arming.memory, gate.with_offset(stub.place.start));
        state.remember(slot);
        if self.armed_at.set(Instant::now()).is_ok() {
            tracing::info!("armed: gate 14 leads from its handler at {handler} to the stub at {}", stub.place.start);
        }
    }

    /// Gives the guest its gates back. Every other vCPU stands still.
    ///
    /// The stubs stay: a context that was interrupted in one returns there at any time later.
    pub(super) fn disarm(&self, memory: &Memory) {
        let mut state = lock(&self.state);
        for slot in std::mem::take(&mut state.gates) {
            let Some(gate) = slot.read(memory) else { continue };
            if let Some(stub) = state.stub_at(gate.offset()) {
                slot.write(memory, gate.with_offset(stub.handler));
            }
        }
        self.in_place.store(false, Ordering::Relaxed);
        tracing::info!("disarmed: gate 14 is as the guest made it");
    }
}

impl State {
    /// The stub that begins at `start`.
    fn stub_at(&self, start: Va) -> Option<&Stub> {
        self.stubs.iter().find(|stub| stub.place.start == start)
    }

    /// The stub of `handler`: the one that it has, or one in new room, or that of a handler that has gone.
    fn stub_of(&mut self, handler: Va, width: Width, room: &Room, arming: &Arming<'_>) -> Result<Stub, NoStub> {
        let Arming { memory, paging, .. } = *arming;
        let unreadable = |source| NoStub::Handler { handler, source };
        let code = Code::of_handler(memory, paging, handler, width).map_err(unreadable)?;
        let serves = |stub: &Stub| stub.handler == handler && stub.code == code;
        self.stubs.retain(|stub| !serves(stub) || stub.is_intact(memory, paging));
        if let Some(stub) = self.stubs.iter().find(|stub| serves(stub)) {
            return Ok(*stub);
        }
        let place = match self.place(handler, code, room, arming) {
            Ok(place) => place,
            Err(error) => self.give_up_idle(code, arming).ok_or(error)?.place,
        };
        let stub = Stub::write(memory, paging, handler, place, code).map_err(unreadable)?;
        self.stubs.push(stub);
        Ok(stub)
    }

    /// Room for a further stub.
    fn place(&mut self, handler: Va, code: Code, room: &Room, arming: &Arming<'_>) -> Result<Place, NoStub> {
        if self.stubs.len() == STUB_LIMIT {
            return Err(NoStub::Limit(handler));
        }
        let Arming { memory, paging, idt, .. } = *arming;
        let leaf = room::leaf(memory, paging, handler).map_err(|source| NoStub::Handler { handler, source })?;
        let length = code.bytes().len();
        let search = Search { memory, paging, handler, leaf, length, stubs: &self.stubs };
        let no_room = match room.find(&search) {
            Ok(place) => return Ok(place),
            Err(error) => error,
        };
        if let Some(place) = self.own_page.as_ref().and_then(|page| search.in_range(page)) {
            return Ok(place);
        }
        match own_page::map(memory, paging, idt) {
            Ok(page) => search.in_range(self.own_page.insert(page)).ok_or(NoStub::Limit(handler)),
            Err(page) => Err(NoStub::NoRoom { room: no_room, page }),
        }
    }

    /// Takes a stub with this code away from a handler that has gone, if no gate leads to it and no vCPU stands in it. A context
    /// that is still to return into it finds the same bytes there. A handler that is still there keeps its stub: the guest may
    /// have a copy of a gate that leads to it.
    fn give_up_idle(&mut self, code: Code, arming: &Arming<'_>) -> Option<Stub> {
        let Arming { memory, paging, rip, others, .. } = *arming;
        let leads_to = |slot: &GateSlot| slot.read(memory).map(Gate::offset);
        self.gates.retain(|slot| self.stubs.iter().any(|stub| leads_to(slot) == Some(stub.place.start)));
        let in_use = |stub: &Stub| self.gates.iter().any(|slot| leads_to(slot) == Some(stub.place.start));
        let stands_in = |stub: &Stub| others.iter().chain([&rip]).any(|rip| stub.contains(Va(*rip)));
        let index = self.stubs.iter().position(|stub| {
            let gone = stub.handler_has_gone(memory, paging);
            stub.code == code && gone && !in_use(stub) && !stands_in(stub) && stub.is_intact(memory, paging)
        })?;
        Some(self.stubs.remove(index))
    }

    fn remember(&mut self, slot: GateSlot) {
        if !self.gates.contains(&slot) && self.gates.len() < GATE_LIMIT {
            self.gates.push(slot);
        }
    }

    fn refuse(&mut self, about: Va, note: String) {
        const NOTE_LIMIT: usize = 32;
        if !self.refused.contains(&about) && self.refused.len() < NOTE_LIMIT {
            tracing::warn!("{note}");
            self.refused.push(about);
            self.notes.push(note);
        }
    }
}

#[cfg(test)]
mod tests {
    use vector14_hook::paging::Mode;
    use vector14_hook::{Cr3, Pa};

    use super::*;

    const PAGING: Paging = Paging { cr3: Cr3(0x1000), mode: Mode::Long { levels: 4 }, no_execute: true };
    const IDT: GateSlot = slot(0x5000);
    const COPY: GateSlot = slot(0x6000);

    const fn slot(physical: u64) -> GateSlot {
        GateSlot { physical: Pa(physical), width: Width::Bits64 }
    }

    fn table() -> Table {
        Table::new(Room::default(), ArmWhen::GateIsPresent)
    }

    fn arm(table: &Table, memory: &Memory, slot: GateSlot) {
        table.arm(&Arming { memory, paging: &PAGING, idt: Va(slot.physical.0), rip: 0, others: &[] }, slot);
    }

    /// 4 MiB, the first 2 mapped at 0, with two handlers that have filler behind them.
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
        table.disarm(&memory);
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
        table.disarm(&memory);
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
        table.disarm(&memory);
        assert_eq!(offset(&memory, IDT), Va(0x8000));
    }

    #[test]
    fn a_copied_gate_is_known_and_restored_too() {
        let (memory, table) = (guest(), table());
        arm(&table, &memory, IDT);
        let copy = IDT.read(&memory).unwrap();
        COPY.write(&memory, copy);
        assert!(table.adopt(COPY, copy));
        table.disarm(&memory);
        assert_eq!((offset(&memory, IDT), offset(&memory, COPY)), (Va(0x8000), Va(0x8000)));
    }

    /// A guest with many handlers, 0x200 bytes apart, each with filler behind it.
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
        assert_eq!((table.stubs().len(), table.take_notes()), (STUB_LIMIT, Vec::new()));
    }

    #[test]
    fn a_handler_that_is_still_there_keeps_its_stub_and_the_next_is_reported() {
        let (memory, handlers) = guest_with_handlers(STUB_LIMIT as u64 + 2);
        let table = table();
        for handler in handlers {
            IDT.write(&memory, gate_to(handler));
            arm(&table, &memory, IDT);
        }
        let notes = table.take_notes();
        assert!(notes.len() == 2 && notes[0].contains("all of its 16 stubs are in use"), "{notes:?}");
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
        let mut arming = Arming { memory: &memory, paging: &PAGING, idt: Va(0x5000), rip: 0, others: &[] };
        COPY.write(&memory, gate_to(0x8000));
        table.arm(&arming, COPY);
        assert_eq!(table.take_notes().len(), 1, "gates lead to all");
        slots[0].0.write(&memory, gate_to(0x9000));
        let inside = [first.out().0];
        arming.others = &inside;
        table.arm(&arming, slots[0].0);
        assert_eq!(table.take_notes().len(), 1, "a vCPU stands in it");
        arming.others = &[];
        table.arm(&arming, slots[0].0);
        assert_eq!((offset(&memory, slots[0].0), table.take_notes().len()), (first.place.start, 0));
    }

    #[test]
    fn a_named_range_holds_several_stubs() {
        let memory = guest();
        let table = Table::new(Room { named: Some(Va(0xa000)..Va(0xa020)), ..Room::default() }, ArmWhen::GateIsPresent);
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
        table.arm(&Arming { memory: &memory, paging: &paging, idt: Va(0x5000), rip: 0, others: &[] }, slot);
        assert_eq!(slot.read(&memory).unwrap().offset(), table.stubs()[0].place.start);
        assert_eq!(table.stubs()[0].code.bytes().len(), 6);
    }

    #[test]
    fn linux_is_armed_in_the_cpu_entry_area_only() {
        let table = Table::new(Room::default(), ArmWhen::IdtIsInCpuEntryArea);
        assert!(table.may_arm(Va(0xffff_fe00_0000_0000)));
        assert!(!table.may_arm(Va(0xffff_ffff_8300_0000)));
        let table = Table::new(Room::default(), ArmWhen::GateIsPresent);
        assert!(table.may_arm(Va(0x1000)));
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
        let notes = table.take_notes();
        assert_eq!(notes.len(), 1);
        assert!(notes[0].contains("0x8000") && notes[0].contains("intercept.stub"), "{}", notes[0]);
    }
}
