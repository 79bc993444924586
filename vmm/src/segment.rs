//! Code segments: in which mode the interrupted code runs.

use kvm_bindings::kvm_sregs;
use vector14_hook::Va;

use crate::guest::read_words;
use crate::memory::Memory;
use crate::walk::Paging;

const TABLE_INDICATOR: u16 = 1 << 2;
const LONG: u64 = 1 << 53;
const DEFAULT_SIZE: u64 = 1 << 54;

/// Operand and address size of code in the segment `selector`, in bits: 64, or 32 or 16 in compatibility mode
/// (SDM vol. 3A, 3.4.5 and 5.2.1). `None` where the descriptor can't be read.
pub(crate) fn code_bits(sregs: &kvm_sregs, memory: &Memory, paging: &Paging, selector: u16) -> Option<u32> {
    let base = if selector & TABLE_INDICATOR == 0 { sregs.gdt.base } else { sregs.ldt.base };
    let at = Va(base.wrapping_add(u64::from(selector & !7)));
    let mut descriptor = [0; 8];
    if read_words(memory, paging, at, &mut descriptor) < descriptor.len() {
        return None;
    }
    let descriptor = u64::from_le_bytes(descriptor);
    Some(match (descriptor & LONG != 0, descriptor & DEFAULT_SIZE != 0) {
        (true, _) => 64,
        (false, true) => 32,
        (false, false) => 16,
    })
}
