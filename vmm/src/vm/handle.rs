//! A handle on a VM: looks at it and changes it from any thread while it runs.
//!
//! Nothing here is on the path of a fault, and nothing waits for a vCPU longer than [`PATIENCE`].

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::chain::{EditError, HookStatus, NamedHook};
use crate::config::HookConfig;
use crate::control::Standing;
use crate::engine::Engine;
use crate::run::Shared;
use crate::summary::{Exits, Faults, Stop, Verdicts, milliseconds};

/// So long is waited for vCPUs to take a change over: a hook may be at work.
pub const PATIENCE: Duration = Duration::from_secs(1);

/// A handle on a VM. Clones are handles on the same VM.
#[derive(Clone)]
pub struct VmHandle {
    shared: Arc<Shared>,
    engine: Engine,
}

/// Why a VM did not do what it was told.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HandleError {
    /// It has ended.
    #[error("the VM has ended")]
    Ended,
    /// Its config says `intercept.engine = "off"`.
    #[error("the VM was started without interception (intercept.engine = \"off\")")]
    NoEngine,
    /// The chain can't be changed like that.
    #[error(transparent)]
    Edit(#[from] EditError),
}

/// Whether a VM runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// It does.
    Running,
    /// It is paused: its vCPUs stand still.
    Paused,
    /// It has ended.
    Ended,
}

/// What is known of a VM at a moment. vCPUs go on while they are counted, so that sums can be a few faults apart.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Status {
    /// Whether it runs.
    pub state: State,
    /// How many vCPUs it has.
    pub vcpus: usize,
    /// Milliseconds since it was made ready to run.
    pub run_ms: u64,
    /// How many of these it was paused.
    pub paused_ms: u64,
    /// How often a vCPU was made to stand still: for a pause, while the interception was put in place, or because nobody read the
    /// console. Changes of the chain hold none.
    pub holds: u64,
    /// The engine in force, as in a [`Summary`](crate::summary::Summary).
    pub engine: String,
    /// Whether faults are to be intercepted.
    pub attached: bool,
    /// Whether they are, at this moment.
    pub armed: bool,
    /// Faults seen, by kind.
    pub faults: Faults,
    /// What became of them.
    pub verdicts: Verdicts,
    /// Returns from KVM_RUN, by cause.
    pub exits: Exits,
    /// The hooks in force, in chain order.
    pub hooks: Vec<HookStatus>,
}

impl VmHandle {
    pub(super) fn new(shared: Arc<Shared>, engine: Engine) -> Self {
        Self { shared, engine }
    }

