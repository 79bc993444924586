//! What the engine has put into the guest: stubs, and gates that point at them. Shared by all vCPUs, changed only
//! while all of them stand still.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, OnceLock};
use std::time::Instant;

use vector14_hook::{Pa, Va};

use super::gaps::{Gap, Gaps};
use super::idt::{GATE_SIZE, Gate};
use super::pages::{LostPage, Pages, SetAccess};
use super::read_gate;
use super::stub::Stub;
use crate::memory::Memory;
use crate::sys::lock;
use vector14_hook::paging::Paging;

/// A guest that keeps more handlers for #PF than this is not followed any further.
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
pub(crate) struct Table {
    state: Mutex<State>,
    /// Grows with every change of the stubs.
    pub(super) generation: AtomicU64,
    /// Whether faults are to be intercepted.
    pub(super) wanted: AtomicBool,
    /// Whether anything of ours is in the guest.
    in_place: AtomicBool,
    /// Whether a vCPU may try to disarm. Its try makes the others come out of the guest, and these would try in their turn, for
    /// ever, if the one that stands in a stub never got on: there is one a beat.
    disarm_due: AtomicBool,
    armed_at: OnceLock<Instant>,
    /// Where the user wants the stub.
    place: Option<Va>,
    arm_when: ArmWhen,
}

struct State {
    stubs: Vec<Stub>,
    /// Guest-physical addresses of the gates that have been pointed at stubs.
    gates: Vec<Pa>,
    /// The pages that they are in.
    pages: Pages,
    /// Handlers, or gates, that can't be intercepted; each has been reported.
    refused: Vec<Va>,
    notes: Vec<String>,
    gaps: Gaps,
}

/// What became of a write of the guest's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Written {
    /// It is not to a page that is kept.
    Elsewhere,
    /// It was carried out.
    Done,
    /// It was carried out, and there have been so many that the page should be given up.
    TooMany,
}

impl Table {
    /// Nothing is in the guest yet. `place` is where the user wants the stub; `machine` makes pages read-only.
    pub(crate) fn new(place: Option<Va>, arm_when: ArmWhen, machine: Box<dyn SetAccess>) -> Self {
        let state = State {
            stubs: Vec::new(),
            gates: Vec::new(),
            pages: Pages::new(machine),
            refused: Vec::new(),
            notes: Vec::new(),
            gaps: Gaps::default(),
        };
        Self {
            state: Mutex::new(state),
            generation: AtomicU64::new(0),
            wanted: AtomicBool::new(true),
            in_place: AtomicBool::new(false),
            disarm_due: AtomicBool::new(false),
            armed_at: OnceLock::new(),
            place,
            arm_when,
        }
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
        self.disarm_due.store(true, Ordering::Relaxed);
    }

    /// Lets what could not be done at the last beat be tried again.
    pub(crate) fn beat(&self) {
        self.disarm_due.store(true, Ordering::Relaxed);
        lock(&self.state).pages.forgive();
    }

    /// Whether the calling vCPU is to disarm.
    pub(super) fn must_disarm(&self) -> bool {
        self.in_place() && self.disarm_due.swap(false, Ordering::Relaxed)
    }

    /// Whether interception is wanted.
    pub(crate) fn is_wanted(&self) -> bool {
        self.wanted.load(Ordering::Relaxed)
    }

    /// Whether anything of ours is in the guest.
    pub(crate) fn in_place(&self) -> bool {
        self.in_place.load(Ordering::Relaxed)
    }

    /// Sentences for the summary of a VM that has run since `start`; each is given once.
    pub(crate) fn take_notes(&self, start: Instant) -> Vec<String> {
        let mut state = lock(&self.state);
        let gaps = std::mem::take(&mut state.gaps).describe(start);
        std::mem::take(&mut state.notes).into_iter().chain(gaps).collect()
    }

    /// Notes that a vCPU may have taken faults that were not seen.
    pub(super) fn add_gap(&self, gap: Gap) {
        lock(&self.state).gaps.add(gap);
    }

    pub(super) fn stubs(&self) -> Vec<Stub> {
        lock(&self.state).stubs.clone()
    }

    pub(super) fn note_once(&self, about: Va, note: String) {
        lock(&self.state).refuse(about, note);
    }

    /// Whether `gate` points at a stub.
    pub(super) fn is_armed(&self, gate: Gate) -> bool {
        lock(&self.state).stubs.iter().any(|stub| stub.start == gate.offset())
    }

