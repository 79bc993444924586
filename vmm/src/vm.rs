//! A VM from its config to its summary: builds the machine, runs a thread a vCPU, and waits for the end.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use event_manager::{EventManager, SubscriberOps};
use kvm_bindings::KVM_MAX_CPUID_ENTRIES;
use kvm_ioctls::{Cap, Kvm, VmFd};
use vector14_guest_abi::{COM1, EXIT_PORT};
use vector14_hook::GuestError;
use vmm_sys_util::eventfd::EventFd;

use crate::boot::{self, CMDLINE_LIMIT};
use crate::chain::{Chain, NamedHook};
use crate::config::Config;
use crate::control::Control;
use crate::device::{Bus, Com1, Device, ExitPort, I8042, SharedOutput};
use crate::engine::Engine;
use crate::events::{Beat, ConsoleInput, Deadline, Left, SIGNALS, Signal, Subscriber};
use crate::loader::{self, LoadError};
use crate::memory::{Memory, MemoryError};
use crate::run::{self, Shared, Tally};
use crate::summary::{Stop, Summary};
use crate::sys::kick;
use crate::sys::mapped::MappedVm;
use crate::vcpu::Vcpu;
use crate::{cpuid, summary};

/// Where KVM is.
pub const KVM_PATH: &str = "/dev/kvm";

/// A stopped VM's vCPUs get so long to leave their loops: a hook may be at work.
const GRACE: Duration = Duration::from_secs(5);

/// COM1's interrupt line.
const COM1_GSI: u32 = 4;
/// Three pages that Intel CPUs need for real mode, where no RAM is (KVM API 4.8, KVM_SET_TSS_ADDR).
const TSS_ADDRESS: usize = 0xfffb_d000;

/// Why a VM can't be made or run.
#[derive(Debug, thiserror::Error)]
pub enum VmError {
    /// There is no KVM, or no right to use it.
    #[error("{} can't be opened: {source}", .path.display())]
    NoKvm {
        /// Where it was looked for.
        path: PathBuf,
        /// What the host says.
        source: kvm_ioctls::Error,
    },
    /// This host's KVM lacks something that a VM can't do without.
    #[error("this host's KVM lacks {0}")]
    MissingCapability(&'static str),
    /// KVM refuses.
    #[error("{call} failed: {source}")]
    Kvm {
        /// The ioctl.
        call: &'static str,
        /// What KVM says.
        source: kvm_ioctls::Error,
    },
    /// KVM refuses a range of guest memory.
    #[error("KVM refuses {size} bytes of guest memory at {start:#x}: {source}")]
    Slot {
        /// Guest-physical start.
        start: u64,
        /// Size, in bytes.
        size: u64,
        /// What KVM says.
        source: kvm_ioctls::Error,
    },
    /// The host has no memory for the guest.
    #[error(transparent)]
    Memory(#[from] MemoryError),
    /// The kernel is not one, or does not fit.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// The command line does not fit.
    #[error("boot.cmdline has {length} bytes: at most {CMDLINE_LIMIT} are allowed")]
    CmdlineTooLong {
        /// Its length, in bytes.
        length: usize,
    },
    /// Memory is too small for the boot protocol's own tables.
    #[error("the guest's memory is too small: {0}")]
    TooSmall(GuestError),
    /// Something else of the host's: descriptors, threads.
    #[error("{what}: {source}")]
    Host {
        /// What was attempted.
        what: &'static str,
        /// What the host says.
        source: std::io::Error,
    },
}

impl VmError {
    /// The exit status of the `vector14` command for this error: 2 where the config is to blame, 3 where the host is.
    #[must_use]
    pub fn exit_status(&self) -> u8 {
        match self {
            Self::Load(_) | Self::CmdlineTooLong { .. } | Self::TooSmall(_) => 2,
            Self::NoKvm { .. }
            | Self::MissingCapability(_)
            | Self::Kvm { .. }
            | Self::Slot { .. }
            | Self::Memory(_)
            | Self::Host { .. } => 3,
        }
    }

    /// What to do about it, where there is something to be done.
    #[must_use]
    pub fn help(&self) -> Option<&'static str> {
        match self {
            Self::NoKvm { source, .. } if source.errno() == libc::EACCES => Some(
                "this user has no right to it: join its group (`sudo usermod -aG kvm $USER`, then log in again), or run as root",
            ),
            Self::NoKvm { source, .. } if source.errno() == libc::ENOENT => Some(
                "load the module (`sudo modprobe kvm_amd` or `kvm_intel`), turn virtualisation on in the firmware, or, inside of a VM, \
                 turn nested virtualisation on for it; `vector14 doctor` says more",
            ),
            Self::Memory(_) => Some("lower vm.memory, or free memory on the host"),
            Self::NoKvm { .. } | Self::MissingCapability(_) | Self::Kvm { .. } | Self::Slot { .. } => {
                Some("`vector14 doctor` says what this host's KVM offers")
            }
            Self::Load(_) | Self::CmdlineTooLong { .. } | Self::TooSmall(_) | Self::Host { .. } => None,
        }
    }
}

/// Gives a failing ioctl its name.
fn call<T>(call: &'static str, result: Result<T, kvm_ioctls::Error>) -> Result<T, VmError> {
    result.map_err(|source| VmError::Kvm { call, source })
}

/// Gives another failure of the host's a name.
fn host<T>(what: &'static str, result: Result<T, impl Into<std::io::Error>>) -> Result<T, VmError> {
    result.map_err(|source| VmError::Host { what, source: source.into() })
}

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
        Self { kvm: PathBuf::from(KVM_PATH), output, attended: false, ports: Vec::new() }
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
        let kvm = open_kvm(&surroundings.kvm)?;
        if config.boot.cmdline.len() > CMDLINE_LIMIT {
            return Err(VmError::CmdlineTooLong { length: config.boot.cmdline.len() });
        }
        let memory = Memory::new(config.vm.memory)?;
        boot::prepare_memory(&memory, &config.boot.cmdline).map_err(VmError::TooSmall)?;
        let entry = loader::load(&config.boot.kernel, &memory)?;