    /// What is known of the VM now.
    #[must_use]
    pub fn status(&self) -> Status {
        let (faults, verdicts, exits) = self.count();
        let control = &self.shared.control;
        Status {
            state: self.state(),
            vcpus: control.cpus().len(),
            run_ms: milliseconds(self.elapsed()),
            paused_ms: milliseconds(control.paused_for()),
            holds: control.holds(),
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

    /// Whether the VM runs.
    #[must_use]
    pub fn state(&self) -> State {
        match self.shared.control.stopped() {
            Some(_) => State::Ended,
            None if self.shared.control.is_paused() => State::Paused,
            None => State::Running,
        }
    }

    /// Has all vCPUs stand still before they enter the guest again, and waits for them, [`PATIENCE`] at the most: a vCPU that is
    /// in a hook stands still when the hook has returned. The guest's clocks run on; the VM's deadline does not.
    ///
    /// # Errors
    /// [`HandleError::Ended`].
    pub fn pause(&self) -> Result<Standing, HandleError> {
        self.check()?;
        self.shared.control.pause();
        Ok(self.shared.control.wait_until_held(PATIENCE))
    }

    /// Lets the vCPUs go on.
    ///
    /// # Errors
    /// [`HandleError::Ended`].
    pub fn resume(&self) -> Result<(), HandleError> {
        self.check()?;
        self.shared.control.resume();
        Ok(())
    }

    /// Ends the VM, as SIGTERM does. Returns before it has ended.
    ///
    /// # Errors
    /// [`HandleError::Ended`].
    pub fn stop(&self) -> Result<(), HandleError> {
        self.check()?;
        self.shared.control.stop(Stop::Request);
        Ok(())
    }

    /// Has faults intercepted. Returns whether they are: an engine that waits for the guest's IDT, or a VM that is paused, takes
    /// longer than [`PATIENCE`].
    ///
    /// # Errors
    /// [`HandleError::Ended`], [`HandleError::NoEngine`].
    pub fn attach(&self) -> Result<bool, HandleError> {
        self.intercept(true)
    }

    /// Stops the interception. Returns whether there is still any. The engine `gate` restores the guest's gates, and leaves the bytes
    /// of its stubs.
    ///
    /// # Errors
    /// [`HandleError::Ended`], [`HandleError::NoEngine`].
    pub fn detach(&self) -> Result<bool, HandleError> {
        self.intercept(false)
    }

    fn intercept(&self, wanted: bool) -> Result<bool, HandleError> {
        self.check()?;
        if matches!(self.engine, Engine::Off) {
            return Err(HandleError::NoEngine);
        }
        self.engine.want(wanted);
        self.shared.control.kick_all();
        self.wait_until(|| self.engine.is_in_place() == wanted);
        Ok(self.engine.is_in_place())
    }

    /// The hooks in force, in chain order.
    #[must_use]
    pub fn hooks(&self) -> Vec<HookStatus> {
        self.shared.chain.hooks()
    }

    /// Whether there is a hook of this name.
    ///
    /// # Errors
    /// [`EditError::Unknown`].
    pub fn find(&self, name: &str) -> Result<(), HandleError> {
        Ok(self.shared.chain.find_name(name)?)
    }

    /// What the hook of this name was made from.
    ///
    /// # Errors
    /// [`EditError`].
    pub fn origin(&self, name: &str) -> Result<HookConfig, HandleError> {
        Ok(self.shared.chain.origin(name)?)
    }

    /// Puts a hook into the chain, at `position` or at its end, and returns the name that it goes by there.
    ///
    /// # Errors
    /// [`EditError`].
    pub fn add(&self, hook: NamedHook, position: Option<usize>) -> Result<String, HandleError> {
        let name = self.shared.chain.add(hook, position)?;
        self.shared.control.kick_all();
        Ok(name)
    }

    /// Takes a hook out, and ends it. Returns as [`VmHandle::settle`].
    ///
    /// # Errors
    /// [`EditError`].
    pub fn remove(&self, name: &str) -> Result<usize, HandleError> {
        self.shared.chain.remove(name)?;
        Ok(self.settle())
    }

    /// Puts a hook in the place of another, and ends the other. No vCPU waits for that. Returns as [`VmHandle::settle`].
    ///
    /// # Errors
    /// [`EditError`].
    pub fn replace(&self, name: &str, hook: NamedHook) -> Result<usize, HandleError> {
        self.shared.chain.replace(name, hook)?;
        Ok(self.settle())
    }

    /// Puts the hooks into the order of `names`, all of them.
    ///
    /// # Errors
    /// [`EditError`].
    pub fn reorder(&self, names: &[String]) -> Result<(), HandleError> {
        self.shared.chain.reorder(names)?;
        self.shared.control.kick_all();
        Ok(())
    }

    /// Ends the hooks that were taken out, as soon as no vCPU is in them any more, and waits for that, [`PATIENCE`] at the most, and
    /// for the end of each as long as its timeout allows.
    /// Returns how many are left: they are ended by the next call, or when the VM ends. While the VM is paused its vCPUs keep
    /// the chain that they have.
    pub fn settle(&self) -> usize {
        self.shared.control.kick_all();
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
        if self.state() == State::Ended { Err(HandleError::Ended) } else { Ok(()) }
    }

    /// Waits until it is `done`, for as long as vCPUs move and [`PATIENCE`] lasts.
    fn wait_until(&self, mut done: impl FnMut() -> bool) {
        const STEP: Duration = Duration::from_micros(200);
        let deadline = Instant::now() + PATIENCE;
        while !done() && self.state() == State::Running && Instant::now() < deadline {
            std::thread::sleep(STEP);
        }
    }
}
