//! What the engine has put into the guest: stubs, and gates that point at them. Shared by all vCPUs, changed only
//! while all of them stand still.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, OnceLock};
use std::time::Instant;

use vector14_hook::{Pa, Va};

use super::idt::Gate;
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
    /// Where the user wants the stub.
    place: Option<Va>,
    arm_when: ArmWhen,
}

#[derive(Default)]
struct State {
    stubs: Vec<Stub>,
    /// Guest-physical addresses of the gates that point at stubs.
    gates: Vec<Pa>,
    /// Handlers, or gates, that can't be intercepted; each has been reported.
    refused: Vec<Va>,
    notes: Vec<String>,
}

impl Table {
    /// Nothing is in the guest yet. `place` is where the user wants the stub.
    pub(crate) fn new(place: Option<Va>, arm_when: ArmWhen) -> Self {
        Self { wanted: AtomicBool::new(true), place, arm_when, ..Self::default() }
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
    pub(super) fn adopt(&self, physical: Pa, gate: Gate) -> bool {
        let mut state = lock(&self.state);
        let known = state.stubs.iter().any(|stub| stub.start == gate.offset());
        if known {
            state.remember(physical);
        }
        known
    }

    /// Whether the handler of `gate` can't be intercepted, as the summary will say.
    pub(super) fn has_refused(&self, gate: Gate) -> bool {
        lock(&self.state).refused.contains(&gate.offset())
    }

    /// Points the gate at `physical` at a stub of its handler's. Every other vCPU stands still.
    pub(super) fn arm(&self, memory: &Memory, paging: &Paging, physical: Pa) {
        let mut state = lock(&self.state);
        let Some(gate) = read_gate(memory, physical).filter(|gate| gate.is_usable()) else { return };
        let handler = gate.offset();
        if state.stubs.iter().any(|stub| stub.start == handler) {
            state.remember(physical);
            return;
        }
        state.stubs.retain(|stub| stub.handler != handler || stub.is_intact(memory, paging));
        let stub = match state.stubs.iter().find(|stub| stub.handler == handler) {
            Some(stub) => *stub,
            None if state.stubs.len() == STUB_LIMIT => {
                state.refuse(
                    handler,
                    format!("the guest has had {STUB_LIMIT} handlers for #PF: the one at {handler} is not intercepted"),
                );
                return;
            }
            None => match Stub::place(memory, paging, handler, self.place, &state.stubs) {
                Ok(stub) => {
                    state.stubs.push(stub);
                    self.generation.fetch_add(1, Ordering::Release);
                    stub
                }
                Err(error) => {
                    state.refuse(handler, format!("the guest's #PF can't be intercepted: {error}"));
                    return;
                }
            },
        };
        self.in_place.store(true, Ordering::Relaxed);
        if memory.write(physical, &gate.with_offset(stub.start).0).is_ok() {
            state.remember(physical);
            if self.armed_at.set(Instant::now()).is_ok() {
                tracing::info!("armed: gate 14 leads from its handler at {handler} to the stub at {}", stub.start);
            }
        }
    }

    /// Gives the guest its gates back. Every other vCPU stands still.
    ///
    /// The stubs stay: a context that was interrupted in one returns there at any time later.
    pub(super) fn disarm(&self, memory: &Memory) {
        let mut state = lock(&self.state);
        for physical in std::mem::take(&mut state.gates) {
            let Some(gate) = read_gate(memory, physical) else { continue };
            if let Some(stub) = state.stubs.iter().find(|stub| stub.start == gate.offset()) {
                // What has been read can be written: a VM has no read-only memory.
                let _ = memory.write(physical, &gate.with_offset(stub.handler).0);
            }
        }
        self.in_place.store(false, Ordering::Relaxed);
        tracing::info!("disarmed: gate 14 is as the guest made it");
    }
}

impl State {
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
    use vector14_hook::Cr3;

    use super::*;
    use vector14_hook::paging::Mode;

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
    fn disarming_restores_the_gate_and_leaves_the_stub_to_contexts_that_return_there() {
        let (memory, table) = (guest(), Table::new(None, ArmWhen::GateIsPresent));
        let gate = read_gate(&memory, Pa(IDT)).unwrap();
        table.arm(&memory, &PAGING, Pa(IDT));
        let stub = table.stubs()[0];
        assert_eq!(offset(&memory, IDT), stub.start);
        assert!(table.armed_at().is_some() && table.in_place());
        let armed = snapshot(&memory);
        table.disarm(&memory);
        assert_eq!(read_gate(&memory, Pa(IDT)), Some(gate));
        assert!(!table.in_place() && stub.is_intact(&memory, &PAGING));
        table.arm(&memory, &PAGING, Pa(IDT));
        assert_eq!(table.stubs(), [stub], "the stub serves again");
        assert_eq!(snapshot(&memory), armed);
    }

