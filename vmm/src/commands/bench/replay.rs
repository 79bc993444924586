//! The path of a fault without a guest: one recorded exit, answered repeatedly.
//!
//! Except for KVM_RUN, this is the path that a running VM executes: recognise, decode, dispatch, verdict, apply. One
//! exit executes the same instructions each time, so they can be counted (`tests/instructions.rs`). The vCPU is never
//! entered: KVM only provides its shared page. `recording` contains the exit and the guest memory that belongs to it.

mod recording;

use std::path::Path;

pub use self::recording::Exit;
use self::recording::Recording;
use crate::commands::config::{Config, EngineChoice, VmConfig};
use crate::intercept::chain::{Chain, NamedHook};
use crate::intercept::engine::{self, ArmWhen, EngineCpu, ExceptionBitmapCpu, Room};
use crate::machine::device::Bus;
use crate::machine::vcpu::{Vcpu, VmExit};
use crate::sys::mapped::MappedVm;
use crate::vm::run::{self, Shared, VcpuState};
use crate::vm::summary::{Stop, Verdicts};
use crate::vm::{VmError, call, kvm};

/// Answers `exit` with `hooks` on a vCPU of `device`: once to warm the caches, then `count` times in `answer_fault`.
/// Returns the verdicts: `count` + 1 of them if every answer gave one.
///
/// # Errors
/// KVM is not available, or there is no memory.
pub fn replay(exit: Exit, hooks: Vec<NamedHook>, count: u32, device: &Path) -> Result<Verdicts, VmError> {
    let kvm = kvm::open(device)?;
    let memory = recording::memory()?;
    let machine = memory.machine(call("KVM_CREATE_VM", kvm.create_vm())?)?;
    let vm = Shared::new(memory, Chain::new(hooks), 1, Bus::default(), Bus::default());
    for mut cpu in kvm::create_vcpus(&kvm, &machine, &VmConfig::default())? {
        let mut state = VcpuState::new(&cpu, &vm);
        let mut engine: Box<dyn EngineCpu> = match exit {
            Exit::Stub => armed(&mut cpu, &machine, &vm, &mut state)?,
            Exit::Exception => Box::new(ExceptionBitmapCpu),
        };
        let recording = Recording::of(exit, &vm.memory)?;
        recording.restore(&mut cpu, &vm.memory)?;
        run::answer(&mut cpu, &mut *engine, &recording.exit, &vm, &mut state);
        for _ in 0..count {
            recording.restore(&mut cpu, &vm.memory)?;
            answer_fault(&mut cpu, &mut *engine, &recording.exit, &vm, &mut state);
        }
    }
    Ok(vm.count().1)
}

/// Engine `gate` with its stub in place, armed as in any guest: at the first exit that is not a fault.
fn armed(
    cpu: &mut Vcpu,
    machine: &MappedVm,
    vm: &Shared,
    state: &mut VcpuState<'_>,
) -> Result<Box<dyn EngineCpu>, VmError> {
    let mut config = Config::tiny("");
    config.intercept.engine = EngineChoice::Gate;
    let mut engine =
        engine::select(&config.intercept, config.vm.nested, machine, Room::default(), ArmWhen::GateIsPresent)?
            .for_cpu(cpu);
    *cpu.sregs_mut() = recording::system_registers();
    run::answer(cpu, &mut *engine, &VmExit::Interrupted, vm, state);
    Ok(engine)
}

/// Answers one fault. This is a separate function because profilers tell functions by their symbols.
#[inline(never)]
fn answer_fault(
    cpu: &mut Vcpu,
    engine: &mut dyn EngineCpu,
    exit: &VmExit,
    vm: &Shared,
    state: &mut VcpuState<'_>,
) -> Option<Stop> {
    run::answer(cpu, engine, exit, vm, state)
}
