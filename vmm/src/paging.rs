//! The paging mode that a vCPU is in.

use kvm_bindings::kvm_sregs;
use vector14_hook::Cr3;
use vector14_hook::paging::{Mode, Paging};

const CR0_PG: u64 = 1 << 31;
const CR4_PSE: u64 = 1 << 4;
const CR4_PAE: u64 = 1 << 5;
const CR4_LA57: u64 = 1 << 12;
const EFER_LMA: u64 = 1 << 10;
const EFER_NXE: u64 = 1 << 11;

/// The paging mode that these registers select (SDM vol. 3A, 4.1.1).
pub(crate) fn in_force(sregs: &kvm_sregs) -> Paging {
    let (cr0, cr4, efer) = (sregs.cr0, sregs.cr4, sregs.efer);
    let mode = match (cr0 & CR0_PG != 0, cr4 & CR4_PAE != 0, efer & EFER_LMA != 0) {
        (false, _, _) => Mode::Off,
        (true, _, true) => Mode::Long { levels: if cr4 & CR4_LA57 != 0 { 5 } else { 4 } },
        (true, true, false) => Mode::Pae,
        (true, false, false) => Mode::Bits32 { large_pages: cr4 & CR4_PSE != 0 },
    };
    // 4-byte entries have no bit 63, whatever EFER says.
    let wide = !matches!(mode, Mode::Bits32 { .. });
    Paging { cr3: Cr3(sregs.cr3), mode, no_execute: wide && efer & EFER_NXE != 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn registers_say_which_mode_it_is() {
        let paging = |cr0, cr4, efer| in_force(&kvm_sregs { cr0, cr4, efer, ..kvm_sregs::default() });
        const PG: u64 = 1 << 31;
        assert_eq!(paging(1, 0x20, 0x800).mode, Mode::Off);
        assert_eq!(paging(PG, 0x10, 0x800).mode, Mode::Bits32 { large_pages: true });
        assert!(!paging(PG, 0x10, 0x800).no_execute);
        assert_eq!((paging(PG, 0x20, 0x800).mode, paging(PG, 0x20, 0x800).no_execute), (Mode::Pae, true));
        assert_eq!(paging(PG, 0x20, 0x500).mode, Mode::Long { levels: 4 });
        assert_eq!(paging(PG, 0x1020, 0x500).mode, Mode::Long { levels: 5 });
    }
}
