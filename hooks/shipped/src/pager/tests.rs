//! Tests of the pager with a mock guest, and a store that fails on demand.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::{io, thread};

use serde_json::{Value, json};
use vector14_hook::mock::{Method, MockGuest, When, options, write_fault};
use vector14_hook::{EntryFlags, ErrorCode, Fault, Guest, GuestError, Hook, PAGE_SIZE, Pa, Step, Va, Verdict};

use super::options::Settings;
use super::store::{Contents, Store};
use super::{Pager, TYPE};

const START: u64 = 0x40_0000;
/// The range of most tests: four times the smallest budget of pages.
const PAGES: u64 = 256;
const BUDGET: u64 = 64;
const SYNC_AT: u64 = 0x80_0000;

/// A store in memory, with failures on demand. The first word of each page is its number plus 1000. Clones share the
/// pages.
#[derive(Clone)]
struct FakeStore(Arc<Fake>);

struct Fake {
    pages: Mutex<Vec<Contents>>,
    is_taken: AtomicBool,
    read_fails: AtomicBool,
    write_fails: AtomicBool,
    sync_fails: AtomicBool,
    reads: AtomicU64,
    syncs: AtomicU64,
}

impl FakeStore {
    fn new() -> Self {
        let pages = (0..PAGES).map(|page| {
            let mut contents = [0; 4096];
            contents[..8].copy_from_slice(&(page + 1000).to_le_bytes());
            contents
        });
        Self(Arc::new(Fake {
            pages: Mutex::new(pages.collect()),
            is_taken: AtomicBool::new(false),
            read_fails: AtomicBool::new(false),
            write_fails: AtomicBool::new(false),
            sync_fails: AtomicBool::new(false),
            reads: AtomicU64::new(0),
            syncs: AtomicU64::new(0),
        }))
    }

    fn word(&self, page: u64) -> u64 {
        let pages = self.0.pages.lock().unwrap();
        u64::from_le_bytes(pages[usize::try_from(page).unwrap()][..8].try_into().unwrap())
    }
}

fn fail_if(fails: &AtomicBool) -> io::Result<()> {
    if fails.load(SeqCst) { Err(io::Error::from(io::ErrorKind::StorageFull)) } else { Ok(()) }
}

impl Store for FakeStore {
    fn acquire(&self) -> io::Result<()> {
        fail_if(&self.0.is_taken)
    }

    fn read(&self, page: u64, contents: &mut Contents) -> io::Result<()> {
        fail_if(&self.0.read_fails)?;
        self.0.reads.fetch_add(1, SeqCst);
        // Give other vCPUs a chance to request the same page.
        thread::yield_now();
        contents.copy_from_slice(&self.0.pages.lock().unwrap()[usize::try_from(page).unwrap()]);
        Ok(())
    }

    fn write(&self, page: u64, contents: &Contents) -> io::Result<()> {
        fail_if(&self.0.write_fails)?;
        self.0.pages.lock().unwrap()[usize::try_from(page).unwrap()].copy_from_slice(contents);
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        self.0.syncs.fetch_add(1, SeqCst);
        fail_if(&self.0.sync_fails)
    }

    fn name(&self) -> String {
        "fake".to_owned()
    }
}

fn pager(store: &FakeStore, more: Value) -> Pager {
    let mut all = json!({
        "start": START, "end": START + PAGES * PAGE_SIZE, "resident": "256K", "sync_at": SYNC_AT, "tables": true
    });
    all.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    Pager::of(&Settings::parse(&options(all)).unwrap(), Box::new(store.clone()))
}

fn address(page: u64) -> Va {
    Va(START + page * PAGE_SIZE)
}

fn fault(page: u64) -> Fault {
    write_fault(address(page).0 + 0x123)
}

fn touch(pager: &Pager, page: u64, guest: &mut MockGuest) -> Verdict {
    pager.on_fault(&fault(page), guest).unwrap()
}

fn sync(pager: &Pager, guest: &mut MockGuest) -> Verdict {
    pager.on_fault(&write_fault(SYNC_AT + 8), guest).unwrap()
}

fn word(page: u64, guest: &MockGuest) -> Result<u64, GuestError> {
    let mut word = [0; 8];
    guest.read(address(page), &mut word).map(|()| u64::from_le_bytes(word))
}

