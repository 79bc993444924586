//! What the engine has written into the guest: stubs, and gates that point at them. All vCPUs share it; it changes
//! only while all of them stand still.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, OnceLock};
use std::time::Instant;

use vector14_hook::paging::Paging;
use vector14_hook::{GuestError, Pa, Va};

use super::gaps::{Gap, Gaps};
use super::idt::{Gate, GateSlot, Width};
use super::own_page::{self, NoPage};
use super::pages::{LostPage, Pages, SetAccess};
use super::room::{self, NoRoom, Room, Search};
use super::stub::{Code, Stub, StubPlace};
use crate::machine::memory::Memory;
use crate::sys::lock;

/// Largest number of stubs in one guest.
const STUB_LIMIT: usize = 16;
/// Largest number of gates that are remembered, to be restored.
const GATE_LIMIT: usize = 64;

/// When to take a guest's gate 14 for its final one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum ArmWhen {
    /// As soon as the gate is present.
    #[default]
    GateIsPresent,
    /// As soon as the IDT is where Linux maps it for good. Linux rewrites the tables that it loads before while they
    /// are in use, in memory that it frees later.
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

/// The engine's per-VM state.
pub(super) struct Table {
    state: Mutex<TableState>,
    /// Incremented with every change of the stubs.
    pub(super) generation: AtomicU64,
    /// Whether interception is wanted.
    pub(super) wanted: AtomicBool,
    /// Whether gates point at stubs.
    in_place: AtomicBool,
    armed_at: OnceLock<Instant>,
    /// Whether `state` has a fresh stub.
    has_fresh: AtomicBool,
    room: Room,
    arm_when: ArmWhen,
}

struct TableState {
    stubs: Vec<Stub>,
    /// Gates that point at stubs, or once did.
    gates: Vec<GateSlot>,
    /// The pages that hold these gates.
    pages: Pages,
    /// The host-owned page that was mapped for stubs, if any.
    own_page: Option<Range<Va>>,
    /// The stub that the last write to a gate created, if any.
    fresh: Option<Fresh>,
    /// Handlers or gates that can't be intercepted; each has been reported.
    refused: Vec<Va>,
    notes: Vec<String>,
    gaps: Gaps,
}

/// A stub that was created when the guest wrote to a gate. Guests write a gate piece by piece; until it is complete,
/// it points at a handler that does not exist. The stub for that one is removed again if no fault came through it.
struct Fresh {
    slot: GateSlot,
    start: Va,
    /// Number of faults seen by then.
    faults: u64,
}

/// The state in which a gate is armed.
pub(super) struct Arming<'a> {
    pub(super) memory: &'a Memory,
    pub(super) paging: &'a Paging,
    /// Address of the IDT.
    pub(super) idt: Va,
    /// RIP of this vCPU; `others` has those of the other vCPUs, which stand still.
    pub(super) rip: u64,
    pub(super) others: &'a [u64],
    /// Whether to report a handler that can't be read. It is normal for a moment, while the guest writes a gate.
    pub(super) thorough: bool,
}