    /// Whether the guest's writes to `page` come here.
    pub(super) fn keeps(&self, page: Pa) -> bool {
        lock(&self.state).pages.keeps(page)
    }

    /// True where there is nothing to be done about `gate`: it points at a stub, because we made it so, or because the
    /// guest has copied a gate that did, and its page is kept or given up; or its handler can't be intercepted, as has been
    /// said.
    pub(super) fn adopt(&self, physical: Pa, gate: Gate) -> bool {
        let mut state = lock(&self.state);
        let known = state.stubs.iter().any(|stub| stub.start == gate.offset());
        if known {
            state.remember(physical);
        }
        known && state.pages.is_settled(physical.page()) || state.refused.contains(&gate.offset())
    }

    /// Points the gate at `physical` at a stub of its handler's, and keeps its page, unless `obstacle` says why that can't be.
    /// Every other vCPU stands still.
    pub(super) fn arm(
        &self,
        memory: &Memory,
        paging: &Paging,
        physical: Pa,
        obstacle: Option<&str>,
    ) -> Result<(), LostPage> {
        let mut state = lock(&self.state);
        let Some(gate) = read_gate(memory, physical).filter(|gate| gate.is_usable()) else { return Ok(()) };
        let Some(armed) = self.point_at_stub(&mut state, memory, paging, gate) else { return Ok(()) };
        self.in_place.store(true, Ordering::Relaxed);
        if armed != gate && memory.write(physical, &armed.0).is_err() {
            return Ok(());
        }
        state.remember(physical);
        if self.armed_at.set(Instant::now()).is_ok() {
            tracing::info!(
                "armed: gate 14 leads from its handler at {} to the stub at {}",
                gate.offset(),
                armed.offset()
            );
        }
        let note = state.pages.keep(physical.page(), obstacle)?;
        state.note(note);
        Ok(())
    }

    /// The same gate, pointed at a stub of its handler's; `None` where there is none, as has been reported.
    fn point_at_stub(&self, state: &mut State, memory: &Memory, paging: &Paging, gate: Gate) -> Option<Gate> {
        let handler = gate.offset();
        if state.stubs.iter().any(|stub| stub.start == handler) {
            return Some(gate);
        }
        let stub = match state.stubs.iter().find(|stub| stub.handler == handler) {
            Some(stub) => *stub,
            None if state.stubs.len() == STUB_LIMIT => {
                state.refuse(
                    handler,
                    format!("the guest has had {STUB_LIMIT} handlers for #PF: the one at {handler} is not intercepted"),
                );
                return None;
            }
            None => match Stub::place(memory, paging, handler, self.place, &state.stubs) {
                Ok(stub) => {
                    state.stubs.push(stub);
                    self.generation.fetch_add(1, Ordering::Release);
                    stub
                }
                Err(error) => {
                    state.refuse(handler, format!("the guest's #PF can't be intercepted: {error}"));
                    return None;
                }
            },
        };
        Some(gate.with_offset(stub.start))
    }

    /// Carries out a write of the guest's to a page that is kept. Of a gate, it changes what the guest believes to be there:
    /// the handler that it chose, not the stub.
    pub(super) fn write(&self, memory: &Memory, paging: &Paging, at: Pa, data: &[u8]) -> Written {
        let mut state = lock(&self.state);
        if !state.pages.keeps(at.page()) {
            return Written::Elsewhere;
        }
        let overlap = |gate: &Pa| at.0 < gate.0 + GATE_SIZE && gate.0 < at.0 + data.len() as u64;
        let gates: Vec<(Pa, Gate)> = (state.gates.iter().copied().filter(overlap))
            .filter_map(|gate| Some((gate, state.as_guest_made_it(read_gate(memory, gate)?))))
            .collect();
        // What can be read can be written.
        let _ = memory.write(at, data);
        for &(place, mut gate) in &gates {
            for (address, byte) in (at.0..).zip(data) {
                if let Some(slot) =
                    address.checked_sub(place.0).and_then(|at| gate.0.get_mut(usize::try_from(at).ok()?))
                {
                    *slot = *byte;
                }
            }
            let wanted = gate.is_usable() && self.is_wanted();
            let armed = if wanted { self.point_at_stub(&mut state, memory, paging, gate) } else { None };
            let _ = memory.write(place, &armed.unwrap_or(gate).0);
        }
        if gates.is_empty() && state.pages.count_write(at.page()) { Written::TooMany } else { Written::Done }
    }