/// Address and value of the entry that maps `page`.
fn entry(page: u64, guest: &MockGuest) -> (Pa, u64) {
    let last = guest.walk(address(page)).unwrap().entries().last().copied().unwrap();
    assert_eq!(last.level, 1);
    (last.slot, last.entry)
}

/// Sets bits of the entry that maps `page`, as the CPU does.
fn mark(page: u64, bits: EntryFlags, guest: &mut MockGuest) {
    let (slot, entry) = entry(page, guest);
    assert!(guest.compare_exchange(slot, entry, entry | bits.bits()).unwrap());
}

/// Writes the first word of a page as the guest does, and sets A and D in its entry.
fn write(page: u64, value: u64, guest: &mut MockGuest) {
    guest.write(address(page), &value.to_le_bytes()).unwrap();
    mark(page, EntryFlags::ACCESSED | EntryFlags::DIRTY, guest);
}

fn warnings(pager: &Pager, guest: &mut MockGuest) -> Vec<String> {
    pager.on_end(guest).warnings
}

#[test]
fn a_page_is_read_at_its_first_touch() {
    let (store, mut guest) = (FakeStore::new(), MockGuest::new(BUDGET));
    let pager = pager(&store, json!({}));
    for page in [0, 5, PAGES - 1] {
        assert_eq!(touch(&pager, page, &mut guest), Verdict::Resolve);
        assert_eq!(word(page, &guest), Ok(page + 1000));
    }
    assert_eq!(store.0.reads.load(SeqCst), 3);
}

#[test]
fn what_is_outside_or_lacks_a_right_is_the_guests() {
    let (store, mut guest) = (FakeStore::new(), MockGuest::new(BUDGET));
    let pager = pager(&store, json!({}));
    let mut protection = fault(0);
    protection.error_code |= ErrorCode::PRESENT;
    for fault in [write_fault(START - 1), write_fault(START + PAGES * PAGE_SIZE), protection] {
        assert_eq!(pager.on_fault(&fault, &mut guest).unwrap(), Verdict::Pass);
    }
    assert_eq!(guest.pages_taken(), 0);
}

#[test]
fn pages_leave_in_batches_within_the_budget_and_only_dirty_ones_are_written() {
    let (store, mut guest) = (FakeStore::new(), MockGuest::new(2 * BUDGET));
    let pager = pager(&store, json!({}));
    for page in 0..PAGES {
        touch(&pager, page, &mut guest);
        if page.is_multiple_of(2) {
            write(page, page + 2000, &mut guest);
        } else {
            // This write is not by the CPU, so D stays clear and the write is lost.
            guest.write(address(page), &3000_u64.to_le_bytes()).unwrap();
        }
    }
    assert_eq!(guest.pages_taken() as u64, BUDGET);
    // A batch is a sixteenth of the budget.
    assert_eq!(guest.flushes(), (PAGES - BUDGET) / (BUDGET / 16));
    assert_eq!((store.word(0), store.word(1)), (2000, 1001));
    let report = pager.on_end(&mut guest);
    assert_eq!(report.tables[0].rows[0][2..], ["256", "256", "1.00", "192", "128", "64"].map(str::to_owned));
    assert_eq!((report.warnings, guest.pages_taken()), (vec![], 0));
    assert!((0..PAGES).step_by(2).all(|page| store.word(page) == page + 2000));
}

#[test]
fn a_page_that_is_used_all_the_time_stays() {
    let (store, mut guest) = (FakeStore::new(), MockGuest::new(BUDGET));
    let pager = pager(&store, json!({}));
    for page in 1..PAGES {
        touch(&pager, page, &mut guest);
        mark(page, EntryFlags::ACCESSED, &mut guest);
        if word(0, &guest).is_err() {
            touch(&pager, 0, &mut guest);
        }
        mark(0, EntryFlags::ACCESSED, &mut guest);
    }
    // At the first eviction, the pages in constant use are not known yet.
    assert!(store.0.reads.load(SeqCst) <= PAGES + 1, "{}", store.0.reads.load(SeqCst));
}