        let fd = call("KVM_CREATE_VM", kvm.create_vm())?;
        create_interrupt_controllers(&fd)?;
        let interrupt = host("the console's interrupt", EventFd::new(libc::EFD_NONBLOCK))?;
        call("KVM_IRQFD", fd.register_irqfd(&interrupt, COM1_GSI))?;
        let machine = MappedVm::new(fd, memory.map().clone()).map_err(|slot| VmError::Slot {
            start: slot.start,
            size: slot.size,
            source: slot.source,
        })?;
        let mut vcpus = create_vcpus(&kvm, &machine, config.vm.vcpus)?;
        if let Some(first) = vcpus.first_mut() {
            let sregs = call("KVM_GET_SREGS", first.fd().get_sregs())?;
            let (regs, sregs) = boot::entry_state(entry, sregs);
            call("KVM_SET_REGS", first.set_boot_state(&regs, &sregs))?;
        }

        let com1_room = host("the console's input", EventFd::new(libc::EFD_NONBLOCK))?;
        let room = host("the console's input", com1_room.try_clone())?;
        let com1 = Com1::new(interrupt, room, surroundings.output);
        let mut ports = Bus::default();
        ports.attach(u64::from(COM1)..u64::from(COM1) + 8, Box::new(com1.clone()));
        ports.attach(0x60..0x65, Box::new(I8042));
        ports.attach(u64::from(EXIT_PORT)..u64::from(EXIT_PORT) + 1, Box::new(ExitPort));
        for (port, device) in surroundings.ports {
            ports.attach(u64::from(port)..u64::from(port) + 1, device);
        }
        let shared = Shared {
            memory,
            chain: Chain::new(hooks),
            control: Control::new(config.vm.vcpus),
            ports,
            mmio: Bus::default(),
            sequence: AtomicU64::new(0),
        };
        Ok(Self {
            shared: Arc::new(shared),
            engine: Engine::new(&config.intercept),
            vcpus,
            com1,
            com1_room,
            timeout: config.vm.timeout,
            attended: surroundings.attended,
            _machine: machine,
        })
    }

    /// Runs the machine until it stops, whatever stops it, and ends its hooks.
    ///
    /// # Errors
    /// The host fails; what the guest does is in the summary.
    pub fn run(mut self) -> Result<Summary, VmError> {
        let left = host("the end of vCPUs", EventFd::new(libc::EFD_NONBLOCK))?;
        let mut manager = self.subscribe(&left)?;
        let vcpus = self.vcpus.len();
        let (sender, tallies) = channel();
        let start = Instant::now();
        for vcpu in self.vcpus.drain(..) {
            let spawned =
                left.try_clone().and_then(|left| spawn(vcpu, &self.shared, &self.engine, sender.clone(), left));
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
        let (tallies, missing) = collect(&tallies, vcpus)?;
        Ok(self.summarise(tallies, missing, start, wall))
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
        if !matches!(self.engine, Engine::Off) {
            manager.add_subscriber(Box::new(host("the beat", Beat::new(self.engine.clone(), vm()))?));
        }
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

    fn summarise(&self, tallies: Vec<Tally>, missing: usize, start: Instant, wall: Duration) -> Summary {
        let mut sum = Tally::default();
        for tally in &tallies {
            sum.faults.merge(&tally.faults);
            sum.verdicts.merge(&tally.verdicts);
            sum.exits.merge(&tally.exits);
        }
        let vcpus = tallies.len() + missing;
        let counts: Vec<_> = tallies.into_iter().map(|tally| tally.hooks).collect();
        let mut notes = self.engine.take_notes();
        if missing > 0 {
            notes.push(format!("{missing} of {vcpus} vCPUs did not stop within {GRACE:?}: a hook does not return; their counts are missing"));
        }
        let (hooks, of_chain) = self.shared.chain.finish(&counts);
        notes.extend(of_chain);
        Summary {
            stop: self.shared.control.stopped().unwrap_or(Stop::Deadline),
            engine: self.engine.name(),
            armed_ms: self.engine.armed_at().map(|armed| summary::milliseconds(armed.saturating_duration_since(start))),
            wall_ms: summary::milliseconds(wall),
            vcpus: u32::try_from(vcpus).unwrap_or(u32::MAX),
            faults: sum.faults,
            verdicts: sum.verdicts,
            exits: sum.exits,
            hooks,
            notes,
        }
    }
}

/// Opens KVM and looks for what no VM can do without.
fn open_kvm(path: &Path) -> Result<Kvm, VmError> {
    let no_kvm = |source| VmError::NoKvm { path: path.to_owned(), source };
    let name = std::ffi::CString::new(path.as_os_str().as_encoded_bytes());
    let name = name.map_err(|_| no_kvm(kvm_ioctls::Error::new(libc::EINVAL)))?;
    let kvm = Kvm::new_with_path(name).map_err(no_kvm)?;
    if kvm.get_api_version() != 12 {
        return Err(VmError::MissingCapability("API version 12 (is this a KVM device?)"));
    }
    let needed = [
        (Cap::UserMemory, "KVM_CAP_USER_MEMORY"),
        (Cap::Irqchip, "KVM_CAP_IRQCHIP"),
        (Cap::Irqfd, "KVM_CAP_IRQFD"),
        (Cap::ImmediateExit, "KVM_CAP_IMMEDIATE_EXIT"),
    ];
    if let Some((_, name)) = needed.into_iter().find(|(cap, _)| !kvm.check_extension(*cap)) {
        return Err(VmError::MissingCapability(name));
    }
    let sync_regs = kvm.check_extension_int(Cap::SyncRegs);
    let needed = (kvm_bindings::KVM_SYNC_X86_REGS | kvm_bindings::KVM_SYNC_X86_SREGS).cast_signed();
    if sync_regs & needed != needed {
        return Err(VmError::MissingCapability("KVM_CAP_SYNC_REGS for registers and system registers"));
    }
    Ok(kvm)
}

fn create_interrupt_controllers(vm: &VmFd) -> Result<(), VmError> {
    call("KVM_SET_TSS_ADDR", vm.set_tss_address(TSS_ADDRESS))?;
    call("KVM_CREATE_IRQCHIP", vm.create_irq_chip())
}

fn create_vcpus(kvm: &Kvm, machine: &MappedVm, vcpus: u32) -> Result<Vec<Vcpu>, VmError> {
    let supported = call("KVM_GET_SUPPORTED_CPUID", kvm.get_supported_cpuid(KVM_MAX_CPUID_ENTRIES))?;
    let run_size = call("KVM_GET_VCPU_MMAP_SIZE", kvm.get_vcpu_mmap_size())?;
    (0..vcpus)
        .map(|index| {
            let mut vcpu = Vcpu::new(call("KVM_CREATE_VCPU", machine.create_vcpu(index))?, index, run_size);
            let mut cpuid = supported.clone();
            cpuid::adapt(&mut cpuid, index, vcpus);
            call("KVM_SET_CPUID2", vcpu.fd().set_cpuid2(&cpuid))?;
            Ok(vcpu)
        })
        .collect()
}

/// What a vCPU's thread leaves behind.
type Outcome = Result<Tally, VmError>;

/// Starts a vCPU's thread.
fn spawn(
    mut vcpu: Vcpu,
    shared: &Arc<Shared>,
    engine: &Engine,
    outcome: Sender<Outcome>,
    left: EventFd,
) -> std::io::Result<()> {
    let (shared, engine) = (Arc::clone(shared), engine.for_cpu());
    let run = move || {
        let _leaving = Leaving { shared: &shared, left };
        let mut tally = Tally { hooks: shared.chain.counts(), ..Tally::default() };
        let result = run_vcpu(&mut vcpu, engine, &shared, &mut tally);
        if let Err(error) = &result {
            shared.control.stop(Stop::Crash { detail: error.to_string() });
        }
        // Fails only where the main thread has given up waiting.
        let _ = outcome.send(result.map(|()| tally));
    };
    std::thread::Builder::new().name("vcpu".to_owned()).spawn(run).map(drop)
}

/// Tells the main thread that a vCPU's thread is about to end, even where that is by a panic of our own.
struct Leaving<'a> {
    shared: &'a Shared,
    left: EventFd,
}

