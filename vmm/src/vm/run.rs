//! The path of a fault, in order:
//!
//! ```text
//! KVM_RUN returns -> owned VmExit -> engine recognises its fault -> decode -> chain dispatch -> verdict -> apply -> KVM_RUN
//! ```
//!
//! One vCPU's loop. A fault costs one KVM_RUN and no other ioctl; its path allocates nothing, takes no lock and
//! formats nothing. [`serve`] handles every other exit.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use vector14_hook::paging::Paging;
use vector14_hook::{Pa, PerVcpu, Registers, Verdict};

use crate::intercept::chain::{Chain, GuestAtRest, View};
use crate::intercept::counts::{ExitCounters, Exits, FaultCounters, Faults, VerdictCounters, Verdicts};
use crate::intercept::engine::{ApplyError, Caught, EngineCpu, Lengths, Outcome};
use crate::intercept::guest::FaultedGuest;
use crate::intercept::progress::{LOOP_LIMIT, Progress};
use crate::machine::device::Bus;
use crate::machine::memory::Memory;
use crate::machine::stop::Stop;
use crate::machine::vcpu::{Direction, Io, Vcpu, VmExit};
use crate::machine::vcpus::{Go, Vcpus};

/// State that all vCPUs of a VM share while it runs.
pub(crate) struct Shared {
    pub(crate) memory: Arc<Memory>,
    pub(crate) chain: Chain,
    pub(crate) vcpus: Arc<Vcpus>,
    pub(crate) ports: Bus,
    pub(crate) mmio: Bus,
    /// Number of faults seen so far by all vCPUs; also the next fault's sequence number.
    pub(crate) sequence: AtomicU64,
    pub(crate) tallies: PerVcpu<Tally>,
    /// When the guest became ready to run.
    pub(crate) start: Instant,
    /// Paging mode and page tables at the first fault, for hooks that are being ended.
    pub(crate) paging: OnceLock<Paging>,
}

impl Shared {
    /// Creates a machine that has not run yet.
    pub(crate) fn new(memory: Memory, chain: Chain, vcpus: u32, ports: Bus, mmio: Bus) -> Self {
        Self {
            memory: Arc::new(memory),
            chain,
            vcpus: Arc::new(Vcpus::new(vcpus)),
            ports,
            mmio,
            sequence: AtomicU64::new(0),
            tallies: PerVcpu::default(),
            start: Instant::now(),
            paging: OnceLock::new(),
        }
    }

    /// Sums the counts of all vCPUs so far.
    pub(crate) fn count(&self) -> (Faults, Verdicts, Exits) {
        let (mut faults, mut verdicts, mut exits) = (Faults::default(), Verdicts::default(), Exits::default());
        for tally in self.tallies.iter() {
            faults.merge(&tally.faults.read());
            verdicts.merge(&tally.verdicts.read());
            exits.merge(&tally.exits.read());
        }
        (faults, verdicts, exits)
    }

    /// The guest outside of any fault, for hooks that are being ended.
    pub(crate) fn guest_at_rest(&self) -> GuestAtRest {
        GuestAtRest::new(Arc::clone(&self.memory), self.paging.get().copied().unwrap_or_default(), self.start)
    }
}

/// One vCPU's counters, which any thread may read.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub(crate) faults: FaultCounters,
    pub(crate) verdicts: VerdictCounters,
    pub(crate) exits: ExitCounters,
}

/// One vCPU's per-fault state.
pub(crate) struct VcpuState<'a> {
    tally: &'a Tally,
    /// This vCPU's copy of the hook chain.
    view: View,
    progress: Progress,
    lengths: Lengths,
}

impl<'a> VcpuState<'a> {
    pub(crate) fn new(cpu: &Vcpu, vm: &'a Shared) -> Self {
        Self {
            tally: vm.tallies.at(cpu.index()),
            view: vm.chain.view(),
            progress: Progress::default(),
            lengths: Lengths::default(),
        }
    }
}

/// Runs a vCPU until its VM stops.
///
/// # Errors
/// KVM_RUN fails for a reason that is not the guest's.
pub(crate) fn run(cpu: &mut Vcpu, engine: &mut dyn EngineCpu, vm: &Shared) -> Result<(), kvm_ioctls::Error> {
    let mut state = VcpuState::new(cpu, vm);
    while vm.vcpus.safe_point(cpu.index(), || cpu.regs().rip) == Go::On {
        let exit = cpu.enter()?;
        if let Some(stop) = answer(cpu, engine, &exit, vm, &mut state) {
            vm.vcpus.stop(stop);
        }
    }
    Ok(())
}

/// Handles one return from KVM_RUN: intercepts a fault, serves anything else. `Some` ends the VM.
pub(crate) fn answer(
    cpu: &mut Vcpu,
    engine: &mut dyn EngineCpu,
    exit: &VmExit,
    vm: &Shared,
    state: &mut VcpuState<'_>,
) -> Option<Stop> {
    let exits = &state.tally.exits;
    exits.total.add(1);
    vm.chain.refresh(&mut state.view);
    match engine.recognise(exit, cpu, &vm.memory) {
        Some(Ok(caught)) => intercept(cpu, engine, &caught, vm, state),
        Some(Err(stray)) => {
            exits.other.add(1);
            Some(Stop::Crash { detail: stray.to_string() })
        }
        None => {
            let stop = serve(cpu, engine, exit, vm, exits);
            stop.or_else(|| engine.inspect(cpu, &vm.memory, &vm.vcpus, *exit == VmExit::Interrupted))
        }
    }
}