    #[test]
    fn a_stub_that_the_guest_has_overwritten_is_not_used_again() {
        let (memory, table) = (guest(), Table::new(None, ArmWhen::GateIsPresent));
        table.arm(&memory, &PAGING, Pa(IDT));
        let first = table.stubs()[0];
        table.disarm(&memory);
        memory.write(first.physical, &[0x90; 4]).unwrap();
        table.arm(&memory, &PAGING, Pa(IDT));
        let stubs = table.stubs();
        assert!(stubs.len() == 1 && stubs[0] != first && stubs[0].is_intact(&memory, &PAGING), "{stubs:?}");
    }

    #[test]
    fn a_gate_that_is_rewritten_gets_a_stub_of_its_new_handler() {
        let (memory, table) = (guest(), Table::new(None, ArmWhen::GateIsPresent));
        table.arm(&memory, &PAGING, Pa(IDT));
        let saved = read_gate(&memory, Pa(IDT)).unwrap();
        memory.write(Pa(IDT), &gate_to(0x9000).0).unwrap();
        assert!(!table.adopt(Pa(IDT), gate_to(0x9000)));
        table.arm(&memory, &PAGING, Pa(IDT));
        let handlers: Vec<Va> = table.stubs().iter().map(|stub| stub.handler).collect();
        assert_eq!(handlers, [Va(0x8000), Va(0x9000)]);
        assert_eq!(offset(&memory, IDT), table.stubs()[1].start);

        memory.write(Pa(IDT), &saved.0).unwrap();
        assert!(table.adopt(Pa(IDT), saved), "a gate that was read back leads to its first stub");
        table.disarm(&memory);
        assert_eq!(offset(&memory, IDT), Va(0x8000));
    }

    #[test]
    fn a_copied_gate_is_known_and_restored_too() {
        let (memory, table) = (guest(), Table::new(None, ArmWhen::GateIsPresent));
        table.arm(&memory, &PAGING, Pa(IDT));
        let copy = read_gate(&memory, Pa(IDT)).unwrap();
        memory.write(Pa(COPY), &copy.0).unwrap();
        assert!(table.adopt(Pa(COPY), copy));
        table.disarm(&memory);
        assert_eq!((offset(&memory, IDT), offset(&memory, COPY)), (Va(0x8000), Va(0x8000)));
    }

    #[test]
    fn a_guest_with_ever_new_handlers_is_left_alone_at_some_point() {
        let (memory, table) = (guest(), Table::new(None, ArmWhen::GateIsPresent));
        for index in 0..2 * STUB_LIMIT as u64 {
            memory.write(Pa(0x1_0000 + index * 0x200), &[0x90; 64]).unwrap();
            memory.write(Pa(0x1_0040 + index * 0x200), &[0xcc; 64]).unwrap();
            memory.write(Pa(IDT), &gate_to(0x1_0000 + index * 0x200).0).unwrap();
            table.arm(&memory, &PAGING, Pa(IDT));
        }
        assert_eq!(table.stubs().len(), STUB_LIMIT);
        assert_eq!(table.take_notes().len(), STUB_LIMIT);
    }

    #[test]
    fn linux_is_armed_in_the_cpu_entry_area_only() {
        let table = Table::new(None, ArmWhen::IdtIsInCpuEntryArea);
        assert!(table.may_arm(Va(0xffff_fe00_0000_0000)));
        assert!(!table.may_arm(Va(0xffff_ffff_8300_0000)));
        assert!(Table::new(None, ArmWhen::GateIsPresent).may_arm(Va(0x1000)));
    }

    #[test]
    fn a_handler_without_room_is_reported_once() {
        let (memory, table) = (guest(), Table::new(None, ArmWhen::GateIsPresent));
        memory.write(Pa(0), &vec![0x90; 0x1000]).unwrap();
        memory.write(Pa(0x4000), &vec![0x90; 0x1f_c000]).unwrap();
        memory.write(Pa(IDT), &gate_to(0x8000).0).unwrap();
        table.arm(&memory, &PAGING, Pa(IDT));
        assert!(table.has_refused(gate_to(0x8000)), "it is not tried again");
        table.arm(&memory, &PAGING, Pa(IDT));
        let notes = table.take_notes();
        assert_eq!(notes.len(), 1);
        assert!(notes[0].contains("0x8000") && notes[0].contains("intercept.stub"), "{}", notes[0]);
    }
}
