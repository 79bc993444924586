//! A VM from its config to its summary: builds the machine, runs a thread a vCPU, and waits for the end.

mod devices;
mod error;
mod handle;
mod kvm;
mod thread;

use std::path::PathBuf;
use std::sync::atomic::AtomicU64;
use std::sync::mpsc::channel;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use event_manager::{EventManager, SubscriberOps};
use vector14_hook::PerVcpu;
use vmm_sys_util::eventfd::EventFd;

pub use self::error::VmError;
use self::error::{call, host};
pub use self::handle::{HandleError, PATIENCE, State, Status, VmHandle};
use self::thread::GRACE;
use crate::chain::{Chain, NamedHook};
use crate::config::Config;
use crate::control::Control;
pub use crate::control::Standing;
use crate::device::{Com1, Device, SharedOutput};
pub use crate::engine::EngineError;
use crate::engine::{ArmWhen, Engine, Room};
use crate::events::{Beat, ConsoleInput, Deadline, Left, SIGNALS, Signal, Subscriber};
use crate::loader::{self, GuestKind};
use crate::memory::Memory;
use crate::run::Shared;
use crate::summary::{self, Stop, Summary};
use crate::sys::mapped::MappedVm;
use crate::vcpu::Vcpu;
use crate::watchdog::Watchdog;

/// How a VM is connected to the world around it.
pub struct Surroundings {
    /// The KVM device.
    pub kvm: PathBuf,
    /// Where the guest's console prints to.
    pub output: SharedOutput,
    /// Whether standard input goes to the guest's console, and SIGINT, SIGTERM, SIGHUP, SIGQUIT and SIGUSR1 to the VM.
    pub attended: bool,
    /// Further devices, by port.
    pub ports: Vec<(u16, Box<dyn Device>)>,
}

impl Surroundings {
    /// Console output to `output`; no input, no signals, no further devices.
    #[must_use]
    pub fn unattended(output: SharedOutput) -> Self {
        Self { kvm: PathBuf::from(crate::doctor::device::DEFAULT_PATH), output, attended: false, ports: Vec::new() }
    }
}

/// A machine that is ready to run.
pub struct Vm {
    shared: Arc<Shared>,
    engine: Engine,
    vcpus: Vec<Vcpu>,
    com1: Com1,
    com1_room: EventFd,
    timeout: Option<Duration>,
    attended: bool,
    /// Keeps the machine as such alive.
    _machine: MappedVm,
}

impl Vm {
    /// Builds the machine that `config` describes, with `hooks` as its chain.
    ///
    /// # Errors
    /// [`VmError`]; nothing has run then.
    pub fn new(config: &Config, hooks: Vec<NamedHook>, surroundings: Surroundings) -> Result<Self, VmError> {
        let kvm = kvm::open(&surroundings.kvm)?;
        let memory = Memory::new(config.vm.memory)?;
        let loaded = loader::load(&config.boot, &memory)?;

        let fd = call("KVM_CREATE_VM", kvm.create_vm())?;
        kvm::create_interrupt_controllers(&fd)?;
        let devices = devices::create(config, &fd, &memory, surroundings.output, surroundings.ports)?;
        let machine = MappedVm::new(fd, memory.map().clone()).map_err(|slot| VmError::Slot {
            start: slot.start,
            size: slot.size,
            source: slot.source,
        })?;
        let mut vcpus = kvm::create_vcpus(&kvm, &machine, config.vm.vcpus)?;
        if let Some(first) = vcpus.first_mut() {
            let sregs = call("KVM_GET_SREGS", first.fd().get_sregs())?;
            let (regs, sregs) = loaded.entry.registers(sregs);
            call("KVM_SET_REGS", first.set_boot_state(&regs, &sregs))?;
        }

        memory.learnt_by(host("a spare page", machine.translations().map_err(std::io::Error::other))?);
        let shared = Shared {
            memory,
            chain: Chain::new(hooks),
            control: Control::new(config.vm.vcpus),
            ports: devices.ports,
            mmio: devices.mmio,
            sequence: AtomicU64::new(0),
            tallies: PerVcpu::default(),
            start: Instant::now(),
            paging: OnceLock::new(),
        };
        let arm_when = match loaded.guest {
            GuestKind::Linux => ArmWhen::IdtIsInCpuEntryArea,
            GuestKind::Other => ArmWhen::GateIsPresent,
        };
        let room = Room { named: config.intercept.stub.clone().or(loaded.stub), unused: loaded.unused };
        Ok(Self {
            shared: Arc::new(shared),
            engine: Engine::new(&config.intercept, &machine, room, arm_when)?,
            vcpus,
            com1: devices.com1,
            com1_room: devices.com1_room,
            timeout: config.vm.timeout,
            attended: surroundings.attended,
            _machine: machine,
        })
    }

