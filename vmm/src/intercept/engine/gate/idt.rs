//! Gate descriptors: 16 bytes in long mode (SDM vol. 3A, 6.14.1, figure 6-8), 8 in protected mode (6.11, figure 6-2).

use vector14_hook::paging::Mode;
use vector14_hook::{Pa, Va};

use crate::machine::memory::Memory;

const TASK_GATE: u8 = 0x5;
const INTERRUPT_GATE: u8 = 0xe;
const TRAP_GATE: u8 = 0xf;

/// Width of gates, and of the words that the CPU pushes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Width {
    /// Protected mode.
    Bits32,
    /// Long mode.
    Bits64,
}

impl Width {
    /// Width in this paging mode; `None` without paging, where there are no page faults.
    pub(super) fn of(mode: Mode) -> Option<Self> {
        match mode {
            Mode::Off => None,
            Mode::Bits32 { .. } | Mode::Pae => Some(Self::Bits32),
            Mode::Long { .. } => Some(Self::Bits64),
        }
    }

    /// Size of a gate descriptor, in bytes.
    pub(super) fn gate_size(self) -> usize {
        match self {
            Self::Bits32 => 8,
            Self::Bits64 => 16,
        }
    }

    /// Size of a word on the stack, in bytes.
    pub(super) fn word_size(self) -> u64 {
        match self {
            Self::Bits32 => 4,
            Self::Bits64 => 8,
        }
    }
}

/// A gate descriptor. An 8-byte one is followed by zeroes, which mean the same.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Gate(pub(super) [u8; 16]);

/// Guest-physical location of a gate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct GateSlot {
    pub(super) physical: Pa,
    pub(super) width: Width,
}

impl GateSlot {
    /// Reads the gate; `None` if it is outside of memory.
    pub(super) fn read(self, memory: &Memory) -> Option<Gate> {
        let mut gate = Gate::default();
        memory.read(self.physical, &mut gate.0[..self.width.gate_size()]).ok()?;
        Some(gate)
    }

    /// Whether any of the `length` bytes at `at` belong to the gate.
    pub(super) fn overlaps(self, at: Pa, length: usize) -> bool {
        at.0 < self.physical.0 + self.width.gate_size() as u64 && self.physical.0 < at.0 + length as u64
    }

    /// `gate` after a write of `data` to `at`: replaces those of its bytes that the write changes.
    pub(super) fn with_written(self, mut gate: Gate, at: Pa, data: &[u8]) -> Gate {
        for (address, byte) in (at.0..).zip(data) {
            let index = address.checked_sub(self.physical.0).and_then(|index| usize::try_from(index).ok());
            if let Some(slot) = index.and_then(|index| gate.0[..self.width.gate_size()].get_mut(index)) {
                *slot = *byte;
            }
        }
        gate
    }

    /// Replaces the gate. What can be read can be written: a VM has no read-only memory.
    pub(super) fn write(self, memory: &Memory, gate: Gate) {
        let _ = memory.write(self.physical, &gate.0[..self.width.gate_size()]);
    }
}

/// A descriptor table register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Idtr {
    pub(super) base: Va,
    pub(super) limit: u16,
}

impl Idtr {
    /// Address of the gate for `vector`; `None` if it is beyond the limit.
    pub(super) fn gate(self, vector: u8, width: Width) -> Option<Va> {
        let offset = u64::from(vector) * width.gate_size() as u64;
        (u64::from(self.limit) >= offset + width.gate_size() as u64 - 1).then(|| self.base.offset(offset))
    }
}

impl Gate {
    /// Address of the handler.
    pub(super) fn offset(self) -> Va {
        let byte = |index: usize| u64::from(self.0[index]);
        Va(byte(0) | byte(1) << 8 | (6..12).map(|index| byte(index) << (8 * (index - 4))).sum::<u64>())
    }

    /// The same gate with another handler.
    pub(super) fn with_offset(mut self, offset: Va) -> Self {
        let bytes = offset.0.to_le_bytes();
        self.0[..2].copy_from_slice(&bytes[..2]);
        self.0[6..12].copy_from_slice(&bytes[2..]);
        self
    }

