//! The hook itself, and how a VM comes by one.

use std::fmt;

use crate::{Fault, Guest, Options, OptionsError, Report, Verdict};

/// User code that is called once per fault.
///
/// One value serves all vCPUs: it is called with `&self` on the thread of the vCPU that faulted, from several at once.
/// State belongs into atomics or [`PerVcpu`](crate::PerVcpu) slots; a lock here is a lock on every vCPU's fault path.
pub trait Hook: Send + Sync {
    /// Decides about one fault. The guest stands still on this vCPU until it returns.
    ///
    /// # Errors
    /// Any error: the fault is then reinjected with the registers as they were, the hook is reported and, after that, left out.
    fn on_fault(&self, fault: &Fault, guest: &mut dyn Guest) -> Result;

    /// Called if the guest can't take the verdict that this hook gave on `fault`, for example an exception that it has no gate
    /// for; `why` names the obstacle. A returned text stops the VM, and is the reason that it gives. The default returns `None`:
    /// the fault is reinjected. Where the guest is to blame, the hook goes on; a verdict that no guest could take is its failure,
    /// as an error from [`Hook::on_fault`] is. A hook in a shared library is never asked.
    fn on_refused(&self, _fault: &Fault, _why: &str) -> Option<String> {
        None
    }

    /// Called once, after the last fault: when the VM has ended, or the hook has been taken out of the chain and no vCPU is in
    /// it any more. Flush what is buffered, write back and give back what the guest was lent, and tell the user what there
    /// is to tell. It runs on a thread of its own, and is not waited for longer than the hook's timeout.
    fn on_end(&self, _guest: &mut dyn Guest) -> Report {
        Report::default()
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
    /// What `[[hook]] name = "..."` says.
    pub name: &'static str,
    /// One line for `vector14 hooks`.
    pub summary: &'static str,
    /// The options that [`HookType::create`] understands.
    pub options: &'static [OptionDoc],
    /// Finds what [`HookType::create`] would object to, as far as that can be told without leaving a trace: it creates,
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
    /// What it takes, in a word: `path`, `address`, `"text" | "json"`.
    pub value: &'static str,
    /// What holds when it is not given; `None` where it must be.
    pub default: Option<&'static str>,
    /// One line on what it does.
    pub help: &'static str,
}