    /// Leaves `page` to the guest for good. Every other vCPU stands still.
    pub(super) fn give_up(&self, page: Pa, why: &str) -> Result<(), LostPage> {
        let mut state = lock(&self.state);
        let note = state.pages.give_up(page, why)?;
        state.note(note);
        Ok(())
    }

    /// Leaves all pages to the guest for good. Every other vCPU stands still.
    pub(super) fn give_up_all(&self, why: &str) -> Result<(), LostPage> {
        let mut state = lock(&self.state);
        let notes = state.pages.give_up_all(why)?;
        state.note(notes);
        Ok(())
    }

    /// Whether the guest's writes to any page come here.
    pub(super) fn keeps_any(&self) -> bool {
        !lock(&self.state).pages.is_empty()
    }

    /// Gives the guest its gates back, and the stubs' bytes as well where no vCPU stands in a stub: `rip` is this
    /// vCPU's, `others` are those of the rest, which stand still. Otherwise it is tried again after the next beat.
    pub(super) fn disarm(&self, memory: &Memory, rip: Va, others: &[u64]) -> Result<(), LostPage> {
        let mut state = lock(&self.state);
        state.pages.release_all()?;
        for physical in std::mem::take(&mut state.gates) {
            let Some(gate) = read_gate(memory, physical) else { continue };
            if let Some(stub) = state.stubs.iter().find(|stub| stub.start == gate.offset()) {
                // What has been read can be written: a VM has no read-only memory.
                let _ = memory.write(physical, &gate.with_offset(stub.handler).0);
            }
        }
        let mut rips = others.iter().map(|rip| Va(*rip)).chain([rip]);
        if rips.any(|rip| state.stubs.iter().any(|stub| stub.contains(rip))) {
            return Ok(());
        }
        state.stubs.drain(..).for_each(|stub| stub.remove(memory));
        self.generation.fetch_add(1, Ordering::Release);
        self.in_place.store(false, Ordering::Relaxed);
        tracing::info!("disarmed: gate 14 and the stub's place are as the guest made them");
        Ok(())
    }
}

impl State {
    /// The gate without a stub.
    fn as_guest_made_it(&self, gate: Gate) -> Gate {
        let stub = self.stubs.iter().find(|stub| stub.start == gate.offset());
        stub.map_or(gate, |stub| gate.with_offset(stub.handler))
    }

    fn note(&mut self, notes: impl IntoIterator<Item = String>) {
        for note in notes {
            tracing::warn!("{note}");
            self.notes.push(note);
        }
    }

