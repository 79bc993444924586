//! What the engine has put into the guest: stubs, and gates that point at them. Shared by all vCPUs, changed only
//! while all of them stand still.

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

struct State {
    stubs: Vec<Stub>,
    /// The gates that point at stubs, or did.
    gates: Vec<GateSlot>,
    /// The pages that they are in.
    pages: Pages,
    /// The page of the host's that has been mapped for stubs.
    own_page: Option<Range<Va>>,
    /// The last stub that a write to a gate has made.
    fresh: Option<Fresh>,
    /// Stubs that have been written and belong to no handler.
    spare: Vec<(Place, Code)>,
    /// Handlers, or gates, that can't be intercepted; each has been reported.
    refused: Vec<Va>,
    notes: Vec<String>,
    gaps: Gaps,
}

/// A stub that was made when the guest wrote to a gate. Guests write a gate piece by piece, and in between it leads to a handler
/// that does not exist: that one's stub can go again, if no fault came through it.
struct Fresh {
    slot: GateSlot,
    start: Va,
    /// Faults seen by then.
    faults: u64,
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
    /// Whether a handler that can't be read is reported. A guest that is in the midst of writing a gate has such a one for a moment.
    pub(super) thorough: bool,
}

impl Arming<'_> {
    /// Whether a vCPU stands in `stub`.
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
    /// Nothing is in the guest yet. `room` is what is known of places for stubs; `machine` makes pages read-only.
    pub(crate) fn new(room: Room, arm_when: ArmWhen, machine: Box<dyn SetAccess>) -> Self {
        let state = State {
            stubs: Vec::new(),
            gates: Vec::new(),
            pages: Pages::new(machine),
            own_page: None,
            fresh: None,
            spare: Vec::new(),
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
            room,
            arm_when,
        }
    }

    /// Some time has gone by.
    pub(crate) fn beat(&self) {
        lock(&self.state).pages.forgive();
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

    /// Whether nothing is to be done about the page of `slot`: the guest's writes to it come here, or it was given up.
    pub(super) fn has_settled(&self, slot: GateSlot) -> bool {
        lock(&self.state).pages.is_settled(slot.physical.page())
    }

    /// Whether the guest's writes to `page` come here.
    pub(super) fn keeps(&self, page: Pa) -> bool {
        lock(&self.state).pages.keeps(page)
    }

    /// Whether the guest's writes to any page come here.
    pub(super) fn keeps_any(&self) -> bool {
        !lock(&self.state).pages.is_empty()
    }

    /// Whether the handler of `gate` can't be intercepted, as the summary will say.
    pub(super) fn has_refused(&self, gate: Gate) -> bool {
        lock(&self.state).refused.contains(&gate.offset())
    }

    /// Points the gate in `slot` at a stub of its handler's, and keeps its page, unless `obstacle` says why that can't be. Every
    /// other vCPU stands still.
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
            tracing::info!("armed: gate 14 leads from its handler at {handler} to the stub at {stub}");
        }
        let note = state.pages.keep(slot.physical.page(), obstacle)?;
        state.note(note);
        Ok(())
    }

    /// The same gate, pointed at a stub of its handler's; `None` where there is none.
    fn point_at_stub(&self, state: &mut State, arming: &Arming<'_>, width: Width, gate: Gate) -> Option<Gate> {
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

    /// Whether some of the `length` bytes at `at` are of a gate of ours.
    pub(super) fn holds_gate(&self, at: Pa, length: usize) -> bool {
        lock(&self.state).gates.iter().any(|slot| slot.overlaps(at, length))
    }

    /// Carries out a write of the guest's to gates of ours. It changes what the guest believes to be there: the handler that it
    /// chose, not the stub. Every other vCPU stands still; `faults` were seen so far.
    pub(super) fn write_gate(&self, arming: &Arming<'_>, at: Pa, data: &[u8], faults: u64) {
        let mut state = lock(&self.state);
        let memory = arming.memory;
        let gates: Vec<(GateSlot, Gate)> = (state.gates.iter().copied().filter(|slot| slot.overlaps(at, data.len())))
            .filter_map(|slot| Some((slot, state.as_guest_made_it(slot.read(memory)?))))
            .collect();
        // What can be read can be written.
        let _ = memory.write(at, data);
        for (slot, gate) in gates {
            let gate = slot.with_written(gate, at, data);
            state.take_back(slot, arming, faults);
            let stubs = state.stubs.len();
            let wanted = gate.is_usable() && self.is_wanted();
            let armed = if wanted { self.point_at_stub(&mut state, arming, slot.width, gate) } else { None };
            if let Some(armed) = armed.filter(|_| state.stubs.len() > stubs) {
                state.fresh = Some(Fresh { slot, start: armed.offset(), faults });
            }
            slot.write(memory, armed.unwrap_or(gate));
        }
    }

    /// Carries out a write of the guest's to a page that is kept, beside its gates. Returns whether there have been so many
    /// that the page should be given up.
    pub(super) fn write_beside(&self, memory: &Memory, at: Pa, data: &[u8]) -> bool {
        let _ = memory.write(at, data);
        lock(&self.state).pages.count_write(at.page())
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

    /// Gives the guest its gates back. Every other vCPU stands still.
    ///
    /// The stubs stay: a context that was interrupted in one returns there at any time later.
    pub(super) fn disarm(&self, memory: &Memory) -> Result<(), LostPage> {
        let mut state = lock(&self.state);
        for slot in std::mem::take(&mut state.gates) {
            let Some(gate) = slot.read(memory) else { continue };
            slot.write(memory, state.as_guest_made_it(gate));
        }
        self.in_place.store(false, Ordering::Relaxed);
        tracing::info!("disarmed: gate 14 is as the guest made it");
        state.pages.release_all()
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
        let spare = self.spare.iter().position(|(_, spare)| *spare == code);
        if let Some(index) = spare {
            let (place, code) = self.spare.swap_remove(index);
            let stub = Stub::write(memory, paging, handler, place, code).map_err(unreadable)?;
            self.stubs.push(stub);
            return Ok(stub);
        }
        let place = match self.place(handler, code, room, arming) {
            Ok(place) => place,
            Err(error) => self.give_up_idle(code, arming).ok_or(error)?.place,
        };
        let stub = Stub::write(memory, paging, handler, place, code).map_err(unreadable)?;
        self.stubs.push(stub);
        Ok(stub)
    }

    /// Takes the stub back that the last write to `slot` has made, unless a fault came through it.
    fn take_back(&mut self, slot: GateSlot, arming: &Arming<'_>, faults: u64) {
        let Some(fresh) = self.fresh.take_if(|fresh| fresh.slot == slot) else { return };
        let Some(index) = self.stubs.iter().position(|stub| stub.place.start == fresh.start) else { return };
        let stub = self.stubs[index];
        if faults == fresh.faults && !arming.stands_in(&stub) {
            self.stubs.remove(index);
            self.spare.push((stub.place, stub.code));
        }
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

    /// The gate without a stub.
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