#[test]
fn a_sync_writes_everything_back_and_leaves_the_entries_as_they_were() {
    let (store, mut guest) = (FakeStore::new(), MockGuest::new(BUDGET));
    let pager = pager(&store, json!({}));
    // The first fault creates the table; the guest has its own value in the entry of the second.
    touch(&pager, 0, &mut guest);
    let (slot, _) = entry(1, &guest);
    assert!(guest.compare_exchange(slot, 0, 0xabc0).unwrap());
    touch(&pager, 1, &mut guest);
    write(1, 7, &mut guest);
    let flushes = guest.flushes();
    assert_eq!(sync(&pager, &mut guest), Verdict::Skip);
    assert_eq!((entry(0, &guest).1, entry(1, &guest).1), (0, 0xabc0));
    assert_eq!((store.word(1), store.0.syncs.load(SeqCst), guest.flushes() - flushes), (7, 1, 1));
    assert_eq!((touch(&pager, 1, &mut guest), word(1, &guest)), (Verdict::Resolve, Ok(7)));
}

#[test]
fn without_tables_of_its_own_the_guest_gets_the_fault() {
    for (mut guest, tables) in [(MockGuest::new(BUDGET), false), (MockGuest::linux(BUDGET), true)] {
        let pager = pager(&FakeStore::new(), json!({"tables": tables}));
        assert_eq!(touch(&pager, 0, &mut guest), Verdict::Pass);
        let warnings = warnings(&pager, &mut guest);
        assert!(warnings[0].starts_with("1 faults in 0x400000..0x500000 were left to the guest"), "{warnings:?}");
    }
}

#[test]
fn a_page_that_cant_be_read_is_a_fault_of_the_guests_and_can_be_tried_again() {
    let (store, mut guest) = (FakeStore::new(), MockGuest::new(BUDGET));
    let pager = pager(&store, json!({}));
    store.0.read_fails.store(true, SeqCst);
    for _ in 0..BUDGET + 1 {
        assert_eq!(touch(&pager, 4, &mut guest), Verdict::Reinject);
    }
    store.0.read_fails.store(false, SeqCst);
    assert_eq!((touch(&pager, 4, &mut guest), word(4, &guest)), (Verdict::Resolve, Ok(1004)));
    let warnings = warnings(&pager, &mut guest);
    assert!(
        warnings[0].contains("65 times a page could not be read") && warnings[0].contains("0x404000"),
        "{warnings:?}"
    );
}

#[test]
fn a_store_that_another_pager_has_is_not_read() {
    let (store, mut guest) = (FakeStore::new(), MockGuest::new(BUDGET));
    let pager = pager(&store, json!({}));
    store.0.is_taken.store(true, SeqCst);
    assert_eq!(touch(&pager, 4, &mut guest), Verdict::Reinject);
    assert_eq!((store.0.reads.load(SeqCst), warnings(&pager, &mut guest).len()), (0, 1));
}

#[test]
fn a_page_that_cant_be_written_back_stays_and_clean_ones_leave_in_its_place() {
    let (store, mut guest) = (FakeStore::new(), MockGuest::new(BUDGET));
    let pager = pager(&store, json!({}));
    touch(&pager, 0, &mut guest);
    write(0, 7, &mut guest);
    store.0.write_fails.store(true, SeqCst);
    for page in 1..PAGES {
        assert_eq!(touch(&pager, page, &mut guest), Verdict::Resolve);
    }
    assert_eq!(store.word(0), 1000);
    let reads = store.0.reads.load(SeqCst);
    assert_eq!((touch(&pager, 0, &mut guest), word(0, &guest)), (Verdict::Resolve, Ok(7)));
    assert_eq!(store.0.reads.load(SeqCst), reads, "it has been in memory all the time");
    store.0.write_fails.store(false, SeqCst);
    assert_eq!((sync(&pager, &mut guest), store.word(0)), (Verdict::Skip, 7));
    let warnings = warnings(&pager, &mut guest);
    assert!(warnings[0].contains("could not be written back, and stayed in memory"), "{warnings:?}");
}