    fn remember(&mut self, gate: Pa) {
        if !self.gates.contains(&gate) && self.gates.len() < GATE_LIMIT {
            self.gates.push(gate);
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
    use std::sync::Arc;

    use vector14_hook::Cr3;
    use vector14_hook::paging::Mode;

    use super::*;
    use crate::sys::mapped::{Access, AccessError};

    const PAGING: Paging = Paging { cr3: Cr3(0x1000), mode: Mode::Long { levels: 4 }, no_execute: true };
    const IDT: u64 = 0x5000;
    const COPY: u64 = 0x6000;

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
        memory.write(Pa(IDT), &gate_to(0x8000).0).unwrap();
        memory
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
        Table::new(None, ArmWhen::GateIsPresent, Box::new(Slots::default()))
    }

    fn gate_to(handler: u64) -> Gate {
        Gate([0, 0, 0x10, 0, 0, 0x8e, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]).with_offset(Va(handler))
    }

    fn offset(memory: &Memory, gate: u64) -> Va {
        read_gate(memory, Pa(gate)).unwrap().offset()
    }

    fn snapshot(memory: &Memory) -> Vec<u8> {
        let mut bytes = vec![0; 4 << 20];
        memory.read(Pa(0), &mut bytes).unwrap();
        bytes
    }

    #[test]
    fn disarming_leaves_the_guest_as_it_was() {
        let (memory, table) = (guest(), table());
        let before = snapshot(&memory);
        table.arm(&memory, &PAGING, Pa(IDT), None).unwrap();
        assert_eq!(offset(&memory, IDT), table.stubs()[0].start);
        assert!(table.armed_at().is_some());
        table.disarm(&memory, Va(0), &[]).unwrap();
        assert_eq!(snapshot(&memory), before);
    }

    #[test]
    fn a_vcpu_inside_of_the_stub_keeps_its_bytes_in_place() {
        let (memory, table) = (guest(), table());
        let before = snapshot(&memory);
        table.arm(&memory, &PAGING, Pa(IDT), None).unwrap();
        let inside = table.stubs()[0].start.offset(2);
        table.disarm(&memory, Va(0), &[0x1234, inside.0]).unwrap();
        assert_eq!(offset(&memory, IDT), Va(0x8000), "the gate goes back at once");
        assert_ne!(snapshot(&memory), before);
        table.disarm(&memory, inside, &[]).unwrap();
        assert_ne!(snapshot(&memory), before);
        table.disarm(&memory, Va(0), &[0x1234]).unwrap();
        assert_eq!(snapshot(&memory), before);
    }

    #[test]
    fn there_is_one_attempt_to_disarm_a_beat() {
        let (memory, table) = (guest(), table());
        table.want(false);
        assert!(!table.must_disarm(), "nothing is in the guest");
        table.arm(&memory, &PAGING, Pa(IDT), None).unwrap();
        assert!(table.must_disarm());
        assert!(!table.must_disarm());
        table.beat();
        assert!(table.must_disarm());
        table.disarm(&memory, Va(0), &[]).unwrap();
        table.beat();
        assert!(!table.must_disarm(), "nothing is in the guest any more");
    }

    #[test]
    fn a_gate_that_is_rewritten_gets_a_stub_of_its_new_handler() {
        let (memory, table) = (guest(), table());
        table.arm(&memory, &PAGING, Pa(IDT), None).unwrap();
        let saved = read_gate(&memory, Pa(IDT)).unwrap();
        memory.write(Pa(IDT), &gate_to(0x9000).0).unwrap();
        assert!(!table.adopt(Pa(IDT), gate_to(0x9000)));
        table.arm(&memory, &PAGING, Pa(IDT), None).unwrap();
        let handlers: Vec<Va> = table.stubs().iter().map(|stub| stub.handler).collect();
        assert_eq!(handlers, [Va(0x8000), Va(0x9000)]);
        assert_eq!(offset(&memory, IDT), table.stubs()[1].start);

        memory.write(Pa(IDT), &saved.0).unwrap();
        assert!(table.adopt(Pa(IDT), saved), "a gate that was read back leads to its first stub");
        table.disarm(&memory, Va(0), &[]).unwrap();
        assert_eq!(offset(&memory, IDT), Va(0x8000));
    }

    #[test]
    fn a_write_to_a_kept_page_changes_what_the_guest_believes_and_leaves_the_stub_in_place() {
        let (memory, slots) = (guest(), Slots::default());
        let table = Table::new(None, ArmWhen::GateIsPresent, Box::new(slots.clone()));
        table.arm(&memory, &PAGING, Pa(IDT), None).unwrap();
        assert_eq!(*lock(&slots.0), [Pa(IDT)]);
        let write = |at, data: &[u8]| table.write(&memory, &PAGING, Pa(at), data);
        let armed = read_gate(&memory, Pa(IDT)).unwrap();

        assert_eq!(write(IDT - 8, &[1; 8]), Written::Elsewhere);
        assert_eq!(write(IDT + 16, &[1; 8]), Written::Done);
        assert_eq!(memory.load(Pa(IDT + 16)), Ok(u64::from_le_bytes([1; 8])));
        assert_eq!(write(IDT, &gate_to(0x9000).0[..8]), Written::Done);
        assert_eq!(write(IDT + 8, &gate_to(0x9000).0[8..]), Written::Done);
        let second = table.stubs()[1];
        assert_eq!((second.handler, offset(&memory, IDT)), (Va(0x9000), second.start));

        write(IDT + 5, &[0x0e]);
        assert_eq!(read_gate(&memory, Pa(IDT)).unwrap().offset(), Va(0x9000), "an absent gate has no stub");
        write(IDT + 5, &[0x8f]);
        assert_eq!(offset(&memory, IDT), second.start);
        assert!(!read_gate(&memory, Pa(IDT)).unwrap().masks_interrupts());

        write(IDT, &armed.0[..8]);
        assert_eq!(read_gate(&memory, Pa(IDT)).unwrap(), armed, "what the guest has read, it can write back");
        table.disarm(&memory, Va(0), &[]).unwrap();
        assert_eq!((offset(&memory, IDT), lock(&slots.0).len()), (Va(0x8000), 0));
        assert_eq!(write(IDT, &[0; 8]), Written::Elsewhere);
    }

    #[test]
    fn a_page_that_is_written_to_all_the_time_is_given_up_and_said_so() {
        let (memory, table) = (guest(), table());
        table.arm(&memory, &PAGING, Pa(IDT), None).unwrap();
        let write = |at| table.write(&memory, &PAGING, Pa(at), &[1]);
        assert!((0..50_000).all(|_| write(IDT + 6) == Written::Done), "writes to the gate do not count");
        while write(IDT + 64) == Written::Done {}
        table.give_up(Pa(IDT), "the guest writes to it all the time").unwrap();
        assert_eq!(write(IDT + 64), Written::Elsewhere);
        let notes = table.take_notes(Instant::now());
        assert!(notes.len() == 1 && notes[0].contains("0x5000") && notes[0].contains("all the time"), "{notes:?}");
        assert!(table.adopt(Pa(IDT), read_gate(&memory, Pa(IDT)).unwrap()), "it is not kept again");
    }

    #[test]
    fn a_page_that_the_cpu_writes_to_is_armed_and_not_kept() {
        let (memory, slots) = (guest(), Slots::default());
        let table = Table::new(None, ArmWhen::GateIsPresent, Box::new(slots.clone()));
        table.arm(&memory, &PAGING, Pa(IDT), Some("a stack for exceptions is in it")).unwrap();
        assert!(table.is_armed(read_gate(&memory, Pa(IDT)).unwrap()) && lock(&slots.0).is_empty());
        assert_eq!(table.take_notes(Instant::now()).len(), 1);
    }

    #[test]
    fn a_copied_gate_is_known_and_restored_too() {
        let (memory, table) = (guest(), table());
        table.arm(&memory, &PAGING, Pa(IDT), None).unwrap();
        let copy = read_gate(&memory, Pa(IDT)).unwrap();
        memory.write(Pa(COPY), &copy.0).unwrap();
        assert!(!table.adopt(Pa(COPY), copy), "its page is not kept yet");
        table.arm(&memory, &PAGING, Pa(COPY), None).unwrap();
        assert!(table.adopt(Pa(COPY), copy) && table.keeps(Pa(COPY)));
        table.disarm(&memory, Va(0), &[]).unwrap();
        assert_eq!((offset(&memory, IDT), offset(&memory, COPY)), (Va(0x8000), Va(0x8000)));
    }

    #[test]
    fn a_guest_with_ever_new_handlers_is_left_alone_at_some_point() {
        let (memory, table) = (guest(), table());
        for index in 0..2 * STUB_LIMIT as u64 {
            memory.write(Pa(0x1_0000 + index * 0x200), &[0x90; 64]).unwrap();
            memory.write(Pa(0x1_0040 + index * 0x200), &[0xcc; 64]).unwrap();
            memory.write(Pa(IDT), &gate_to(0x1_0000 + index * 0x200).0).unwrap();
            table.arm(&memory, &PAGING, Pa(IDT), None).unwrap();
        }
        assert_eq!(table.stubs().len(), STUB_LIMIT);
        assert_eq!(table.take_notes(Instant::now()).len(), STUB_LIMIT);
    }

    #[test]
    fn linux_is_armed_in_the_cpu_entry_area_only() {
        let linux = Table::new(None, ArmWhen::IdtIsInCpuEntryArea, Box::new(Slots::default()));
        assert!(linux.may_arm(Va(0xffff_fe00_0000_0000)));
        assert!(!linux.may_arm(Va(0xffff_ffff_8300_0000)));
        assert!(table().may_arm(Va(0x1000)));
    }

    #[test]
    fn a_handler_without_room_is_reported_once() {
        let (memory, table) = (guest(), table());
        memory.write(Pa(0), &vec![0x90; 0x1000]).unwrap();
        memory.write(Pa(0x4000), &vec![0x90; 0x1f_c000]).unwrap();
        memory.write(Pa(IDT), &gate_to(0x8000).0).unwrap();
        table.arm(&memory, &PAGING, Pa(IDT), None).unwrap();
        assert!(table.adopt(Pa(IDT), gate_to(0x8000)), "it is not tried again");
        table.arm(&memory, &PAGING, Pa(IDT), None).unwrap();
        let notes = table.take_notes(Instant::now());
        assert_eq!(notes.len(), 1);
        assert!(notes[0].contains("0x8000") && notes[0].contains("intercept.stub"), "{}", notes[0]);
    }
}