impl Arming<'_> {
    /// Whether any vCPU is in `stub`.
    fn stands_in(&self, stub: &Stub) -> bool {
        self.others.iter().chain([&self.rip]).any(|rip| stub.contains(Va(*rip)))
    }
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
    /// Creates an empty table. `room` is what is known of places for stubs; `machine` makes pages read-only.
    pub(super) fn new(room: Room, arm_when: ArmWhen, machine: Box<dyn SetAccess>) -> Self {
        let state = TableState {
            stubs: Vec::new(),
            gates: Vec::new(),
            pages: Pages::new(machine),
            own_page: None,
            fresh: None,
            refused: Vec::new(),
            notes: Vec::new(),
            gaps: Gaps::default(),
        };
        Self {
            state: Mutex::new(state),
            generation: AtomicU64::new(0),
            wanted: AtomicBool::new(true),
            in_place: AtomicBool::new(false),
            armed_at: OnceLock::new(),
            has_fresh: AtomicBool::new(false),
            room,
            arm_when,
        }
    }

    /// Forgives some of the writes that were counted; called at intervals.
    pub(super) fn beat(&self) {
        lock(&self.state).pages.forgive();
    }

    /// Whether to arm a gate of the IDT at `idt`.
    pub(super) fn may_arm(&self, idt: Va) -> bool {
        self.arm_when.allows(idt)
    }

    /// When interception began.
    pub(super) fn armed_at(&self) -> Option<Instant> {
        self.armed_at.get().copied()
    }

    /// Requests interception, or its removal, at the vCPUs' next inspection.
    pub(super) fn want(&self, wanted: bool) {
        self.wanted.store(wanted, Ordering::Relaxed);
    }

    /// Whether interception is wanted.
    pub(super) fn is_wanted(&self) -> bool {
        self.wanted.load(Ordering::Relaxed)
    }

    /// Whether gates point at stubs.
    pub(super) fn in_place(&self) -> bool {
        self.in_place.load(Ordering::Relaxed)
    }

    /// Takes the notes for the summary of a VM that has run since `start`; each is returned once.
    pub(super) fn take_notes(&self, start: Instant) -> Vec<String> {
        let mut state = lock(&self.state);
        let gaps = std::mem::take(&mut state.gaps).describe(start);
        std::mem::take(&mut state.notes).into_iter().chain(gaps).collect()
    }

    /// Records that a vCPU may have taken unseen faults.
    pub(super) fn add_gap(&self, gap: Gap) {
        lock(&self.state).gaps.add(gap);
    }

    pub(super) fn stubs(&self) -> Vec<Stub> {
        lock(&self.state).stubs.clone()
    }

    pub(super) fn note_once(&self, about: Va, note: String) {
        lock(&self.state).refuse(about, note);
    }

    /// Whether `gate` points at a stub, because it was armed or because the guest copied an armed gate. If so, it is
    /// restored when the engine disarms.
    pub(super) fn adopt(&self, slot: GateSlot, gate: Gate) -> bool {
        let mut state = lock(&self.state);
        let known = state.stub_at(gate.offset()).is_some();
        if known {
            state.remember(slot);
        }
        known
    }

    /// Whether there is nothing to do about the page of `slot`: guest writes to it exit to us, or it was given up.
    pub(super) fn has_settled(&self, slot: GateSlot) -> bool {
        lock(&self.state).pages.is_settled(slot.physical.page())
    }

    /// Whether guest writes to `page` exit to us.
    pub(super) fn keeps(&self, page: Pa) -> bool {
        lock(&self.state).pages.keeps(page)
    }

    /// Whether guest writes to any page exit to us.
    pub(super) fn keeps_any(&self) -> bool {
        !lock(&self.state).pages.is_empty()
    }

    /// Whether the handler of `gate` can't be intercepted, as the summary will say.
    pub(super) fn has_refused(&self, gate: Gate) -> bool {
        lock(&self.state).refused.contains(&gate.offset())
    }

    /// Points the gate in `slot` at a stub for its handler, and keeps its page, unless `obstacle` says why it can't
    /// be kept. Every other vCPU must stand still.
    pub(super) fn arm(&self, arming: &Arming<'_>, slot: GateSlot, obstacle: Option<&str>) -> Result<(), LostPage> {
        let mut state = lock(&self.state);
        let Some(gate) = slot.read(arming.memory).filter(|gate| gate.is_usable()) else { return Ok(()) };
        let Some(armed) = self.point_at_stub(&mut state, arming, slot.width, gate) else { return Ok(()) };
        self.in_place.store(true, Ordering::Relaxed);
        if armed != gate {
            slot.write(arming.memory, armed);
        }
        state.remember(slot);
        if self.armed_at.set(Instant::now()).is_ok() {
            let (handler, stub) = (gate.offset(), armed.offset());
            tracing::info!("armed: gate 14 now points at the stub at {stub} instead of its handler at {handler}");
        }
        let note = state.pages.keep(slot.physical.page(), obstacle)?;
        state.note(note);
        Ok(())
    }

    /// The same gate, pointed at a stub for its handler; `None` if there is no stub.
    fn point_at_stub(&self, state: &mut TableState, arming: &Arming<'_>, width: Width, gate: Gate) -> Option<Gate> {
        let handler = gate.offset();
        if state.stub_at(handler).is_some() {
            return Some(gate);
        }
        match state.stub_of(handler, width, &self.room, arming) {
            Ok(stub) => {
                self.generation.fetch_add(1, Ordering::Release);
                Some(gate.with_offset(stub.place.start))
            }
            Err(NoStub::Handler { .. }) if !arming.thorough => None,
            Err(error) => {
                state.refuse(handler, format!("the guest's #PF can't be intercepted: {error}"));
                None
            }
        }
    }

    /// Whether any of the `length` bytes at `at` belong to one of our gates.
    pub(super) fn holds_gate(&self, at: Pa, length: usize) -> bool {
        lock(&self.state).gates.iter().any(|slot| slot.overlaps(at, length))
    }

    /// Carries out a guest write to our gates. The write changes the gate that the guest believes to be there: the
    /// one with the handler that it chose, not with the stub. Every other vCPU must stand still; `faults` is the
    /// number of faults seen so far.
    pub(super) fn write_gate(&self, arming: &Arming<'_>, at: Pa, data: &[u8], faults: u64) {
        let mut state = lock(&self.state);
        let memory = arming.memory;
        let gates: Vec<(GateSlot, Gate)> = (state.gates.iter().copied().filter(|slot| slot.overlaps(at, data.len())))
            .filter_map(|slot| Some((slot, slot.read(memory)?)))
            .collect();
        // What can be read can be written.
        let _ = memory.write(at, data);
        for (slot, before) in gates {
            let written = slot.with_written(before, at, data);
            let is_known = written.is_usable() && state.stub_at(written.offset()).is_some();
            if is_known && written.differs_beside_offset(before) {
                // The guest read the gate, and changed its type or its segment: what it wrote of the offset is what it read.
                continue;
            }
            let gate = slot.with_written(state.as_guest_made_it(before), at, data);
            state.take_back(slot, arming, faults);
            let stubs = state.stubs.len();
            let wanted = gate.is_usable() && self.is_wanted() && !state.refused.contains(&gate.offset());
            let armed = if wanted { self.point_at_stub(&mut state, arming, slot.width, gate) } else { None };
            if let Some(armed) = armed.filter(|_| state.stubs.len() > stubs) {
                state.fresh = Some(Fresh { slot, start: armed.offset(), faults });
                self.has_fresh.store(true, Ordering::Relaxed);
            }
            slot.write(memory, armed.unwrap_or(gate));
        }
    }

    /// Keeps the stub that the last write to a gate created: the guest has done something else since.
    pub(super) fn settle(&self) {
        if self.has_fresh.swap(false, Ordering::Relaxed) {
            lock(&self.state).fresh = None;
        }
    }

    /// Carries out a guest write to a page that is kept, beside its gates. Returns whether there have been so many
    /// that the page should be given up.
    pub(super) fn write_beside(&self, memory: &Memory, at: Pa, data: &[u8]) -> bool {
        let _ = memory.write(at, data);
        lock(&self.state).pages.count_write(at.page())
    }

    /// Gives `page` up. Every other vCPU must stand still.
    pub(super) fn give_up(&self, page: Pa, why: &str) -> Result<(), LostPage> {
        let mut state = lock(&self.state);
        let note = state.pages.give_up(page, why)?;
        state.note(note);
        Ok(())
    }

    /// Gives all pages up. Every other vCPU must stand still.
    pub(super) fn give_up_all(&self, why: &str) -> Result<(), LostPage> {
        let mut state = lock(&self.state);
        let notes = state.pages.give_up_all(why)?;
        state.note(notes);
        Ok(())
    }

    /// Restores the guest's gates. Every other vCPU must stand still.
    ///
    /// The stubs stay: a context that was interrupted in one may return there at any later time.
    pub(super) fn disarm(&self, memory: &Memory) -> Result<(), LostPage> {
        let mut state = lock(&self.state);
        for slot in std::mem::take(&mut state.gates) {
            let Some(gate) = slot.read(memory) else { continue };
            slot.write(memory, state.as_guest_made_it(gate));
        }
        self.in_place.store(false, Ordering::Relaxed);
        tracing::info!("disarmed: gate 14 points at the guest's own handler again");
        state.pages.release_all()
    }
}

