//! The bits of CR0, CR4 and EFER that select the paging mode (SDM vol. 3A, 2.2.1, 2.5 and 4.1.1).

use super::mode::{Mode, Paging};
use crate::{Cr3, SystemRegisters};

/// CR0.PE: protected mode.
pub const CR0_PE: u64 = 1 << 0;
/// CR0.ET: set in every CPU since the 486.
pub const CR0_ET: u64 = 1 << 4;
/// CR0.WP: the kernel can't write to read-only pages.
pub const CR0_WP: u64 = 1 << 16;
/// CR0.PG: paging.
pub const CR0_PG: u64 = 1 << 31;
/// CR4.PSE: 32-bit paging has pages of 4 MiB.
pub const CR4_PSE: u64 = 1 << 4;
/// CR4.PAE: entries have 8 bytes.
pub const CR4_PAE: u64 = 1 << 5;
/// CR4.LA57: long mode has 5 levels of page tables.
pub const CR4_LA57: u64 = 1 << 12;
/// EFER.LME: long mode starts when paging does.
pub const EFER_LME: u64 = 1 << 8;
/// EFER.LMA: the CPU is in long mode.
pub const EFER_LMA: u64 = 1 << 10;
/// EFER.NXE: bit 63 of a page-table entry forbids execution.
pub const EFER_NXE: u64 = 1 << 11;

impl Paging {
    /// The paging state that these registers select.
    #[must_use]
    #[inline]
    pub const fn in_force(cr3: Cr3, registers: &SystemRegisters) -> Self {
        let SystemRegisters { cr0, cr4, efer, .. } = *registers;
        let mode = match (cr0 & CR0_PG != 0, cr4 & CR4_PAE != 0, efer & EFER_LMA != 0) {
            (false, _, _) => Mode::Off,
            (true, _, true) => Mode::Long { levels: if cr4 & CR4_LA57 != 0 { 5 } else { 4 } },
            (true, true, false) => Mode::Pae,
            (true, false, false) => Mode::Bits32 { large_pages: cr4 & CR4_PSE != 0 },
        };
        // 4-byte entries have no bit 63, whatever EFER says.
        let wide = !matches!(mode, Mode::Bits32 { .. });
        Self { cr3, mode, no_execute: wide && efer & EFER_NXE != 0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paging(cr0: u64, cr4: u64, efer: u64) -> Paging {
        Paging::in_force(Cr3(0x1000), &SystemRegisters { cr0, cr4, efer, ..SystemRegisters::default() })
    }

    #[test]
    fn the_registers_select_the_mode() {
        for (cr0, cr4, efer, mode) in [
            (CR0_PE, CR4_PAE, EFER_NXE, Mode::Off),
            (CR0_PG, CR4_PSE, EFER_NXE, Mode::Bits32 { large_pages: true }),
            (CR0_PG, 0, 0, Mode::Bits32 { large_pages: false }),
            (CR0_PG, CR4_PAE, EFER_NXE, Mode::Pae),
            (CR0_PG, CR4_PAE, EFER_LME | EFER_LMA, Mode::Long { levels: 4 }),
            (CR0_PG, CR4_PAE | CR4_LA57, EFER_LME | EFER_LMA, Mode::Long { levels: 5 }),
        ] {
            assert_eq!(paging(cr0, cr4, efer).mode, mode);
        }
    }

    #[test]
    fn entries_of_8_bytes_forbid_execution_if_nxe_is_set() {
        assert!(paging(CR0_PG, CR4_PAE, EFER_NXE).no_execute);
        assert!(!paging(CR0_PG, CR4_PAE, 0).no_execute);
        assert!(!paging(CR0_PG, CR4_PSE, EFER_NXE).no_execute);
    }
}
