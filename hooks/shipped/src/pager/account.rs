//! A pager's counts and failures, for its report.

use std::fmt::{self, Display};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};

use vector14_hook::{Counter, Guest, PerVcpu, Report, Table, Va};

use super::resident::ResidentSet;
use super::store::Store;
use crate::address::AddressRange;

/// Counts, and the first failure of each kind as text.
#[derive(Default)]
pub(super) struct Account {
    /// Faults in the range on pages that were not mapped.
    pub(super) faults: PerVcpu<Counter>,
    loaded: AtomicU64,
    evicted: AtomicU64,
    written: AtomicU64,
    left_to_guest: AtomicU64,
    failures: Mutex<Vec<Failure>>,
}

/// An operation of the pager that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Attempt {
    Read,
    Write,
    MakeRoom,
    Sync,
    GrowToBudget,
}

struct Failure {
    attempt: Attempt,
    times: u64,
    first: String,
}

impl Display for Attempt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Read => "a page could not be read, and its fault was left to the guest",
            Self::Write => "a page could not be written back, and stayed in memory",
            Self::MakeRoom => "there was no room for a page, and its fault was left to the guest",
            Self::Sync => "not everything could be written back, and the fault was left to the guest",
            Self::GrowToBudget => "there was not enough memory for `resident`",
        })
    }
}

impl Account {
    pub(super) fn loaded(&self) {
        self.loaded.fetch_add(1, Relaxed);
    }

    pub(super) fn written(&self) {
        self.written.fetch_add(1, Relaxed);
    }

    pub(super) fn evicted(&self, pages: usize) {
        self.evicted.fetch_add(pages as u64, Relaxed);
    }

    /// Counts a fault where the guest has no page tables.
    pub(super) fn left_to_guest(&self) {
        self.left_to_guest.fetch_add(1, Relaxed);
    }

    /// Counts a failure; the first of its kind is logged at once.
    #[cold]
    pub(super) fn note_failure(&self, attempt: Attempt, page: Va, why: &dyn Display, guest: &dyn Guest) {
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(failure) = failures.iter_mut().find(|failure| failure.attempt == attempt) {
            failure.times += 1;
            return;
        }
        let first = format!("page {page}: {why}");
        guest.log(&format!("{attempt}: {first}"));
        failures.push(Failure { attempt, times: 1, first });
    }

    /// The report. `left` says why the file is not up to date at the end, if it is not.
    pub(super) fn report(
        &self,
        range: AddressRange,
        store: &dyn Store,
        set: &ResidentSet,
        left: Option<&impl Display>,
    ) -> Report {
        let [loaded, evicted, written] = [&self.loaded, &self.evicted, &self.written].map(|count| count.load(Relaxed));
        let faults: u64 = self.faults.iter().map(Counter::get).sum();
        let columns =
            ["range", "file", "faults", "loaded", "faults per page", "evicted", "written back", "resident peak"];
        let row = vec![
            range.to_string(),
            store.name(),
            faults.to_string(),
            loaded.to_string(),
            ratio(faults, loaded),
            evicted.to_string(),
            written.to_string(),
            set.peak().to_string(),
        ];
        let table = Table { title: "pages".to_owned(), columns: columns.map(str::to_owned).to_vec(), rows: vec![row] };
        Report { tables: vec![table], warnings: self.warnings(range, store, left) }
    }

    fn warnings(&self, range: AddressRange, store: &dyn Store, left: Option<&impl Display>) -> Vec<String> {
        let failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        let mut warnings: Vec<String> = failures
            .iter()
            .map(|Failure { attempt, times, first }| format!("{times} times {attempt}; the first time, {first}"))
            .collect();
        let left_to_guest = self.left_to_guest.load(Relaxed);
        if left_to_guest > 0 {
            warnings.push(format!(
                "{left_to_guest} faults in {range} were left to the guest: it has no last-level page table there"
            ));
        }
        if let Some(left) = left {
            warnings.push(format!("{} is not up to date, and what it lacks is lost: {left}", store.name()));
        }
        warnings
    }
}

/// Faults per page with two decimals; 0.00 if there are no pages.
fn ratio(faults: u64, pages: u64) -> String {
    let hundredths = (faults * 100).checked_div(pages).unwrap_or(0);
    format!("{}.{:02}", hundredths / 100, hundredths % 100)
}