    /// A handle on the machine, good before it runs, while it does and after.
    #[must_use]
    pub fn handle(&self) -> VmHandle {
        VmHandle::new(Arc::clone(&self.shared), self.engine.clone())
    }

    /// Runs the machine until it stops, whatever stops it, and ends its hooks.
    ///
    /// # Errors
    /// The host fails; what the guest does is in the summary.
    pub fn run(mut self) -> Result<Summary, VmError> {
        let left = host("the end of vCPUs", EventFd::new(libc::EFD_NONBLOCK))?;
        let mut manager = self.subscribe(&left)?;
        let vcpus = self.vcpus.len();
        let (sender, outcomes) = channel();
        let start = Instant::now();
        for vcpu in self.vcpus.drain(..) {
            let spawned =
                left.try_clone().and_then(|left| thread::spawn(vcpu, &self.shared, &self.engine, sender.clone(), left));
            if spawned.is_err() {
                self.shared.control.stop(Stop::Deadline);
            }
            host("a vCPU's thread", spawned)?;
        }
        drop(sender);
        while self.shared.control.stopped().is_none() {
            manager
                .run()
                .map_err(|error| VmError::Host { what: "waiting for events", source: std::io::Error::other(error) })?;
        }
        let wall = start.elapsed();
        let missing = thread::collect(&outcomes, vcpus)?;
        Ok(self.summarise(vcpus, missing, start, wall))
    }

    /// Everything that the main thread waits for.
    fn subscribe(&self, left: &EventFd) -> Result<EventManager<Subscriber>, VmError> {
        let manager = EventManager::<Subscriber>::new();
        let mut manager = manager
            .map_err(|error| VmError::Host { what: "waiting for events", source: std::io::Error::other(error) })?;
        let vm = || Arc::clone(&self.shared);
        manager.add_subscriber(Box::new(Left(host("the end of vCPUs", left.try_clone())?)));
        if let Some(timeout) = self.timeout {
            manager.add_subscriber(Box::new(host("the deadline", Deadline::new(timeout, vm()))?));
        }
        if self.engine.needs_beat() {
            manager.add_subscriber(Box::new(host("the beat", Beat::new(self.engine.clone(), vm()))?));
        }
        manager.add_subscriber(Box::new(host("the watchdog", Watchdog::new(vm()))?));
        if self.attended {
            for (number, action) in SIGNALS {
                let signal = host("waiting for signals", Signal::new(number, action, self.engine.clone(), vm()))?;
                manager.add_subscriber(Box::new(signal));
            }
            let room = host("the console's input", self.com1_room.try_clone())?;
            manager.add_subscriber(Box::new(ConsoleInput::new(self.com1.clone(), room, vm())));
        }
        Ok(manager)
    }

    fn summarise(&self, vcpus: usize, missing: usize, start: Instant, wall: Duration) -> Summary {
        let (faults, mut verdicts, exits) = self.shared.count();
        let mut notes = self.engine.take_notes();
        if missing > 0 {
            notes.push(format!("{missing} of {vcpus} vCPUs did not stop within {GRACE:?}: a hook does not return, or nobody reads the console; \
                 a fault that was in a hook counts as stopped"));
            verdicts.stop += faults.total - verdicts.total();
        }
        let (hooks, of_chain) = self.shared.chain.finish(&mut self.shared.guest());
        notes.extend(of_chain);
        Summary {
            stop: self.shared.control.stopped().unwrap_or(Stop::Deadline),
            engine: self.engine.name(),
            armed_ms: self.engine.armed_at().map(|armed| summary::milliseconds(armed.saturating_duration_since(start))),
            wall_ms: summary::milliseconds(wall),
            vcpus: u32::try_from(vcpus).unwrap_or(u32::MAX),
            faults,
            verdicts,
            exits,
            hooks,
            notes,
        }
    }
}
