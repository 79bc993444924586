//! A VM from its config to its summary: builds the machine, runs one thread per vCPU, and waits for the end.

pub(crate) mod config;
mod devices;
mod error;
mod events;
mod handle;
mod input;
pub(crate) mod kvm;
pub(crate) mod run;
pub mod summary;
mod thread;
mod watchdog;

use std::fs::File;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};
use std::time::{Duration, Instant};

use event_manager::{EventManager, SubscriberOps};
use vector14_hook::GuestKind;
use vmm_sys_util::eventfd::EventFd;

pub use self::error::{RunError, VmError};
pub(crate) use self::error::{call, host};
pub use self::handle::{HandleError, PATIENCE, RunState, Status, VmHandle};
use self::summary::Summary;
use self::thread::GRACE;
use crate::intercept::chain::{self, Chain, NamedHook};
use crate::intercept::counts::milliseconds;
pub use crate::intercept::engine::EngineError;
use crate::intercept::engine::{self, ArmWhen, Engine, Room};
use crate::machine::device::{Com1, Device};
use crate::machine::loader;
use crate::machine::memory::Memory;
use crate::machine::outlet::{Level, Outlet};
use crate::machine::stop::Stop;
use crate::machine::vcpu::Vcpu;
pub use crate::machine::vcpus::Standing;
use crate::sys::endings::{self, Awaited};
use crate::sys::mapped::MappedVm;
use crate::vm::config::Config;
use crate::vm::events::{Beat, Deadline, SIGNALS, Signal, Subscriber, VcpuEnded, stop_signals};
use crate::vm::input::Input;
use crate::vm::run::Shared;
use crate::vm::watchdog::Watchdog;

/// How long the console's reader has to read the rest after the VM has ended.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// What a VM is connected to on the host.
pub struct Surroundings {
    /// Path of the KVM device.
    pub kvm: PathBuf,
    /// Destination of the guest's console. While nobody reads it, the guest is held.
    pub output: Outlet,
    /// Whether a user attends to the VM. If so, standard input feeds the guest's console, its terminal is in raw mode,
    /// and the VM takes SIGINT, SIGTERM, SIGHUP, SIGQUIT and SIGUSR1. The second signal among the first four ends the
    /// process.
    pub attended: bool,
    /// Additional devices, each with its port.
    pub ports: Vec<(u16, Box<dyn Device>)>,
}

impl Surroundings {
    /// Sends console output to `output`, with no input, signals or additional devices.
    #[must_use]
    pub fn unattended(output: Outlet) -> Self {
        Self { kvm: PathBuf::from(self::kvm::DEFAULT_PATH), output, attended: false, ports: Vec::new() }
    }
}

/// A machine that is ready to run.
pub struct Vm {
    shared: Arc<Shared>,
    engine: Arc<dyn Engine>,
    vcpus: Vec<Vcpu>,
    console: Outlet,
    com1: Com1,
    com1_room: File,
    timeout: Option<Duration>,
    attended: bool,
    /// Keeps the VM alive.
    _machine: MappedVm,
}

impl Vm {
    /// Builds the machine that `config` describes, with `hooks` as its chain.
    ///
    /// # Errors
    /// [`VmError`]; nothing has run yet.
    pub fn new(config: &Config, hooks: Vec<NamedHook>, surroundings: Surroundings) -> Result<Self, VmError> {
        let kvm = kvm::open(&surroundings.kvm)?;
        let mut memory = Memory::new(config.vm.memory)?;
        let loaded = loader::load(&config.boot, &memory)?;
        memory.set_kind(loaded.guest);

        let fd = call("KVM_CREATE_VM", kvm.create_vm())?;
        kvm::create_interrupt_controllers(&fd)?;
        let console = surroundings.output;
        let devices = devices::create(config, &fd, &memory, console.clone(), surroundings.ports)?;
        let machine = memory.machine(fd)?;
        let mut vcpus = kvm::create_vcpus(&kvm, &machine, &config.vm)?;
        if let Some(first) = vcpus.first_mut() {
            let sregs = call("KVM_GET_SREGS", first.fd().get_sregs())?;
            let (regs, sregs) = loaded.entry.registers(sregs);
            call("KVM_SET_REGS", first.set_boot_state(&regs, &sregs))?;
        }

        let translations = host("a spare page", machine.translations().map_err(std::io::Error::other))?;
        memory.runs_in(machine.clone(), translations);
        let shared = Shared::new(memory, Chain::new(hooks), config.vm.vcpus, devices.ports, devices.mmio);
        let arm_when = match loaded.guest {
            GuestKind::Linux => ArmWhen::IdtIsInCpuEntryArea,
            GuestKind::Other => ArmWhen::GateIsPresent,
        };
        let room = Room { named: config.intercept.stub.clone().or(loaded.stub), unused: loaded.unused };
        let held = Arc::clone(&shared.vcpus);
        console.watch_level(move |level| held.hold_while_console_is_full(level == Level::Full));
        Ok(Self {
            shared: Arc::new(shared),
            engine: engine::select(&config.intercept, config.vm.nested, &machine, room, arm_when)?,
            vcpus,
            console,
            com1: devices.com1,
            com1_room: devices.com1_room,
            timeout: config.vm.timeout,
            attended: surroundings.attended,
            _machine: machine,
        })
    }

