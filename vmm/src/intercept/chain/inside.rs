//! Which hook a vCPU is in. The vCPU publishes it with a few plain stores, and another thread can tell from them how
//! long the vCPU stays there. The vCPU itself reads no clock.

use std::fmt;
use std::num::NonZeroU64;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};

use vector14_hook::{Fault, Va};

/// Identifies an entry of a chain; IDs are never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct HookId(pub(super) NonZeroU64);

/// What one vCPU publishes.
#[derive(Debug, Default)]
pub(super) struct Inside {
    /// [`HookId`] of the hook that the vCPU is in; 0 if it is in none.
    entry: AtomicU64,
    sequence: AtomicU64,
    address: AtomicU64,
    rip: AtomicU64,
}

impl Inside {
    /// Publishes that the hooks are about to be asked about `fault`.
    #[inline]
    pub(super) fn begin(&self, fault: &Fault) {
        self.sequence.store(fault.sequence, Relaxed);
        self.address.store(fault.address.0, Relaxed);
        self.rip.store(fault.rip.0, Relaxed);
    }

    /// Publishes that a hook is about to be called.
    #[inline]
    pub(super) fn enter(&self, entry: HookId) {
        self.entry.store(entry.0.get(), Release);
    }

    /// Publishes that the hook has returned.
    #[inline]
    pub(super) fn leave(&self) {
        self.entry.store(0, Release);
    }

    /// The call that vCPU number `vcpu` is in, if any.
    pub(super) fn look(&self, vcpu: u32) -> Option<Call> {
        let entry = self.entry.load(Acquire);
        let (sequence, address, rip) =
            (self.sequence.load(Acquire), Va(self.address.load(Acquire)), Va(self.rip.load(Acquire)));
        let entry = NonZeroU64::new(entry).filter(|entry| self.entry.load(Relaxed) == entry.get());
        Some(Call { entry: HookId(entry?), vcpu, sequence, address, rip })
    }
}

/// One call of a hook; the hook and the fault identify it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Call {
    pub(super) entry: HookId,
    pub(crate) vcpu: u32,
    pub(crate) sequence: u64,
    pub(crate) address: Va,
    pub(crate) rip: Va,
}

/// Describes the fault that the call is about.
impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { vcpu, sequence, address, rip, .. } = self;
        write!(f, "fault #{sequence} at {address} (rip {rip}, vcpu {vcpu})")
    }
}
