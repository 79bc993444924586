//! The pages in memory, the claims on them, and the order of eviction.
//!
//! There is one lock. It is held only to look at or change a table, never while a file is read or translations are
//! flushed. A vCPU claims the page that it works on, and others that want the page wait.

use std::collections::{HashMap, VecDeque};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use vector14_hook::{Guest, Pa};

use super::place::Resident;

/// The pages that are in memory.
pub(super) struct ResidentSet {
    state: Mutex<SetState>,
    /// Signalled when a claim is released or the set is reopened.
    changed: Condvar,
}

struct SetState {
    pages: HashMap<u64, PageState>,
    /// Resident pages that are not claimed, in the order of eviction.
    queue: VecDeque<u64>,
    /// Number of pages at the end of the queue that were added since the last eviction.
    young: usize,
    /// Frames that hold no page.
    free: Vec<Pa>,
    /// Total number of frames, in use or free.
    frames: u64,
    /// The maximum number of frames.
    budget: u64,
    /// The most frames that were in use at a time.
    peak: u64,
    claims: usize,
    /// Whether the set is closed: only its closer may claim pages.
    is_closed: bool,
}

/// A page that is in memory or claimed.
enum PageState {
    Claimed,
    Resident(Resident),
}

/// The source of the next frame.
pub(super) enum NextFrame<'a> {
    /// A free frame.
    Free(Pa),
    /// The budget allows one more frame.
    New,
    /// The pages to evict first.
    Evict(Vec<Claim<'a>>),
}

impl ResidentSet {
    /// A set of at most `budget` frames.
    pub(super) fn new(budget: u64) -> Self {
        let room = usize::try_from(budget).unwrap_or(usize::MAX);
        let state = SetState {
            pages: HashMap::with_capacity(room),
            queue: VecDeque::with_capacity(room),
            young: 0,
            free: Vec::with_capacity(room),
            frames: 0,
            budget,
            peak: 0,
            claims: 0,
            is_closed: false,
        };
        Self { state: Mutex::new(state), changed: Condvar::new() }
    }

    /// Claims a page, whether or not it is in memory. Waits while another vCPU has claimed it.
    pub(super) fn claim(&self, page: u64) -> Claim<'_> {
        let mut state = self.lock();
        while state.is_closed || matches!(state.pages.get(&page), Some(PageState::Claimed)) {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        let claim = self.take(&mut state, page);
        if claim.resident.is_some() {
            state.queue.retain(|queued| *queued != page);
        }
        claim
    }

