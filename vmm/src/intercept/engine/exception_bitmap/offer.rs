//! What this engine needs from KVM.

use kvm_bindings::{KVM_CAP_SYNC_REGS, KVM_CAP_X86_TRIPLE_FAULT_EVENT, KVM_SYNC_X86_EVENTS};

use crate::intercept::engine::caught::PAGE_FAULT;

/// Exits at exceptions, by vector. KVM_CHECK_EXTENSION returns a mask of the vectors that can exit. KVM_ENABLE_CAP on
/// a VM takes such a mask; for #PF, bits 31 to 0 of the second argument are an error-code mask, and bits 63 to 32 are
/// the value that the code must have under it.
pub(crate) const KVM_CAP_X86_EXCEPTION_EXIT: u32 = 0x7614;

/// The first capability that is missing according to `ask` (KVM_CHECK_EXTENSION); `None` if the engine can run.
pub(crate) fn missing(ask: impl Fn(u32) -> i32) -> Option<&'static str> {
    let has = |capability, bits: u32| ask(capability).cast_unsigned() & bits == bits && ask(capability) > 0;
    let needs = [
        (KVM_CAP_X86_EXCEPTION_EXIT, 1 << PAGE_FAULT, "exits at #PF (KVM_CAP_X86_EXCEPTION_EXIT)"),
        (KVM_CAP_SYNC_REGS, KVM_SYNC_X86_EVENTS, "synced events (KVM_CAP_SYNC_REGS, bit 2)"),
        (KVM_CAP_X86_TRIPLE_FAULT_EVENT, 1, "triple faults as events (KVM_CAP_X86_TRIPLE_FAULT_EVENT)"),
    ];
    needs.into_iter().find(|(capability, bits, _)| !has(*capability, *bits)).map(|(_, _, name)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stock_kvm_is_told_by_its_answer() {
        let stock = |capability| if capability == KVM_CAP_X86_EXCEPTION_EXIT { 0 } else { 7 };
        assert!(missing(stock).unwrap().contains("KVM_CAP_X86_EXCEPTION_EXIT"));
        let changed = |capability| if capability == KVM_CAP_X86_EXCEPTION_EXIT { 1 << 14 } else { 7 };
        assert_eq!(missing(changed), None);
        let other_vectors = |capability| if capability == KVM_CAP_X86_EXCEPTION_EXIT { 1 << 13 } else { 7 };
        assert!(missing(other_vectors).is_some());
        let without_events = |capability| if capability == KVM_CAP_SYNC_REGS { 3 } else { changed(capability) };
        assert!(missing(without_events).unwrap().contains("KVM_CAP_SYNC_REGS"));
        assert!(missing(|_| -1).is_some());
    }
}