#[test]
fn with_nothing_but_pages_that_cant_be_written_back_the_guest_gets_the_fault() {
    let (store, mut guest) = (FakeStore::new(), MockGuest::new(BUDGET));
    let pager = pager(&store, json!({}));
    for page in 0..BUDGET {
        touch(&pager, page, &mut guest);
        write(page, page + 2000, &mut guest);
    }
    store.0.write_fails.store(true, SeqCst);
    assert_eq!(touch(&pager, BUDGET, &mut guest), Verdict::Reinject);
    assert_eq!(sync(&pager, &mut guest), Verdict::Reinject);
    for page in 0..BUDGET {
        assert_eq!((touch(&pager, page, &mut guest), word(page, &guest)), (Verdict::Resolve, Ok(page + 2000)));
    }
    let warnings = warnings(&pager, &mut guest);
    let lost = warnings.last().unwrap();
    assert!(lost.contains("what it lacks is lost: 64 pages can't be written back"), "{warnings:?}");
}

#[test]
fn a_sync_that_the_file_does_not_keep_is_a_fault_of_the_guests() {
    let (store, mut guest) = (FakeStore::new(), MockGuest::new(BUDGET));
    let pager = pager(&store, json!({}));
    store.0.sync_fails.store(true, SeqCst);
    assert_eq!(sync(&pager, &mut guest), Verdict::Reinject);
    store.0.sync_fails.store(false, SeqCst);
    assert_eq!(sync(&pager, &mut guest), Verdict::Skip);
}

#[test]
fn a_pool_that_is_smaller_than_the_budget_is_the_budget() {
    let (store, mut guest) = (FakeStore::new(), MockGuest::new(10));
    let pager = pager(&store, json!({}));
    for page in 0..PAGES {
        assert_eq!((touch(&pager, page, &mut guest), word(page, &guest)), (Verdict::Resolve, Ok(page + 1000)));
    }
    let warnings = warnings(&pager, &mut guest);
    assert!(warnings[0].contains("10 pages"), "{warnings:?}");
}

#[test]
fn without_any_page_the_hook_fails() {
    let (store, mut guest) = (FakeStore::new(), MockGuest::new(0));
    let error = pager(&store, json!({})).on_fault(&fault(0), &mut guest).unwrap_err().to_string();
    assert!(error.contains("0x400000") && error.contains("used up"), "{error}");
}

#[test]
fn a_mapping_that_fails_leaves_the_page_in_memory() {
    let (store, mut guest) = (FakeStore::new(), MockGuest::new(BUDGET));
    let pager = pager(&store, json!({}));
    guest.fail(Method::Map, When::Always, GuestError::PoolExhausted { pages: 3 });
    assert!(pager.on_fault(&fault(0), &mut guest).is_err());
    guest.fail(Method::Map, When::Always, GuestError::AlreadyMapped(address(0)));
    assert_eq!(touch(&pager, 0, &mut guest), Verdict::Resolve);
    guest.succeed(Method::Map);
    assert_eq!((touch(&pager, 0, &mut guest), word(0, &guest)), (Verdict::Resolve, Ok(1000)));
    assert_eq!(store.0.reads.load(SeqCst), 1);
}

#[test]
fn address_spaces_that_share_the_range_see_the_same_page() {
    let (store, mut guest) = (FakeStore::new(), MockGuest::new(BUDGET));
    let pager = pager(&store, json!({}));
    let first = guest.address_space();
    touch(&pager, 2, &mut guest);
    write(2, 7, &mut guest);
    guest.use_address_space(vector14_hook::Cr3(0x8000));
    assert_eq!((touch(&pager, 2, &mut guest), word(2, &guest)), (Verdict::Resolve, Ok(7)));
    guest.use_address_space(first);
    assert_eq!(word(2, &guest), Err(GuestError::NotMapped(address(2))));
    assert_eq!((touch(&pager, 2, &mut guest), word(2, &guest)), (Verdict::Resolve, Ok(7)));
    assert_eq!((sync(&pager, &mut guest), store.word(2)), (Verdict::Skip, 7));
    assert_eq!(store.0.reads.load(SeqCst), 1);
}