    /// A handle on the machine, valid before, during and after its run.
    #[must_use]
    pub fn handle(&self) -> VmHandle {
        VmHandle::new(Arc::clone(&self.shared), Arc::clone(&self.engine))
    }

    /// Runs the machine until it stops for any reason, and ends its hooks. After the stop, vCPUs have 5 seconds to
    /// leave their hooks, each hook has its timeout to end, and the console's reader has 2 seconds: every wait is
    /// limited.
    ///
    /// # Errors
    /// The host failed. What the guest did wrong is in the summary instead.
    pub fn run(mut self) -> Result<Summary, RunError> {
        let vcpus = self.vcpus.len();
        let (sender, outcomes) = channel();
        let start = Instant::now();
        let waited = self.wait_for_the_end(sender);
        if let Err(error) = &waited {
            self.shared.vcpus.stop(Stop::Crash { detail: error.to_string() });
        }
        let wall = start.elapsed();
        let (missing, outcome) = thread::collect(&outcomes, vcpus);
        let summary = self.summarise(vcpus, missing, start, wall);
        match waited.map(drop).and(outcome) {
            Ok(()) => Ok(summary),
            Err(source) => Err(RunError { source, summary: Box::new(summary) }),
        }
    }

    /// Starts the vCPUs and waits until the VM is told to stop. The returned guard keeps a signal from ending the
    /// process until the hooks have ended.
    fn wait_for_the_end(&mut self, outcomes: Sender<thread::Outcome>) -> Result<Option<Awaited>, VmError> {
        let awaited = self.attended.then(|| endings::await_first(stop_signals())).transpose();
        let awaited = host("waiting for signals", awaited)?;
        let left = host("the end of vCPUs", EventFd::new(libc::EFD_NONBLOCK))?;
        let mut manager = self.subscribe(&left)?;
        // Restores the terminal as soon as the guest has stopped.
        let _input = self.connect_input()?;
        for vcpu in self.vcpus.drain(..) {
            let spawned = left
                .try_clone()
                .and_then(|left| thread::spawn(vcpu, &self.shared, &*self.engine, outcomes.clone(), left));
            host("a vCPU's thread", spawned)?;
        }
        while self.shared.vcpus.stopped().is_none() {
            manager
                .run()
                .map_err(|error| VmError::Host { what: "waiting for events", source: std::io::Error::other(error) })?;
        }
        Ok(awaited)
    }

    fn connect_input(&self) -> Result<Option<Input>, VmError> {
        let connect = || Input::connect(self.com1.clone(), self.com1_room.try_clone()?, &self.shared);
        host("the console's input", self.attended.then(connect).transpose())
    }

    /// Subscribes to everything that the main thread waits for.
    fn subscribe(&self, left: &EventFd) -> Result<EventManager<Subscriber>, VmError> {
        let manager = EventManager::<Subscriber>::new();
        let mut manager = manager
            .map_err(|error| VmError::Host { what: "waiting for events", source: std::io::Error::other(error) })?;
        let vm = || Arc::clone(&self.shared);
        manager.add_subscriber(Box::new(VcpuEnded(host("the end of vCPUs", left.try_clone())?)));
        if let Some(timeout) = self.timeout {
            manager.add_subscriber(Box::new(host("the deadline", Deadline::new(timeout, vm()))?));
        }
        if self.engine.needs_beat() {
            manager.add_subscriber(Box::new(host("the beat", Beat::new(Arc::clone(&self.engine), vm()))?));
        }
        manager.add_subscriber(Box::new(host("the watchdog", Watchdog::new(vm()))?));
        if self.attended {
            for (number, action) in SIGNALS {
                let signal = host("waiting for signals", Signal::new(number, action, Arc::clone(&self.engine), vm()))?;
                manager.add_subscriber(Box::new(signal));
            }
        }
        Ok(manager)
    }

    fn summarise(&self, vcpus: usize, missing: usize, start: Instant, wall: Duration) -> Summary {
        let (faults, mut verdicts, exits) = self.shared.count();
        let mut notes = self.engine.take_notes(start);
        if missing > 0 {
            notes.push(format!("{missing} of {vcpus} vCPUs did not stop within {GRACE:?}: a hook or the host's file system has not returned; \
                 a fault that was in a hook counts as stopped"));
            verdicts.stop += faults.total - verdicts.total();
        }
        let chain::Outcome { hooks, earlier, notes: of_chain } = self.shared.chain.finish(&self.shared.guest_at_rest());
        notes.extend(of_chain);
        let unwritten = self.console.drain(LAST_WORDS);
        if unwritten > 0 {
            notes.push(format!(
                "up to {unwritten} bytes of console output were not written: nobody read them within {LAST_WORDS:?} of the end"
            ));
        }
        Summary {
            stop: self.shared.vcpus.stopped().unwrap_or(Stop::Deadline),
            engine: self.engine.name(),
            armed_ms: self.engine.armed_at().map(|armed| milliseconds(armed.saturating_duration_since(start))),
            wall_ms: milliseconds(wall),
            vcpus: u32::try_from(vcpus).unwrap_or(u32::MAX),
            faults,
            verdicts,
            exits,
            hooks,
            earlier_hooks: earlier,
            notes,
        }
    }
}
