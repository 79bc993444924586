//! After a hook unmaps or protects a page, the next access faults, on nested paging and on shadow paging.

use std::sync::{Condvar, Mutex};
use std::time::Duration;

use libtest_mimic::Trial;
use vector14_guest_abi::window::HIDDEN;
use vector14_hook::{Access, ErrorCode, Fault, Guest as Handle, Hook, Mapping, PAGE_SIZE, Pa, Result, Va, Verdict};

use crate::harness::{Guest, kvm_test};

const PAGE_COUNT: usize = 40;
const PAGES: u64 = PAGE_COUNT as u64;
const FILL: u8 = 0x5a;

pub fn tests() -> Vec<Trial> {
    vec![
        kvm_test("flush::unmap", unmap),
        kvm_test("flush::unmap_without_a_flush_of_its_own", unmap_lazily),
        kvm_test("flush::protect", protect),
        kvm_test("flush::reaches_other_vcpus", reaches_other_vcpus),
    ]
}

fn hidden(hook: impl Hook + 'static) -> crate::harness::Outcome {
    Guest::new(&format!("scenario=hidden pages={PAGES} fill={FILL:#x}")).hook("test", hook).run().passed()
}

/// Keeps one page mapped, and the contents of the others on the host.
struct OnePage {
    state: Mutex<State>,
    flushes: bool,
}

struct State {
    frame: Option<Pa>,
    mapped: Option<Va>,
    contents: Vec<[u8; 4096]>,
}

impl OnePage {
    fn new(flushes: bool) -> Self {
        let contents = vec![[FILL; 4096]; PAGE_COUNT];
        Self { state: Mutex::new(State { frame: None, mapped: None, contents }), flushes }
    }
}

fn index(page: Va) -> usize {
    usize::try_from((page.0 - HIDDEN.start) / PAGE_SIZE).unwrap()
}

impl Hook for OnePage {
    fn on_fault(&self, fault: &Fault, guest: &mut dyn Handle) -> Result {
        let state = &mut *self.state.lock().unwrap();
        let frame = match state.frame {
            Some(frame) => frame,
            None => *state.frame.insert(guest.allocate_page()?),
        };
        if let Some(old) = state.mapped.take() {
            let Mapping { frame: was, .. } = guest.unmap(old)?;
            assert_eq!(was, frame);
            if self.flushes {
                guest.flush()?;
            }
            guest.read_physical(frame, &mut state.contents[index(old)])?;
        }
        let page = fault.address.page();
        guest.write_physical(frame, &state.contents[index(page)])?;
        guest.map(page, frame, Access::WRITE | Access::USER)?;
        state.mapped = Some(page);
        Ok(Verdict::Resolve)
    }
}

/// The guest reads all pages and then writes all: each page faults exactly twice.
fn unmap() {
    let outcome = hidden(OnePage::new(true));
    assert_eq!(outcome.summary.faults.total, 2 * PAGES, "{outcome}");
}

/// With one vCPU a hook need not flush: the VM does, after the hook returns.
fn unmap_lazily() {
    let outcome = hidden(OnePage::new(false));
    assert_eq!(outcome.summary.faults.total, 2 * PAGES, "{outcome}");
}

/// Maps writable pages, and makes them read-only before the guest writes to them.
#[derive(Default)]
struct TakesBack(Mutex<Vec<Va>>);

impl Hook for TakesBack {
    fn on_fault(&self, fault: &Fault, guest: &mut dyn Handle) -> Result {
        let page = fault.address.page();
        if fault.error_code.contains(ErrorCode::PRESENT) {
            let before = guest.protect(page, Access::WRITE | Access::USER)?;
            assert_eq!(before.access, Access::USER);
            return Ok(Verdict::Resolve);
        }
        let mut mapped = self.0.lock().unwrap();
        let frame = guest.allocate_page()?;
        guest.write_physical(frame, &[FILL; 4096])?;
        guest.map(page, frame, Access::WRITE | Access::USER)?;
        mapped.push(page);
        if mapped.len() as u64 == PAGES {
            // All but the last have been used by now, so the vCPU has translations that allow writes.
            for page in mapped.iter() {
                guest.protect(*page, Access::USER)?;
            }
        }
        Ok(Verdict::Resolve)
    }
}

fn protect() {
    let outcome = hidden(TakesBack::default());
    let faults = outcome.summary.faults;
    assert_eq!((faults.total, faults.present, faults.write), (2 * PAGES, PAGES, PAGES), "{outcome}");
}

const ROUNDS: u64 = 200;
/// Contents of a frame that has been unmapped.
const TAKEN: [u8; 8] = [0xff; 8];

/// At each fault of vCPU 0, maps another frame at the first page. vCPU 1 runs meanwhile.
#[derive(Default)]
struct Swap {
    state: Mutex<Swapping>,
    mapped: Condvar,
}

#[derive(Default)]
struct Swapping {
    frames: Vec<Pa>,
    round: u64,
    is_mapped: bool,
}

impl Swapping {
    fn frame(&self) -> Pa {
        self.frames[usize::from(!self.round.is_multiple_of(2))]
    }
}

impl Hook for Swap {
    fn on_fault(&self, fault: &Fault, guest: &mut dyn Handle) -> Result {
        let (mut state, first) = (self.state.lock().unwrap(), Va(HIDDEN.start));
        if fault.address.page() == first {
            if state.frames.is_empty() {
                state.frames = vec![guest.allocate_page()?, guest.allocate_page()?];
            }
            guest.map(first, state.frame(), Access::USER)?;
            state.is_mapped = true;
            self.mapped.notify_all();
            return Ok(Verdict::Resolve);
        }
        let old = guest.unmap(first)?.frame;
        assert_eq!(old, state.frame());
        guest.flush()?;
        // From here on nobody reads the old frame.
        guest.write_physical(old, &TAKEN)?;
        (state.round, state.is_mapped) = (state.round + 1, false);
        guest.write_physical(state.frame(), &state.round.to_le_bytes())?;
        let missed = self.mapped.wait_timeout_while(state, Duration::from_secs(5), |state| !state.is_mapped).unwrap().1;
        assert!(!missed.timed_out(), "vCPU 1 still reads the page without a fault");
        Ok(Verdict::Skip)
    }
}

fn reaches_other_vcpus() {
    let guest = Guest::new(&format!("scenario=shootdown rounds={ROUNDS}")).vcpus(2);
    let outcome = guest.hook("swap", Swap::default()).run().passed();
    assert_eq!(outcome.summary.verdicts.skip, ROUNDS, "{outcome}");
    assert_eq!(outcome.summary.verdicts.resolve, ROUNDS + 1, "{outcome}");
}
