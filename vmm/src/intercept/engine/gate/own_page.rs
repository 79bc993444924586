//! A host-owned page for stubs, if the guest has no room for them.
//!
//! It is mapped by a free entry of the last-level page table that maps the IDT. Every address space that can take an
//! exception maps the IDT, usually by that same table. No page table is added, because a kernel that walks its tables
//! would not find a host-owned one in its own map of memory.

use std::ops::Range;

use vector14_hook::paging::{Paging, Step};
use vector14_hook::{Access, GuestError, PAGE_SIZE, Va};

use super::room::TABLE_SPAN;
use crate::machine::memory::{Memory, Owner};

/// Why a host-owned page can't be mapped.
#[derive(Debug, thiserror::Error)]
pub(super) enum NoPage {
    #[error("its IDT at {0} is mapped by a large page, so no host-owned page fits beside it")]
    LargePage(Va),
    #[error("the page table that maps its IDT at {0} has no free entry")]
    Full(Va),
    #[error("the page table that maps its IDT at {0} forbids execution")]
    NoExecute(Va),
    #[error("no page can be mapped beside its IDT: {0}")]
    Map(#[from] GuestError),
}

/// Maps a page beside the IDT at `idt`, by the last free entry: kernels fill such a table from its beginning.
pub(super) fn map(memory: &Memory, paging: &Paging, idt: Va) -> Result<Range<Va>, NoPage> {
    if paging.translate(idt, |slot| memory.load(slot))?.page_size != PAGE_SIZE {
        return Err(NoPage::LargePage(idt));
    }
    let table = idt.0 & !(TABLE_SPAN - 1);
    let is_free = |page: &Va| {
        let walk = paging.walk(*page, |slot| memory.load(slot));
        walk.is_ok_and(|walk| matches!(walk.end(), Step::Absent(entry) if entry.level == 1 && entry.entry == 0))
    };
    let pages = (0..TABLE_SPAN / PAGE_SIZE).rev().map(|index| Va(table + index * PAGE_SIZE));
    let page = pages.into_iter().find(is_free).ok_or(NoPage::Full(idt))?;
    let frame = memory.allocate_page(Owner::GUEST)?;
    memory.write(frame, &[0xcc; 4096])?;
    paging.map(memory, memory.kind(), page, frame, Access::EXECUTE)?;
    if paging.translate(page, |slot| memory.load(slot))?.access.contains(Access::EXECUTE) {
        return Ok(page..page.offset(PAGE_SIZE));
    }
    paging.unmap(memory, page)?;
    memory.free_page(frame, Owner::GUEST)?;
    Err(NoPage::NoExecute(idt))
}

#[cfg(test)]
mod tests {
    use vector14_hook::paging::Mode;
    use vector14_hook::{Cr3, Pa};

    use super::*;

    const PAGING: Paging = Paging { cr3: Cr3(0x1000), mode: Mode::Long { levels: 4 }, no_execute: true };
    const IDT: Va = Va(0x5000);

    /// One page table, at 0x4000, that maps the IDT.
    fn guest(above: u64) -> Memory {
        let memory = Memory::new(2 << 20).unwrap();
        for (slot, entry) in [(0x1000, 0x2003), (0x2000, 0x3003), (0x3000, 0x4003 | above), (0x4028, 0x5003u64)] {
            memory.write(Pa(slot), &entry.to_le_bytes()).unwrap();
        }
        memory
    }

    #[test]
    fn the_last_free_entry_of_the_table_is_taken() {
        let memory = guest(0);
        memory.write(Pa(0x4ff8), &0x6003u64.to_le_bytes()).unwrap();
        memory.write(Pa(0x4ff0), &0xff00u64.to_le_bytes()).unwrap();
        assert_eq!(map(&memory, &PAGING, IDT).unwrap(), Va(0x1f_d000)..Va(0x1f_e000));
        let page = PAGING.translate(Va(0x1f_d000), |slot| memory.load(slot)).unwrap();
        assert_eq!(page.access, Access::EXECUTE);
        let mut bytes = [0; 2];
        memory.read(page.address, &mut bytes).unwrap();
        assert_eq!(bytes, [0xcc; 2]);
    }

    #[test]
    fn a_table_that_can_not_be_used_is_left_as_it_was() {
        let memory = guest(1 << 63);
        assert!(matches!(map(&memory, &PAGING, IDT), Err(NoPage::NoExecute(IDT))));
        assert_eq!(memory.load(Pa(0x4ff8)), Ok(0));
        memory.write(Pa(0x4000), &[0xff; 4096]).unwrap();
        memory.write(Pa(0x4028), &0x5003u64.to_le_bytes()).unwrap();
        memory.write(Pa(0x3000), &0x4003u64.to_le_bytes()).unwrap();
        assert!(matches!(map(&memory, &PAGING, IDT), Err(NoPage::Full(IDT))));
        memory.write(Pa(0x3000), &0x83u64.to_le_bytes()).unwrap();
        assert!(matches!(map(&memory, &PAGING, IDT), Err(NoPage::LargePage(IDT))));
    }
}