    /// Finds the source of a frame for one more page. Waits while all pages are claimed, which can't deadlock: their
    /// claimers need no frame or already have one.
    pub(super) fn next_frame(&self, guest: &mut dyn Guest) -> NextFrame<'_> {
        let mut state = self.lock();
        loop {
            if let Some(frame) = state.free.pop() {
                state.note_peak();
                return NextFrame::Free(frame);
            }
            if state.frames < state.budget {
                state.frames += 1;
                state.note_peak();
                return NextFrame::New;
            }
            let victims = self.choose(&mut state, guest);
            if !victims.is_empty() {
                return NextFrame::Evict(victims);
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Second chance: a page that was used since it was last checked goes to the end of the queue instead, for at most
    /// one round. So pages that were read once are evicted before pages that are read all the time, which the order of
    /// loading alone can't tell apart. The access that loaded a page does not count; otherwise every page would count
    /// as used.
    fn choose(&self, state: &mut SetState, guest: &mut dyn Guest) -> Vec<Claim<'_>> {
        for page in state.queue.iter().rev().take(state.young) {
            if let Some(PageState::Resident(resident)) = state.pages.get(page) {
                resident.take_accessed(guest);
            }
        }
        state.young = 0;
        let (mut victims, mut chances) = (Vec::new(), state.queue.len());
        while (victims.len() as u64) < batch(state.budget) {
            let Some(page) = state.queue.pop_front() else { break };
            let resident = match state.pages.get(&page) {
                Some(PageState::Resident(resident)) => *resident,
                Some(PageState::Claimed) | None => continue,
            };
            if chances > 0 {
                chances -= 1;
                if resident.take_accessed(guest) {
                    state.queue.push_back(page);
                    continue;
                }
            }
            victims.push(self.take(state, page));
        }
        victims
    }

    /// Returns a frame that no longer holds a page.
    pub(super) fn free(&self, frame: Pa) {
        self.lock().free.push(frame);
    }

    /// Called if the frame that [`NextFrame::New`] allowed can't be allocated. Limits the budget to the current number
    /// of frames, and returns that number.
    pub(super) fn forgo_frame(&self) -> u64 {
        let mut state = self.lock();
        state.frames -= 1;
        state.budget = state.frames;
        state.budget
    }

    /// Waits until no page is claimed, and closes the set. Returns `None` if that takes longer than `patience`.
    pub(super) fn close(&self, patience: Duration) -> Option<Closed<'_>> {
        let mut state = self.lock();
        while state.is_closed {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.is_closed = true;
        let waited = self.changed.wait_timeout_while(state, patience, |state| state.claims > 0);
        let (state, late) = waited.unwrap_or_else(PoisonError::into_inner);
        drop(state);
        let closed = Closed { set: self };
        (!late.timed_out()).then_some(closed)
    }

    /// Removes the free frames from the set.
    pub(super) fn take_free(&self) -> Vec<Pa> {
        let mut state = self.lock();
        state.frames -= state.free.len() as u64;
        std::mem::take(&mut state.free)
    }

    /// Number of resident pages that are not claimed.
    pub(super) fn resident(&self) -> usize {
        self.lock().queue.len()
    }

    /// The most frames that held a page at a time.
    pub(super) fn peak(&self) -> u64 {
        self.lock().peak
    }

    fn take(&self, state: &mut SetState, page: u64) -> Claim<'_> {
        state.claims += 1;
        let resident = match state.pages.insert(page, PageState::Claimed) {
            Some(PageState::Resident(resident)) => Some(resident),
            Some(PageState::Claimed) | None => None,
        };
        Claim { set: self, page, resident }
    }

    fn lock(&self) -> MutexGuard<'_, SetState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl SetState {
    fn in_use(&self) -> u64 {
        self.frames - self.free.len() as u64
    }

    fn note_peak(&mut self) {
        self.peak = self.peak.max(self.in_use());
    }
}

/// Number of pages evicted per flush. A flush costs as much as many faults, and makes KVM rebuild its mappings of every
/// guest page. With a sixteenth of the budget, at most that much is empty, and sixteen flushes replace the whole set.
fn batch(budget: u64) -> u64 {
    (budget / 16).clamp(1, 1024)
}

/// A claim on a page. When it is dropped, the page in it becomes resident.
pub(super) struct Claim<'a> {
    set: &'a ResidentSet,
    /// The number of the page.
    pub(super) page: u64,
    /// The page in memory; `None` if it is not in memory.
    pub(super) resident: Option<Resident>,
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        let mut state = self.set.lock();
        match self.resident {
            Some(resident) => {
                state.pages.insert(self.page, PageState::Resident(resident));
                state.queue.push_back(self.page);
                state.young += 1;
            }
            None => {
                state.pages.remove(&self.page);
            }
        }
        state.claims -= 1;
        self.set.changed.notify_all();
    }
}

/// A closed set: no one else can claim a page until this is dropped.
pub(super) struct Closed<'a> {
    set: &'a ResidentSet,
}

impl<'a> Closed<'a> {
    /// Claims all pages that are in memory.
    pub(super) fn claim_all(&self) -> Vec<Claim<'a>> {
        let mut state = self.set.lock();
        let pages = std::mem::take(&mut state.queue);
        pages.into_iter().map(|page| self.set.take(&mut state, page)).collect()
    }
}

impl Drop for Closed<'_> {
    fn drop(&mut self) {
        self.set.lock().is_closed = false;
        self.set.changed.notify_all();
    }
}