impl Drop for Leaving<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.shared
                .control
                .stop(Stop::Crash { detail: "a vCPU's thread panicked: this is a bug in vector14".to_owned() });
        }
        // The counter can't overflow, so this can't fail.
        let _ = self.left.write(1);
    }
}

fn run_vcpu(
    vcpu: &mut Vcpu,
    engine: crate::engine::EngineCpu,
    shared: &Shared,
    tally: &mut Tally,
) -> Result<(), VmError> {
    let index = vcpu.index() as usize;
    let kicker = &shared.control.cpus()[index].kicker;
    let _kickable = host("the kick signal", kick::register(kicker, vcpu.fd()))?;
    let _member = shared.control.join();
    call("KVM_RUN", run::run(vcpu, engine, shared, tally))
}

/// Waits for the outcomes of all `vcpus`: what they counted, and how many of them did not come out in time.
fn collect(outcomes: &Receiver<Outcome>, vcpus: usize) -> Result<(Vec<Tally>, usize), VmError> {
    let deadline = Instant::now() + GRACE;
    let mut tallies = Vec::with_capacity(vcpus);
    while tallies.len() < vcpus {
        match outcomes.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok(outcome) => tallies.push(outcome?),
            Err(_) => break,
        }
    }
    let missing = vcpus - tallies.len();
    Ok((tallies, missing))
}