impl TableState {
    /// The stub that begins at `start`.
    fn stub_at(&self, start: Va) -> Option<&Stub> {
        self.stubs.iter().find(|stub| stub.place.start == start)
    }

    /// The stub for `handler`: the existing one, one in new room, or that of a handler that no longer exists.
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

    /// Removes the stub that the last write to `slot` created, unless a fault came through it or another gate points at it.
    fn take_back(&mut self, slot: GateSlot, arming: &Arming<'_>, faults: u64) {
        let memory = arming.memory;
        let Some(fresh) = self.fresh.take_if(|fresh| fresh.slot == slot) else { return };
        let Some(index) = self.stubs.iter().position(|stub| stub.place.start == fresh.start) else { return };
        let points_there = |other: &GateSlot| other.read(memory).map(Gate::offset) == Some(fresh.start);
        let is_shared = self.gates.iter().filter(|other| **other != slot).any(points_there);
        if faults == fresh.faults && !is_shared && !arming.stands_in(&self.stubs[index]) {
            self.stubs.remove(index).erase(memory, arming.paging);
        }
    }

    /// Finds room for another stub.
    fn place(&mut self, handler: Va, code: Code, room: &Room, arming: &Arming<'_>) -> Result<StubPlace, NoStub> {
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

    /// Takes a stub with this code from a handler that no longer exists, if no gate points at it and no vCPU is in
    /// it. A context that has still to return into it finds the same bytes there. A handler that still exists keeps
    /// its stub, because the guest may have a copy of a gate that points at it.
    fn give_up_idle(&mut self, code: Code, arming: &Arming<'_>) -> Option<Stub> {
        let Arming { memory, paging, .. } = *arming;
        let leads_to = |slot: &GateSlot| slot.read(memory).map(Gate::offset);
        self.gates.retain(|slot| self.stubs.iter().any(|stub| leads_to(slot) == Some(stub.place.start)));
        let in_use = |stub: &Stub| self.gates.iter().any(|slot| leads_to(slot) == Some(stub.place.start));
        let index = self.stubs.iter().position(|stub| {
            let gone = stub.handler_has_gone(memory, paging);
            stub.code == code && gone && !in_use(stub) && !arming.stands_in(stub) && stub.is_intact(memory, paging)
        })?;
        Some(self.stubs.remove(index))
    }

    /// The gate as the guest made it, without a stub.
    fn as_guest_made_it(&self, gate: Gate) -> Gate {
        self.stub_at(gate.offset()).map_or(gate, |stub| gate.with_offset(stub.handler))
    }

    fn note(&mut self, notes: impl IntoIterator<Item = String>) {
        for note in notes {
            tracing::warn!("{note}");
            self.notes.push(note);
        }
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
mod tests;
