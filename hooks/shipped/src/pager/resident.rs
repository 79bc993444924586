//! Which pages are in memory, who is at work on which, and whose turn it is to leave.
//!
//! One lock, held for a look at a table and never while a file is read or translations are flushed: a page that somebody is at
//! work on is claimed, and whoever wants it waits.

use std::collections::{HashMap, VecDeque};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use vector14_hook::{Guest, Pa};

use super::place::Resident;

/// The pages that are in memory.
pub(super) struct ResidentSet {
    state: Mutex<State>,
    /// A claim was given up, or the set was opened.
    changed: Condvar,
}

struct State {
    pages: HashMap<u64, Entry>,
    /// Pages that are resident and not claimed, in the order of their turns to leave.
    queue: VecDeque<u64>,
    /// So many pages at the end of the queue have come there since the last ones left.
    young: usize,
    /// Frames that hold no page.
    free: Vec<Pa>,
    /// Frames in all, in use or free.
    frames: u64,
    /// The most that there may be.
    budget: u64,
    /// The most that were in use at a time.
    peak: u64,
    claims: usize,
    /// Whether nobody but who has closed the set may claim a page.
    is_closed: bool,
}

enum Entry {
    Claimed,
    Resident(Resident),
}

/// Where a frame is to come from.
pub(super) enum NextFrame<'a> {
    /// Here it is.
    Free(Pa),
    /// There may be one more.
    New,
    /// These pages are to leave.
    Evict(Vec<Claim<'a>>),
}

impl ResidentSet {
    /// A set of `budget` frames at the most.
    pub(super) fn new(budget: u64) -> Self {
        let room = usize::try_from(budget).unwrap_or(usize::MAX);
        let state = State {
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

    /// Claims a page, whether it is in memory or not. Waits for whoever else is at work on it.
    pub(super) fn claim(&self, page: u64) -> Claim<'_> {
        let mut state = self.lock();
        while state.is_closed || matches!(state.pages.get(&page), Some(Entry::Claimed)) {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        let claim = self.take(&mut state, page);
        if claim.resident.is_some() {
            state.queue.retain(|queued| *queued != page);
        }
        claim
    }

    /// Where a frame for one more page comes from. Waits where all pages are claimed: those who have them need no frames, or have
    /// theirs.
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

    /// Second chance: a page that was used since it was looked at last goes to the end of the queue instead, one round at the
    /// most. What was read once leaves before what is read all the time; the order of loading alone does not know the
    /// difference. The access that a page was loaded for does not count, or everything would have been used.
    fn choose(&self, state: &mut State, guest: &mut dyn Guest) -> Vec<Claim<'_>> {
        for page in state.queue.iter().rev().take(state.young) {
            if let Some(Entry::Resident(resident)) = state.pages.get(page) {
                resident.take_accessed(guest);
            }
        }
        state.young = 0;
        let (mut victims, mut chances) = (Vec::new(), state.queue.len());
        while (victims.len() as u64) < batch(state.budget) {
            let Some(page) = state.queue.pop_front() else { break };
            let resident = match state.pages.get(&page) {
                Some(Entry::Resident(resident)) => *resident,
                Some(Entry::Claimed) | None => continue,
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

    /// A frame holds no page any more.
    pub(super) fn free(&self, frame: Pa) {
        self.lock().free.push(frame);
    }

    /// The frame that [`NextFrame::New`] allowed can't be had: from now on there are no more than there are. Returns how many.
    pub(super) fn forgo_frame(&self) -> u64 {
        let mut state = self.lock();
        state.frames -= 1;
        state.budget = state.frames;
        state.budget
    }

    /// Waits until nobody is at work on a page, and keeps it that way. `None`: somebody takes longer than `patience`.
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

    /// Takes the frames that hold no page out of the set.
    pub(super) fn take_free(&self) -> Vec<Pa> {
        let mut state = self.lock();
        state.frames -= state.free.len() as u64;
        std::mem::take(&mut state.free)
    }

    /// How many pages are in memory and nobody is at work on.
    pub(super) fn resident(&self) -> usize {
        self.lock().queue.len()
    }

    /// The most frames that held a page at a time.
    pub(super) fn peak(&self) -> u64 {
        self.lock().peak
    }

    fn take(&self, state: &mut State, page: u64) -> Claim<'_> {
        state.claims += 1;
        let resident = match state.pages.insert(page, Entry::Claimed) {
            Some(Entry::Resident(resident)) => Some(resident),
            Some(Entry::Claimed) | None => None,
        };
        Claim { set: self, page, resident }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn in_use(&self) -> u64 {
        self.frames - self.free.len() as u64
    }

    fn note_peak(&mut self) {
        self.peak = self.peak.max(self.in_use());
    }
}

/// So many pages leave together, for one flush: a flush costs as much as many faults, and makes KVM find its way to every
/// page of the guest anew. With a sixteenth the set is never emptier than that, and sixteen flushes turn it over.
fn batch(budget: u64) -> u64 {
    (budget / 16).clamp(1, 1024)
}

/// A page that nobody else is at work on. When it is dropped, what it holds is resident.
pub(super) struct Claim<'a> {
    set: &'a ResidentSet,
    /// Its number.
    pub(super) page: u64,
    /// `None`: it is not in memory.
    pub(super) resident: Option<Resident>,
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        let mut state = self.set.lock();
        match self.resident {
            Some(resident) => {
                state.pages.insert(self.page, Entry::Resident(resident));
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

/// A set in which nobody else claims a page, until this is dropped.
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
