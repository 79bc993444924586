//! Code segments: in which mode the interrupted code runs.

use kvm_bindings::kvm_sregs;
use vector14_hook::Va;
use vector14_hook::paging::Paging;

use crate::guest::read_words;
use crate::memory::Memory;

const TABLE_INDICATOR: u16 = 1 << 2;
const LONG: u64 = 1 << 53;
const DEFAULT_SIZE: u64 = 1 << 54;

/// A code segment that the CPU has left: its descriptor is to be looked up anew.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CodeSegment {
    descriptor: Va,
}

impl CodeSegment {
    /// The segment that `selector` names in the descriptor tables of `sregs`.
    pub(crate) fn of_selector(selector: u16, sregs: &kvm_sregs) -> Self {
        let base = if selector & TABLE_INDICATOR == 0 { sregs.gdt.base } else { sregs.ldt.base };
        Self { descriptor: Va(base.wrapping_add(u64::from(selector & !7))) }
    }

    /// Operand and address size of its code, in bits: 64, or 32 or 16 in compatibility mode (SDM vol. 3A, 3.4.5 and
    /// 5.2.1). `None` where the descriptor can't be read.
    pub(crate) fn bits(self, memory: &Memory, paging: &Paging) -> Option<u32> {
        let mut descriptor = [0; 8];
        if read_words(memory, paging, self.descriptor, &mut descriptor) < descriptor.len() {
            return None;
        }
        let descriptor = u64::from_le_bytes(descriptor);
        Some(match (descriptor & LONG != 0, descriptor & DEFAULT_SIZE != 0) {
            (true, _) => 64,
            (false, true) => 32,
            (false, false) => 16,
        })
    }
}