/// Handles one fault: decode, dispatch, apply.
fn intercept(
    cpu: &mut Vcpu,
    engine: &mut dyn EngineCpu,
    caught: &Caught,
    vm: &Shared,
    state: &mut VcpuState<'_>,
) -> Option<Stop> {
    let VcpuState { tally, view, progress, lengths } = state;
    tally.exits.fault.add(1);
    let fault = caught.decode(vm.sequence.fetch_add(1, Ordering::Relaxed), cpu.index());
    tally.faults.add(&fault);

    let context = caught.context();
    vm.paging.get_or_init(|| context.paging);
    let mut guest = FaultedGuest::new(&vm.memory, context, vm.start);
    let mut decision = vm.chain.dispatch(view, &fault, &mut guest);
    if progress.is_loop(&context.registers, &decision.verdict) {
        // Resolve makes no progress: reinject the fault into the guest's own handler instead.
        vm.chain.report_loop(view, &decision, &fault, LOOP_LIMIT);
        decision.verdict = Verdict::Reinject;
    }

    let registers = match guest.finish() {
        Ok(registers) => registers,
        Err(error) => {
            // Nothing has been applied, and nothing will be: the VM ends here.
            tally.verdicts.stop.add(1);
            return Some(Stop::Crash { detail: error.to_string() });
        }
    };
    if let Err(error) = apply(cpu, engine, vm, lengths, caught, &decision.verdict, &registers) {
        // A verdict that can't be applied is its hook's failure. The fallback can't fail: neither Reinject with
        // unchanged registers nor Stop changes guest memory.
        decision.verdict = vm.chain.reject(view, &decision, &fault, error.cause(), &error);
        let applied = apply(cpu, engine, vm, lengths, caught, &decision.verdict, &context.registers);
        debug_assert!(applied.is_ok(), "{applied:?}");
    }
    tally.verdicts.add(&decision.verdict);
    match &decision.verdict {
        Verdict::Stop(reason) => {
            Some(Stop::Hook { hook: view.name(&decision).to_owned(), detail: reason.clone().into_owned() })
        }
        Verdict::Pass
        | Verdict::Reinject
        | Verdict::ReinjectAs { .. }
        | Verdict::Resolve
        | Verdict::Skip
        | Verdict::Raise(_) => None,
    }
}

/// Applies `verdict`; `registers` are the interrupted context's, as the hooks left them.
fn apply(
    cpu: &mut Vcpu,
    engine: &mut dyn EngineCpu,
    vm: &Shared,
    lengths: &mut Lengths,
    caught: &Caught,
    verdict: &Verdict,
    registers: &Registers,
) -> Result<(), ApplyError> {
    if matches!(verdict, Verdict::Stop(_)) {
        // The vCPU does not run again.
        return Ok(());
    }
    let outcome = Outcome::of(verdict, registers, caught, lengths, &vm.memory)?;
    engine.apply(cpu, &vm.memory, caught, &outcome)
}

/// Serves every exit that is not a fault.
fn serve(cpu: &mut Vcpu, engine: &mut dyn EngineCpu, exit: &VmExit, vm: &Shared, exits: &ExitCounters) -> Option<Stop> {
    match exit {
        VmExit::Io(io) => {
            exits.io.add(1);
            serve_ports(cpu, *io, &vm.ports)
        }
        VmExit::Mmio { address, direction: Direction::In } => {
            exits.mmio.add(1);
            vm.mmio.read(*address, cpu.mmio_data());
            None
        }
        VmExit::Mmio { address, direction: Direction::Out } => {
            exits.mmio.add(1);
            let faults = vm.sequence.load(Ordering::Relaxed);
            match engine.write(cpu, &vm.memory, &vm.vcpus, Pa(*address), faults) {
                Some(written) => written.err(),
                None => vm.mmio.write(*address, cpu.mmio_data()),
            }
        }
        VmExit::Hlt => {
            exits.hlt.add(1);
            None
        }
        VmExit::Interrupted => {
            exits.kick.add(1);
            None
        }
        VmExit::Shutdown => {
            exits.other.add(1);
            Some(Stop::Crash { detail: format!("triple fault on vcpu {} at rip {:#x}", cpu.index(), cpu.regs().rip) })
        }
        VmExit::Failure(detail) => {
            exits.other.add(1);
            match engine.give_way(cpu, &vm.vcpus, detail) {
                Some(retried) => retried.err(),
                None => Some(Stop::Crash { detail: format!("vcpu {}: {detail}", cpu.index()) }),
            }
        }
        VmExit::Exception { vector, .. } => {
            exits.other.add(1);
            Some(Stop::Crash { detail: format!("vcpu {}: unexpected KVM exit at exception {vector}", cpu.index()) })
        }
        VmExit::Other(name) => {
            exits.other.add(1);
            Some(Stop::Crash { detail: format!("vcpu {}: unexpected KVM exit: {name}", cpu.index()) })
        }
    }
}

fn serve_ports(cpu: &mut Vcpu, io: Io, ports: &Bus) -> Option<Stop> {
    let accesses = cpu.io_data().chunks_exact_mut(usize::from(io.size.max(1)));
    match io.direction {
        Direction::In => {
            accesses.for_each(|data| ports.read(u64::from(io.port), data));
            None
        }
        Direction::Out => accesses.filter_map(|data| ports.write(u64::from(io.port), data)).last(),
    }
}
