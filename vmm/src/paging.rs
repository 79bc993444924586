//! The paging mode that a vCPU is in.

use kvm_bindings::kvm_sregs;
use vector14_hook::Cr3;
use vector14_hook::paging::Paging;

const CR0_PG: u64 = 1 << 31;
const CR4_LA57: u64 = 1 << 12;
const EFER_LMA: u64 = 1 << 10;
const EFER_NXE: u64 = 1 << 11;

/// The paging mode that these registers stand for; `None` outside of long mode.
pub(crate) fn in_force(sregs: &kvm_sregs) -> Option<Paging> {
    let long_mode = sregs.efer & EFER_LMA != 0 && sregs.cr0 & CR0_PG != 0;
    long_mode.then_some(Paging {
        cr3: Cr3(sregs.cr3),
        levels: if sregs.cr4 & CR4_LA57 != 0 { 5 } else { 4 },
        no_execute: sregs.efer & EFER_NXE != 0,
    })
}