#[test]
fn an_entry_that_the_guest_has_changed_is_the_guests() {
    let (store, mut guest) = (FakeStore::new(), MockGuest::new(BUDGET));
    let pager = pager(&store, json!({}));
    for page in [0, 1] {
        touch(&pager, page, &mut guest);
        guest.write(address(page), &7_u64.to_le_bytes()).unwrap();
    }
    let ((absent, old), (other, _)) = (entry(0, &guest), entry(1, &guest));
    assert!(guest.compare_exchange(absent, old, 0).unwrap());
    let (_, theirs) = (guest.unmap(address(1)).unwrap(), 0x5003);
    assert!(guest.compare_exchange(other, 0, theirs).unwrap());
    // Writes through the lost entry are not known, so the page counts as dirty.
    assert_eq!((touch(&pager, 0, &mut guest), word(0, &guest)), (Verdict::Resolve, Ok(7)));
    assert_eq!(sync(&pager, &mut guest), Verdict::Skip);
    assert_eq!((store.word(0), store.word(1), entry(1, &guest).1), (7, 7, theirs));
}

#[test]
fn a_readonly_range_is_mapped_without_the_right_and_never_written() {
    let (store, mut guest) = (FakeStore::new(), MockGuest::new(BUDGET));
    let pager = pager(&store, json!({"readonly": true, "execute": true}));
    touch(&pager, 0, &mut guest);
    let walk = guest.walk(address(0)).unwrap();
    let Step::Leaf(leaf) = walk.end() else { panic!("{walk:?}") };
    assert_eq!(leaf.access, vector14_hook::Access::USER | vector14_hook::Access::EXECUTE);
    write(0, 7, &mut guest);
    assert_eq!((sync(&pager, &mut guest), store.word(0), store.0.syncs.load(SeqCst)), (Verdict::Skip, 1000, 0));
}

/// Threads that touch shared and separate pages, while these are evicted and reloaded.
#[test]
fn vcpus_that_fault_together_get_what_the_store_has() {
    let (store, guest) = (FakeStore::new(), MockGuest::new(BUDGET));
    let pager = pager(&store, json!({}));
    thread::scope(|scope| {
        for vcpu in 0..4 {
            let (mut guest, pager) = (guest.clone(), &pager);
            scope.spawn(move || {
                for step in 0..4 * PAGES {
                    let page = if vcpu < 2 { step % PAGES } else { (step * 37 + u64::from(vcpu)) % PAGES };
                    let fault = Fault { vcpu, ..fault(page) };
                    assert_eq!(pager.on_fault(&fault, &mut guest).unwrap(), Verdict::Resolve);
                    // The page may have been evicted again by now.
                    if let Ok(word) = word(page, &guest) {
                        assert!(word >= 1000, "{word}");
                    }
                    if step % 200 == 0 {
                        assert_eq!(sync(pager, &mut guest), Verdict::Skip);
                    }
                }
            });
        }
    });
    assert!(guest.pages_taken() as u64 <= BUDGET);
    assert_eq!((warnings(&pager, &mut guest.clone()), guest.pages_taken()), (vec![], 0));
}

#[test]
fn two_that_want_the_same_page_read_it_once() {
    let (store, guest) = (FakeStore::new(), MockGuest::new(BUDGET));
    let pager = pager(&store, json!({}));
    thread::scope(|scope| {
        for vcpu in 0..4 {
            let (mut guest, pager) = (guest.clone(), &pager);
            scope.spawn(move || {
                (0..BUDGET).for_each(|page| {
                    let fault = Fault { vcpu, ..fault(page) };
                    assert_eq!(pager.on_fault(&fault, &mut guest).unwrap(), Verdict::Resolve);
                });
            });
        }
    });
    assert_eq!(store.0.reads.load(SeqCst), BUDGET);
}

#[test]
fn a_file_of_a_config_is_opened_and_written() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("pages");
    std::fs::write(&path, [7; 4096]).unwrap();
    let all = json!({"start": START, "end": START + PAGE_SIZE, "file": path, "tables": true, "sync_at": SYNC_AT});
    (TYPE.check)(&options(all.clone())).unwrap();
    let (hook, mut guest) = ((TYPE.create)(&options(all)).unwrap(), MockGuest::new(2));
    hook.on_fault(&fault(0), &mut guest).unwrap();
    write(0, 9, &mut guest);
    hook.on_end(&mut guest);
    assert_eq!(std::fs::read(&path).unwrap()[..8], 9_u64.to_le_bytes());
}
