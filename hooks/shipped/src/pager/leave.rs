//! Eviction of a batch of pages, and of all of them.
//!
//! The steps are: make absent, flush, read the frame, write it back, reuse it. They have this order because other vCPUs
//! can write to a page as long as they have a translation.

use std::io;
use std::time::Duration;

use vector14_hook::{Access, Guest, GuestError, Verdict};

use super::Pager;
use super::account::Attempt;
use super::resident::Claim;

/// The longest time that a sync waits for vCPUs that are working on pages.
const PATIENCE: Duration = Duration::from_secs(5);

/// Why the file is not up to date.
#[derive(Debug, thiserror::Error)]
pub(super) enum NotSynced {
    #[error("vCPUs are still working on pages after {PATIENCE:?}")]
    Busy,
    #[error("{pages} pages can't be written back")]
    Stay { pages: usize },
    #[error("the file can't be synced: {0}")]
    File(#[from] io::Error),
    #[error(transparent)]
    Guest(#[from] GuestError),
}

impl Pager {
    /// Unmaps pages, writes back dirty ones, and frees their frames. Returns the number of pages that stay in memory.
    pub(super) fn put_out(&self, mut claims: Vec<Claim<'_>>, guest: &mut dyn Guest) -> Result<usize, GuestError> {
        if claims.is_empty() {
            return Ok(0);
        }
        let pages = claims.len();
        claims.retain_mut(|claim| {
            // If the guest keeps changing an entry, its page stays.
            claim.resident.as_mut().is_none_or(|resident| resident.unmap(guest, self.address(claim.page)).is_ok())
        });
        guest.flush()?;
        let gone = claims.into_iter().filter_map(|claim| self.write_back(claim, guest)).count();
        Ok(pages - gone)
    }

    /// Writes back a page that no vCPU can access, if it is dirty, and frees its frame. Returns `None` if it could not
    /// be written.
    fn write_back(&self, mut claim: Claim<'_>, guest: &mut dyn Guest) -> Option<()> {
        let Some(resident) = claim.resident else { return Some(()) };
        if resident.dirty && self.access.contains(Access::WRITE) {
            let mut contents = [0; 4096];
            let read = guest.read_physical(resident.frame, &mut contents).map_err(io::Error::other);
            if let Err(error) = read.and_then(|()| self.store.write(claim.page, &contents)) {
                self.account.note_failure(Attempt::Write, self.address(claim.page), &error, guest);
                return None;
            }
            self.account.written();
        }
        claim.resident = None;
        self.set.free(resident.frame);
        Some(())
    }

    /// Handles a touch of `sync_at`.
    pub(super) fn sync(&self, guest: &mut dyn Guest) -> vector14_hook::Result {
        match self.put_all_out(guest) {
            Ok(()) => Ok(Verdict::Skip),
            Err(NotSynced::Guest(error)) => Err(error.into()),
            Err(error @ (NotSynced::Busy | NotSynced::Stay { .. } | NotSynced::File(_))) => {
                self.account.note_failure(Attempt::Sync, self.range.start(), &error, guest);
                Ok(Verdict::Reinject)
            }
        }
    }

    /// Unmaps all pages and brings the file up to date.
    pub(super) fn put_all_out(&self, guest: &mut dyn Guest) -> Result<(), NotSynced> {
        let closed = self.set.close(PATIENCE).ok_or(NotSynced::Busy)?;
        match self.put_out(closed.claim_all(), guest)? {
            0 if self.access.contains(Access::WRITE) => Ok(self.store.sync()?),
            0 => Ok(()),
            pages => Err(NotSynced::Stay { pages }),
        }
    }
}