    /// Whether the two differ in anything but the handler.
    pub(super) fn differs_beside_offset(self, other: Self) -> bool {
        self.0[2..6] != other.0[2..6]
    }

    /// Whether the gate switches tasks. Such gates exist only in protected mode.
    pub(super) fn is_task(self) -> bool {
        self.0[5] & 0x9f == 0x80 | TASK_GATE
    }

    /// Whether the gate is present, and an interrupt or trap gate of its mode's full width.
    pub(super) fn is_usable(self) -> bool {
        self.0[5] & 0x80 != 0 && matches!(self.0[5] & 0x1f, INTERRUPT_GATE | TRAP_GATE)
    }

    /// Whether the CPU clears RFLAGS.IF on the way in.
    pub(super) fn masks_interrupts(self) -> bool {
        self.0[5] & 0x1f == INTERRUPT_GATE
    }

    /// Index of the stack that the CPU switches to; 0 for none.
    pub(super) fn ist(self) -> u8 {
        self.0[4] & 7
    }

    /// Code segment of the handler.
    pub(super) fn selector(self) -> u16 {
        u16::from_le_bytes([self.0[2], self.0[3]])
    }
}

/// A gate 14 that has been looked at. While none of this changes, there is nothing to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) idtr: Idtr,
    pub(super) slot: GateSlot,
    pub(super) gate: Gate,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::intercept::engine::caught::PAGE_FAULT;

    /// An interrupt gate of Linux's: offset 0xffffffff_82000bd0, selector 0x10, present.
    const LINUX: Gate = Gate([0xd0, 0x0b, 0x10, 0, 0, 0x8e, 0, 0x82, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0]);

    #[test]
    fn the_fields_are_where_the_sdm_has_them() {
        assert_eq!(LINUX.offset(), Va(0xffff_ffff_8200_0bd0));
        assert_eq!((LINUX.selector(), LINUX.ist()), (0x10, 0));
        assert!(LINUX.is_usable() && LINUX.masks_interrupts());
        let trap = Gate({
            let mut bytes = LINUX.0;
            bytes[5] = 0x8f;
            bytes
        });
        assert!(trap.is_usable() && !trap.masks_interrupts());
        for byte in [0x0e, 0x85, 0x8c, 0x80] {
            assert!(
                !Gate({
                    let mut bytes = LINUX.0;
                    bytes[5] = byte;
                    bytes
                })
                .is_usable(),
                "{byte:#x}"
            );
        }
    }

    #[test]
    fn another_handler_changes_nothing_but_the_offset() {
        let moved = LINUX.with_offset(Va(0x1234_5678_9abc_def0));
        assert_eq!(moved.offset(), Va(0x1234_5678_9abc_def0));
        assert_eq!(moved.with_offset(LINUX.offset()), LINUX);
    }

    #[test]
    fn the_limit_decides_whether_there_is_a_gate_14() {
        let gate = |limit, width| Idtr { base: Va(0x1000), limit }.gate(PAGE_FAULT, width);
        assert_eq!((gate(0xef, Width::Bits64), gate(0xee, Width::Bits64)), (Some(Va(0x10e0)), None));
        assert_eq!((gate(0x77, Width::Bits32), gate(0x76, Width::Bits32)), (Some(Va(0x1070)), None));
    }

    #[test]
    fn a_gate_of_8_bytes_leaves_its_neighbour_alone() {
        let memory = Memory::new(2 << 20).unwrap();
        memory.write(Pa(0x1000), &[0x34, 0x12, 8, 0, 0, 0x8f, 0x10, 0x80, 0xaa, 0xaa]).unwrap();
        let slot = GateSlot { physical: Pa(0x1000), width: Width::Bits32 };
        let gate = slot.read(&memory).unwrap();
        assert_eq!((gate.offset(), gate.selector(), gate.is_usable()), (Va(0x8010_1234), 8, true));
        slot.write(&memory, gate.with_offset(Va(0xc000_5678)));
        assert_eq!(memory.load(Pa(0x1000)), Ok(0xc000_8f00_0008_5678));
        assert_eq!(memory.load(Pa(0x1008)), Ok(0xaaaa));
        assert!(Gate([0, 0, 8, 0, 0, 0x85, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]).is_task());
    }
}
