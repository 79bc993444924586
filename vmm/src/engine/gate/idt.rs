//! IDT entry 14 as 16 bytes (SDM vol. 3A, 6.14.1, figure 6-8).

use vector14_hook::Va;

/// #PF.
pub(super) const PAGE_FAULT: u8 = 14;

/// Size of a 64-bit gate descriptor, in bytes.
pub(super) const GATE_SIZE: u64 = 16;

const INTERRUPT_GATE: u8 = 0xe;
const TRAP_GATE: u8 = 0xf;

/// A 64-bit gate descriptor.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Gate(pub(super) [u8; 16]);

/// A descriptor table register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Idtr {
    pub(super) base: Va,
    pub(super) limit: u16,
}

impl Idtr {
    /// Where the gate for `vector` is; `None` where the limit cuts it off.
    pub(super) fn gate(self, vector: u8) -> Option<Va> {
        let offset = u64::from(vector) * GATE_SIZE;
        (u64::from(self.limit) >= offset + GATE_SIZE - 1).then(|| self.base.offset(offset))
    }
}

impl Gate {
    /// Where the handler begins.
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

    /// Whether the CPU would go through it in long mode: present, and an interrupt or trap gate.
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

#[cfg(test)]
mod tests {
    use super::*;

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
        let idtr = |limit| Idtr { base: Va(0x1000), limit };
        assert_eq!(idtr(0xef).gate(PAGE_FAULT), Some(Va(0x10e0)));
        assert_eq!(idtr(0xee).gate(PAGE_FAULT), None);
    }
}
