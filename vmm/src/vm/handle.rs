//! A handle on a VM: inspects and changes it from any thread while it runs.
//!
//! Nothing here is on the path of a fault, and nothing waits for a vCPU longer than [`PATIENCE`].

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::intercept::chain::{EditError, HookStatus, NamedHook};
use crate::intercept::config::HookConfig;
use crate::intercept::counts::{Exits, Faults, Verdicts, milliseconds};
use crate::intercept::engine::Engine;
use crate::machine::stop::Stop;
use crate::machine::vcpus::Standing;
use crate::vm::run::Shared;

/// How long to wait for vCPUs to take over a change; a hook may be running.
pub const PATIENCE: Duration = Duration::from_secs(1);

/// A handle on a VM. Clones are handles on the same VM.
#[derive(Clone)]
pub struct VmHandle {
    shared: Arc<Shared>,
    engine: Arc<dyn Engine>,
}

/// Why a VM did not carry out a request.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HandleError {
    /// The VM has ended.
    #[error("the VM has ended")]
    Ended,
    /// The config says `intercept.engine = "off"`.
    #[error("the VM was started without interception (intercept.engine = \"off\")")]
    NoEngine,
    /// The chain can't be changed in this way.
    #[error(transparent)]
    Edit(#[from] EditError),
}

/// Whether a VM is running, paused or ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum RunState {
    /// The VM is running.
    Running,
    /// The VM is paused: its vCPUs stand still.
    Paused,
    /// The VM has ended.
    Ended,
}

/// A snapshot of a VM. vCPUs keep running while they are counted, so sums can differ by a few faults.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Status {
    /// Whether the VM is running, paused or ended.
    pub state: RunState,
    /// Number of vCPUs.
    pub vcpus: usize,
    /// Milliseconds since the VM became ready to run.
    pub run_ms: u64,
    /// How many of those milliseconds it was paused.
    pub paused_ms: u64,
    /// Number of times a vCPU was held: for a pause, while the interception was put in place, or because nobody read
    /// the console. Changes of the chain hold no vCPU.
    pub holds: u64,
    /// The engine in force, as in a [`Summary`](crate::vm::summary::Summary).
    pub engine: String,
    /// Whether interception is wanted.
    pub attached: bool,
    /// Whether faults are intercepted at this moment.
    pub armed: bool,
    /// Faults seen, by kind.
    pub faults: Faults,
    /// Verdicts on the faults, by kind.
    pub verdicts: Verdicts,
    /// Returns from KVM_RUN, by cause.
    pub exits: Exits,
    /// The hooks in force, in chain order.
    pub hooks: Vec<HookStatus>,
}

impl VmHandle {
    pub(super) fn new(shared: Arc<Shared>, engine: Arc<dyn Engine>) -> Self {
        Self { shared, engine }
    }

    /// Takes a snapshot of the VM.
    #[must_use]
    pub fn status(&self) -> Status {
        let (faults, verdicts, exits) = self.count();
        let vcpus = &self.shared.vcpus;
        Status {
            state: self.state(),
            vcpus: vcpus.cpus().len(),
            run_ms: milliseconds(self.elapsed()),
            paused_ms: milliseconds(vcpus.paused_for()),
            holds: vcpus.holds(),
            engine: self.engine.name().to_owned(),
            attached: self.engine.is_wanted(),
            armed: self.engine.is_in_place(),
            faults,
            verdicts,
            exits,
            hooks: self.shared.chain.hooks(),
        }
    }

    pub(crate) fn count(&self) -> (Faults, Verdicts, Exits) {
        self.shared.count()
    }

    pub(crate) fn elapsed(&self) -> Duration {
        self.shared.start.elapsed()
    }

    /// Whether the VM is running, paused or ended.
    #[must_use]
    pub fn state(&self) -> RunState {
        match self.shared.vcpus.stopped() {
            Some(_) => RunState::Ended,
            None if self.shared.vcpus.is_paused() => RunState::Paused,
            None => RunState::Running,
        }
    }

    /// Pauses the VM: every vCPU stops before it enters the guest again. Waits for the vCPUs for at most
    /// [`PATIENCE`]; a vCPU in a hook stops after the hook has returned. The guest's clocks run on; the VM's deadline
    /// does not.
    ///
    /// # Errors
    /// [`HandleError::Ended`].
    pub fn pause(&self) -> Result<Standing, HandleError> {
        self.check()?;
        self.shared.vcpus.pause();
        Ok(self.shared.vcpus.wait_until_held(PATIENCE))
    }

    /// Resumes the vCPUs.
    ///
    /// # Errors
    /// [`HandleError::Ended`].
    pub fn resume(&self) -> Result<(), HandleError> {
        self.check()?;
        self.shared.vcpus.resume();
        Ok(())
    }

