//! The `Hook` trait, and the `HookType` from which a VM creates a hook.

use std::fmt;

use crate::{Fault, Guest, Options, OptionsError, Report, Verdict};

/// User code that is called once per fault.
///
/// One hook serves all vCPUs: it is called with `&self` on the thread of the vCPU that faulted, from several threads at
/// once. Keep state in atomics or [`PerVcpu`](crate::PerVcpu); a lock in a hook is a lock on every vCPU's fault path.
pub trait Hook: Send + Sync {
    /// Decides about one fault. The vCPU is stopped until this returns.
    ///
    /// # Errors
    /// Any error. The fault is then reinjected with the registers as they were, and the hook is reported and disabled.
    fn on_fault(&self, fault: &Fault, guest: &mut dyn Guest) -> Result;

    /// Called if the guest can't take the verdict that this hook gave on `fault`, for example an exception that it has no gate
    /// for; `why` names the obstacle.
    ///
    /// Returning a text stops the VM for that reason. Returning `None`, the default, reinjects the fault. The hook
    /// stays enabled if the guest is the cause. A verdict that no guest could take counts as a failure of the hook,
    /// like an error from [`Hook::on_fault`]. Never called for hooks in shared libraries.
    fn on_refused(&self, _fault: &Fault, _why: &str) -> Option<String> {
        None
    }

    /// Called once, after the last fault: when the VM has ended, or when the hook has been removed from the chain and
    /// no vCPU is in it any more. Flush buffers here, write back and free pages, and report to the user. It runs on its
    /// own thread and must return within the hook's timeout.
    fn on_end(&self, _guest: &mut dyn Guest) -> Report {
        Report::default()
    }
}

/// A hook that calls `decide` for every fault. The other methods keep their defaults.
///
/// ```
/// use vector14_hook::{ErrorCode, Verdict, from_fn};
///
/// let no_fetch = from_fn(|fault, _guest| {
///     let fetch = fault.error_code.contains(ErrorCode::FETCH);
///     Ok(if fetch { Verdict::Stop("instruction fetch".into()) } else { Verdict::Pass })
/// });
/// ```
pub fn from_fn(decide: impl Fn(&Fault, &mut dyn Guest) -> Result + Send + Sync) -> impl Hook {
    FromFn(decide)
}

struct FromFn<F>(F);

impl<F: Fn(&Fault, &mut dyn Guest) -> Result + Send + Sync> Hook for FromFn<F> {
    fn on_fault(&self, fault: &Fault, guest: &mut dyn Guest) -> Result {
        self.0(fault, guest)
    }
}

/// What [`Hook::on_fault`] returns.
pub type Result<T = Verdict> = std::result::Result<T, Error>;

/// Any error of a hook; `?` turns every error type into it.
pub struct Error(Box<dyn std::error::Error + Send + Sync>);

impl<E: Into<Box<dyn std::error::Error + Send + Sync>>> From<E> for Error {
    fn from(error: E) -> Self {
        Self(error.into())
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A kind of hook that a config file can name.
pub struct HookType {
    /// The name in `[[hook]] name = "..."`.
    pub name: &'static str,
    /// One line for `vector14 hooks`.
    pub summary: &'static str,
    /// The options that [`HookType::create`] understands.
    pub options: &'static [OptionDoc],
    /// Reports errors that [`HookType::create`] would report, as far as possible without side effects: it creates,
    /// truncates and starts nothing. For `vector14 check`.
    pub check: fn(&Options) -> std::result::Result<(), OptionsError>,
    /// Makes a hook of this kind.
    pub create: fn(&Options) -> std::result::Result<Box<dyn Hook>, OptionsError>,
}

impl HookType {
    /// A kind of hook that has no options.
    #[must_use]
    pub const fn without_options<H: Hook + Default + 'static>(name: &'static str, summary: &'static str) -> Self {
        Self { name, summary, options: &[], check: |_| Ok(()), create: |_| Ok(Box::new(H::default())) }
    }
}

/// One option of a hook, for `vector14 hooks`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OptionDoc {
    /// Key in the hook's table.
    pub name: &'static str,
    /// The kind of value, such as `path`, `address` or `"text" | "json"`.
    pub value: &'static str,
    /// The default; `None` if the option is required.
    pub default: Option<&'static str>,
    /// One line that describes the option.
    pub help: &'static str,
}

#[cfg(all(test, feature = "mock"))]
mod tests {
    use super::from_fn;
    use crate::Verdict;
    use crate::mock::{MockGuest, Outcome, write_fault};

    #[test]
    fn a_closure_decides() {
        let hook = from_fn(|fault, _guest| Ok(if fault.address.0 < 0x2000 { Verdict::Resolve } else { Verdict::Pass }));
        let mut guest = MockGuest::new(0);
        let outcomes = [0x1000, 0x2000].map(|address| guest.take(&hook, &write_fault(address)));
        assert!(matches!(outcomes, [Outcome::Retried, Outcome::Handled { .. }]), "{outcomes:?}");
    }
}
