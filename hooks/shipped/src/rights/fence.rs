//! The pages whose accesses a hook wants to see: their address space, and the right whose removal closes them.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

use serde::Deserialize;
use vector14_hook::{Cr3, Fault, Guest, GuestError, OptionsError, PAGE_SIZE, Va};

use super::{Found, Held, Leaf, Right};
use crate::address::{AddressRange, Number};

/// Maximum number of pages. Each page costs one walk per fault.
const MOST_PAGES: u64 = 256;
/// A value that is not the root of any address space.
const NONE: u64 = u64::MAX;

/// A range of pages in an option.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct PageRange {
    start: Number,
    end: Number,
}

/// The option `space`: which address spaces are watched.
#[derive(Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Space {
    /// Every address space.
    #[default]
    Any,
    /// The first address space in which one of the pages is found.
    First,
}

/// The option `catch`: whose accesses are caught.
#[derive(Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Catch {
    /// Accesses by user mode. The guest's kernel finds its page-table entries present, with U/S changed.
    #[default]
    User,
    /// Accesses by user mode and the kernel. The kernel finds its page-table entries absent.
    All,
}

impl Catch {
    /// The right whose removal makes these accesses fault, reads and writes.
    pub(crate) const fn right(self) -> Right {
        match self {
            Self::User => Right::User,
            Self::All => Right::Present,
        }
    }
}

/// A set of pages that are closed wherever they are found open.
pub(crate) struct Fence {
    ranges: Vec<AddressRange>,
    right: Right,
    space: Space,
    /// Root of the first page tables in which one of the pages was found.
    first: AtomicU64,
    /// Whether one of the pages is part of a larger page.
    met_large: AtomicBool,
    held: Held,
}

impl Fence {
    /// A fence that removes `right` from each of `pages`.
    pub(crate) fn new(pages: Vec<PageRange>, space: Space, right: Right) -> Result<Self, OptionsError> {
        let mut ranges = Vec::new();
        for (index, PageRange { start, end }) in pages.into_iter().enumerate() {
            let range = AddressRange::of_pages(start, end)
                .map_err(|error| OptionsError::new("ranges", format!("ranges[{index}]: {error}")))?;
            ranges.push(range);
        }
        let pages: u64 = ranges.iter().fold(0, |pages, range| range.pages().saturating_add(pages));
        if !(1..=MOST_PAGES).contains(&pages) {
            return Err(OptionsError::new("ranges", format!("{pages} pages: must be from 1 to {MOST_PAGES}")));
        }
        let (first, met_large) = (AtomicU64::new(NONE), AtomicBool::new(false));
        Ok(Self { ranges, right, space, first, met_large, held: Held::default() })
    }

    /// The right whose removal closes pages.
    pub(crate) const fn right(&self) -> Right {
        self.right
    }

    /// The entries from which rights are removed.
    pub(crate) const fn held(&self) -> &Held {
        &self.held
    }

    /// The pages, in order.
    pub(crate) fn pages(&self) -> impl Iterator<Item = Va> {
        self.ranges.iter().flat_map(|range| {
            let first = range.start();
            (0..range.pages()).map(move |index| first.offset(index * PAGE_SIZE))
        })
    }

    /// Index of the page that contains `address`.
    pub(crate) fn index(&self, address: Va) -> Option<usize> {
        let mut before = 0;
        for range in &self.ranges {
            if range.contains(address) {
                return usize::try_from(before + (address.0 - range.start().0) / PAGE_SIZE).ok();
            }
            before += range.pages();
        }
        None
    }

    /// Whether an access by this kind of code is caught: an access by the kernel only if `catch` says so.
    pub(crate) fn catches(&self, fault: &Fault) -> bool {
        fault.from_user() || !matches!(self.right, Right::User)
    }

    /// Whether this address space is watched.
    pub(crate) fn concerns(&self, cr3: Cr3) -> bool {
        match self.space {
            Space::Any => true,
            Space::First => [NONE, root(cr3)].contains(&self.first.load(Relaxed)),
        }
    }

    /// Records that one of the pages was found in this address space.
    pub(crate) fn meet(&self, cr3: Cr3) {
        // The first address space stays.
        let _ = self.first.compare_exchange(NONE, root(cr3), Relaxed, Relaxed);
    }

