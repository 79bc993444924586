//! Hooks are removed from the chain while the guest uses their pages.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use libtest_mimic::Trial;
use serde_json::json;
use vector14::chain::NamedHook;
use vector14::summary::Stop;
use vector14_guest_abi::paged::{RANGE, SYNC_AT};
use vector14_guest_abi::window::{HIDDEN, PAGE_SIZE};
use vector14_hook::{Access, Fault, Guest as Handle, Hook, Options, Pa, Report, Result, Va, Verdict};
use vector14_hooks::HOOKS;

use crate::harness::paged::words;
use crate::harness::{Guest, kvm_test};

pub fn tests() -> Vec<Trial> {
    vec![
        kvm_test("removal::pages_are_unmapped_and_given_back", withdrawn),
        kvm_test("removal::a_pager_leaves_its_file_up_to_date", pager_removed),
        kvm_test("removal::pagers_that_take_turns_lose_no_write", pagers_replaced),
    ]
}

fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let held = (0..50_000).any(|_| {
        std::thread::sleep(Duration::from_micros(200));
        holds()
    });
    assert!(held, "{what}: timed out");
}

/// Maps the first page to a frame that holds a number. Makes all other faults wait.
struct First(Arc<Frames>);

/// Takes over once the first hook is gone: maps the first page to a frame that holds another number, and skips all
/// other faults.
struct Second(Arc<Frames>);

#[derive(Default)]
struct Frames {
    taken: Mutex<Vec<Pa>>,
    first_is_gone: AtomicBool,
}

impl Frames {
    fn map(&self, number: u64, guest: &mut dyn Handle) -> Result {
        let frame = guest.allocate_page()?;
        guest.write_physical(frame, &number.to_le_bytes())?;
        guest.map(Va(HIDDEN.start), frame, Access::USER)?;
        self.taken.lock().unwrap().push(frame);
        Ok(Verdict::Resolve)
    }
}

/// Whether it is a fault on the page that vCPU 1 reads.
fn is_read(fault: &Fault) -> bool {
    fault.address.page() == Va(HIDDEN.start)
}

impl Hook for First {
    fn on_fault(&self, fault: &Fault, guest: &mut dyn Handle) -> Result {
        if is_read(fault) {
            return self.0.map(0, guest);
        }
        // Slow, so that this is not taken for a loop soon.
        std::thread::sleep(Duration::from_millis(5));
        Ok(Verdict::Resolve)
    }
}

impl Hook for Second {
    fn on_fault(&self, fault: &Fault, guest: &mut dyn Handle) -> Result {
        if !is_read(fault) {
            return Ok(Verdict::Skip);
        }
        wait_until("the end of the first hook", || self.0.first_is_gone.load(SeqCst));
        self.0.map(1, guest)
    }
}

/// vCPU 1 reads the page all the time. When the hook is removed, the page is unmapped and its frame freed. The next
/// read faults, and goes to the next hook.
fn withdrawn() {
    let frames = Arc::new(Frames::default());
    let guest = Guest::new("scenario=shootdown rounds=1").vcpus(2);
    let guest = guest.hook("first", First(Arc::clone(&frames))).hook("second", Second(Arc::clone(&frames)));
    let outcome = guest.run_beside(|vm| {
        // vCPU 0 faults for the first time when vCPU 1 has read the page.
        wait_until("faults of both", || vm.status().faults.total > 1);
        assert_eq!(vm.remove("first"), Ok(0));
        frames.first_is_gone.store(true, SeqCst);
    });
    let outcome = outcome.passed();
    let [first, second] = frames.taken.lock().unwrap()[..] else { panic!("not two frames\n{outcome}") };
    assert_eq!(first, second, "{outcome}");
}

/// A hook that ships. Its own type is private.
struct Shipped(Box<dyn Hook>);

impl Hook for Shipped {
    fn on_fault(&self, fault: &Fault, guest: &mut dyn Handle) -> Result {
        self.0.on_fault(fault, guest)
    }

    fn on_end(&self, guest: &mut dyn Handle) -> Report {
        self.0.on_end(guest)
    }
}

fn pager(file: &Path, pages: u64) -> Shipped {
    let end = RANGE.start + pages * PAGE_SIZE;
    let options = json!({"start": RANGE.start, "end": end, "file": file, "resident": "256K", "sync_at": SYNC_AT});
    let options = Options::new(options.as_object().unwrap().clone(), "");
    let kind = HOOKS.iter().find(|kind| kind.name == "pager").unwrap();
    Shipped((kind.create)(&options).unwrap_or_else(|error| panic!("{error}")))
}

const PAGES: u64 = 128;

fn zeroed_file() -> tempfile::NamedTempFile {
    let file = tempfile::NamedTempFile::new().unwrap();
    file.as_file().set_len(PAGES * PAGE_SIZE).unwrap();
    file
}

/// The guest adds 1 to a word of each page in turn. When the pager is removed, the counts in the file differ by 1 at
/// most.
fn pager_removed() {
    let file = zeroed_file();
    let guest = Guest::new(&format!("scenario=paged kind=count pages={PAGES} rounds=1000000000"));
    let outcome = guest.hook("pager", pager(file.path(), PAGES)).run_beside(|vm| {
        wait_until("pages", || vm.status().faults.total > 4 * PAGES);
        assert_eq!(vm.remove("pager"), Ok(0));
    });
    let outcome = outcome.balanced();
    assert!(matches!(outcome.summary.stop, Stop::Exit { status } if status != 1), "{outcome}");
    assert!(outcome.console.contains("fatal #PF"), "{outcome}");
    assert_eq!(outcome.summary.hooks[0].report.warnings, [""; 0], "{outcome}");
    let contents = std::fs::read(file.path()).unwrap();
    let counts: Vec<u64> = (0..PAGES).filter_map(|page| words(&contents, page).next()).collect();
    assert!(counts[0] > 3, "{counts:?}\n{outcome}");
    assert!(counts.is_sorted_by(|a, b| a >= b) && counts[0] - counts[counts.len() - 1] <= 1, "{counts:?}\n{outcome}");
}

/// Each pager waits until the one before has written back its pages.
fn pagers_replaced() {
    const ROUNDS: u64 = 24;
    const TURNS: usize = 6;
    let file = zeroed_file();
    let guest = Guest::new(&format!("scenario=paged kind=count pages={PAGES} rounds={ROUNDS}")).vcpus(2);
    let outcome = guest.hook("pager", pager(file.path(), PAGES)).run_beside(|vm| {
        for _ in 0..TURNS {
            let seen = vm.status().faults.total;
            wait_until("more faults", || vm.status().faults.total > seen + PAGES);
            assert_eq!(vm.replace("pager", NamedHook::new("", pager(file.path(), PAGES))), Ok(0));
        }
    });
    let outcome = outcome.passed();
    assert_eq!(outcome.summary.verdicts.reinject, 0, "{outcome}");
    assert_eq!(outcome.summary.hooks.len(), TURNS + 1, "{outcome}");
    let contents = std::fs::read(file.path()).unwrap();
    for page in 0..PAGES {
        assert_eq!(words(&contents, page).take(2).collect::<Vec<_>>(), [ROUNDS; 2], "page {page}\n{outcome}");
    }
}