    /// Ends the VM, as SIGTERM does. Returns before it has ended.
    ///
    /// # Errors
    /// [`HandleError::Ended`].
    pub fn stop(&self) -> Result<(), HandleError> {
        self.check()?;
        self.shared.vcpus.stop(Stop::Request);
        Ok(())
    }

    /// Starts interception. Returns whether faults are intercepted by now: an engine that waits for the guest's IDT,
    /// or a VM that is paused, takes longer than [`PATIENCE`].
    ///
    /// # Errors
    /// [`HandleError::Ended`], [`HandleError::NoEngine`].
    pub fn attach(&self) -> Result<bool, HandleError> {
        self.intercept(true)
    }

    /// Stops interception. Returns whether faults are still intercepted. The engine `gate` restores the guest's gates
    /// and leaves the bytes of its stubs in place.
    ///
    /// # Errors
    /// [`HandleError::Ended`], [`HandleError::NoEngine`].
    pub fn detach(&self) -> Result<bool, HandleError> {
        self.intercept(false)
    }

    fn intercept(&self, wanted: bool) -> Result<bool, HandleError> {
        self.check()?;
        if !self.engine.can_intercept() {
            return Err(HandleError::NoEngine);
        }
        self.engine.want(wanted);
        self.shared.vcpus.kick_all();
        self.wait_until(|| self.engine.is_in_place() == wanted);
        Ok(self.engine.is_in_place())
    }

    /// The hooks in force, in chain order.
    #[must_use]
    pub fn hooks(&self) -> Vec<HookStatus> {
        self.shared.chain.hooks()
    }

    /// Checks that there is a hook of this name.
    ///
    /// # Errors
    /// [`EditError::Unknown`].
    pub fn find(&self, name: &str) -> Result<(), HandleError> {
        Ok(self.shared.chain.find_name(name)?)
    }

    /// The config that the hook of this name was made from.
    ///
    /// # Errors
    /// [`EditError`].
    pub fn origin(&self, name: &str) -> Result<HookConfig, HandleError> {
        Ok(self.shared.chain.origin(name)?)
    }

    /// Adds a hook to the chain, at `position` or at its end, and returns its name in the chain.
    ///
    /// # Errors
    /// [`EditError`].
    pub fn add(&self, hook: NamedHook, position: Option<usize>) -> Result<String, HandleError> {
        let name = self.shared.chain.add(hook, position)?;
        self.shared.vcpus.kick_all();
        Ok(name)
    }

    /// Removes a hook and ends it. Returns the same as [`VmHandle::settle`].
    ///
    /// # Errors
    /// [`EditError`].
    pub fn remove(&self, name: &str) -> Result<usize, HandleError> {
        self.shared.chain.remove(name)?;
        Ok(self.settle())
    }

    /// Replaces a hook with another, and ends the old one. No vCPU waits for that. Returns the same as
    /// [`VmHandle::settle`].
    ///
    /// # Errors
    /// [`EditError`].
    pub fn replace(&self, name: &str, hook: NamedHook) -> Result<usize, HandleError> {
        self.shared.chain.replace(name, hook)?;
        Ok(self.settle())
    }

    /// Reorders the hooks; `names` must list all of them.
    ///
    /// # Errors
    /// [`EditError`].
    pub fn reorder(&self, names: &[String]) -> Result<(), HandleError> {
        self.shared.chain.reorder(names)?;
        self.shared.vcpus.kick_all();
        Ok(())
    }

    /// Ends the hooks that were taken out, once no vCPU is in them. Waits for the vCPUs for at most [`PATIENCE`], and
    /// for the end of each hook as long as its timeout allows. Returns how many hooks are left: the next call, or the
    /// end of the VM, ends them. While the VM is paused, its vCPUs keep the chain that they have.
    pub fn settle(&self) -> usize {
        self.shared.vcpus.kick_all();
        let guest = self.shared.guest_at_rest();
        let mut left = self.shared.chain.settle(&guest);
        self.wait_until(|| {
            if left > 0 {
                left = self.shared.chain.settle(&guest);
            }
            left == 0
        });
        left
    }

    fn check(&self) -> Result<(), HandleError> {
        if self.state() == RunState::Ended { Err(HandleError::Ended) } else { Ok(()) }
    }

    /// Waits until `done` returns true; gives up after [`PATIENCE`], or if the VM is not running.
    fn wait_until(&self, mut done: impl FnMut() -> bool) {
        const STEP: Duration = Duration::from_micros(200);
        let deadline = Instant::now() + PATIENCE;
        while !done() && self.state() == RunState::Running && Instant::now() < deadline {
            std::thread::sleep(STEP);
        }
    }
}