    /// Closes every page that is open in `fault`'s address space. After this returns, no vCPU can access them.
    pub(crate) fn close(&self, fault: &Fault, guest: &mut dyn Guest) -> Result<(), GuestError> {
        let mut taken = false;
        for range in &self.ranges {
            let (mut page, last) = (range.start(), range.last());
            loop {
                let covered = match Leaf::find(guest, &self.held, page) {
                    Found::Absent { level } => level,
                    Found::Leaf(leaf) => {
                        taken |= self.close_page(&leaf, fault, guest);
                        leaf.level()
                    }
                };
                let Some(next) = after(page, covered).filter(|next| *next <= last) else { break };
                page = next;
            }
        }
        if taken { guest.flush() } else { Ok(()) }
    }

    fn close_page(&self, leaf: &Leaf, fault: &Fault, guest: &mut dyn Guest) -> bool {
        if leaf.level() > 1 {
            self.met_large.store(true, Relaxed);
            return false;
        }
        let closed = leaf.exchange(guest, &self.held, &[self.right], &[]);
        if closed {
            self.meet(fault.cr3);
        }
        closed
    }

    /// Warnings about what could not be closed.
    pub(crate) fn warnings(&self) -> Vec<String> {
        let mut warnings = self.held.warnings();
        if self.met_large.load(Relaxed) {
            let text = "pages of 2 MiB or 1 GiB were found and left alone: accesses to them were not seen";
            warnings.push(text.to_owned());
        }
        warnings
    }
}

/// The first address after the area around `page` that an entry of this level covers; `None` at the end of the address
/// space.
fn after(page: Va, level: u8) -> Option<Va> {
    let size = PAGE_SIZE << (9 * u32::from(level.saturating_sub(1)));
    (page.0 & !(size - 1)).checked_add(size).map(Va)
}

/// Identifies an address space. With KPTI, the kernel and user tables of one Linux process differ in bit 12, which is
/// ignored.
const fn root(cr3: Cr3) -> u64 {
    cr3.root().0 & !0x1000
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};
    use vector14_hook::Access;
    use vector14_hook::mock::{MockGuest, write_fault};

    fn fence(ranges: Value, space: Space) -> Result<Fence, OptionsError> {
        Fence::new(serde_json::from_value(ranges).unwrap(), space, Right::User)
    }

    #[test]
    fn open_pages_of_its_ranges_are_closed_with_one_flush() {
        let fence = fence(
            json!([
                {"start": 0x1000, "end": 0x3000},
                {"start": "0xffff_ffff_ffff_f000", "end": "0x10000000000000000"},
            ]),
            Space::Any,
        )
        .unwrap();
        let mut guest = MockGuest::new(0);
        for page in [0x1000, 0x3000, 0xffff_ffff_ffff_f000] {
            guest.load(Va(page), &[1], Access::all());
        }
        fence.close(&write_fault(0), &mut guest).unwrap();
        fence.close(&write_fault(0), &mut guest).unwrap();
        let open = |page: u64| guest.translate(Va(page)).unwrap().access.contains(Access::USER);
        assert_eq!([0x1000, 0x3000, 0xffff_ffff_ffff_f000].map(open), [false, true, false]);
        assert_eq!(guest.flushes(), 1);
        assert_eq!([0x1fff, 0x2000, 0x3000, u64::MAX].map(|at| fence.index(Va(at))), [Some(0), Some(1), None, Some(2)]);
        assert_eq!(fence.pages().count(), 3);
    }

    #[test]
    fn the_first_address_space_is_the_one_that_has_a_page() {
        let fence = fence(json!([{"start": 0x1000, "end": 0x2000}]), Space::First).unwrap();
        let mut guest = MockGuest::new(0);
        // The second and the third would count as one.
        let [other, _, mine] = [0; 3].map(|_| guest.new_address_space());
        let empty = Cr3(0x1000);
        guest.use_address_space(mine);
        guest.load(Va(0x1000), &[1], Access::all());
        for cr3 in [empty, mine] {
            guest.use_address_space(cr3);
            fence.close(&Fault { cr3, ..write_fault(0) }, &mut guest).unwrap();
        }
        assert_eq!([empty, other, mine].map(|cr3| fence.concerns(cr3)), [false, false, true]);
    }

    #[test]
    fn ranges_are_of_pages_and_not_too_many() {
        for (ranges, said) in [
            (json!([]), "0 pages"),
            (json!([{"start": 0, "end": "0x1000000"}]), "4096 pages: must be from 1 to 256"),
            (json!([{"start": 1, "end": 0x1000}]), "ranges[0]: start = 0x1"),
        ] {
            let error = fence(ranges, Space::Any).err().unwrap();
            assert_eq!(error.key.as_deref(), Some("ranges"));
            assert!(error.message.contains(said), "{error}");
        }
    }
}
