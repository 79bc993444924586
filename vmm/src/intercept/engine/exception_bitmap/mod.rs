//! Engine `exception-bitmap`: bit 14 of the exception bitmap that AMD-V and VT-x have, where KVM lets user space set it.
//! No stock KVM does; `kvm/README.md` has the change.
//!
//! The fault exits before it is delivered, in any CPU mode: RIP is at the instruction, CR2 in the synced registers is
//! the fault's, and the guest has noticed nothing. Resolve enters the guest again; KVM then restores the CR2 that the
//! guest had. Reinject queues the exception through the synced events. No byte of guest memory changes.
//!
//! # Layout
//! - `offer`: what this engine needs from KVM
//! - `delivery`: what becomes of an event whose delivery faulted
//! - `apply`: applies a verdict's outcome

mod apply;
mod delivery;
pub(crate) mod offer;

use std::sync::Mutex;
use std::time::Instant;

use kvm_bindings::KVM_CAP_X86_TRIPLE_FAULT_EVENT;
use vector14_hook::{ErrorCode, Registers, Va};

use self::apply::apply;
use self::offer::KVM_CAP_X86_EXCEPTION_EXIT;
use super::caught::{Caught, NoFrame, PAGE_FAULT};
use super::interface::{Engine, EngineCpu};
use super::outcome::{ApplyError, Outcome};
use super::registers::{self, RFLAGS_RF};
use crate::intercept::config::{EngineChoice, ErrorCodeFilter};
use crate::intercept::guest::Context;
use crate::machine::memory::Memory;
use crate::machine::paging;
use crate::machine::segment::CodeSegment;
use crate::machine::vcpu::{Vcpu, VmExit};
use crate::sys::lock;
use crate::sys::mapped::MappedVm;

/// The engine of one VM.
pub(super) struct ExceptionBitmap {
    machine: MappedVm,
    filter: ErrorCodeFilter,
    on: Mutex<bool>,
    since: Instant,
    notes: Mutex<Vec<String>>,
}

impl ExceptionBitmap {
    /// Makes all faults of `machine` that pass `filter` exit, from the guest's first instruction on.
    pub(super) fn new(machine: MappedVm, filter: ErrorCodeFilter) -> Result<Self, kvm_ioctls::Error> {
        machine.enable_cap(KVM_CAP_X86_TRIPLE_FAULT_EVENT, [1, 0])?;
        let bitmap = Self { machine, filter, on: Mutex::new(true), since: Instant::now(), notes: Mutex::default() };
        bitmap.set(true)?;
        Ok(bitmap)
    }

    fn set(&self, on: bool) -> Result<(), kvm_ioctls::Error> {
        let vectors = if on { 1 << PAGE_FAULT } else { 0 };
        let filter = u64::from(self.filter.mask.bits()) | u64::from(self.filter.value.bits()) << 32;
        self.machine.enable_cap(KVM_CAP_X86_EXCEPTION_EXIT, [vectors, if on { filter } else { 0 }])
    }
}

impl Engine for ExceptionBitmap {
    fn name(&self) -> &'static str {
        EngineChoice::ExceptionBitmap.name()
    }

    fn for_cpu(&self, cpu: &mut Vcpu) -> Box<dyn EngineCpu> {
        cpu.sync_events();
        Box::new(ExceptionBitmapCpu)
    }

    /// Sets or clears the bit, which takes effect at each vCPU's next entry at the latest.
    fn want(&self, wanted: bool) {
        let mut on = lock(&self.on);
        if *on == wanted {
            return;
        }
        match self.set(wanted) {
            Ok(()) => *on = wanted,
            Err(error) => {
                let which = if wanted { "on" } else { "off" };
                let note = format!("interception could not be switched {which}: {error}");
                tracing::warn!("{note}");
                lock(&self.notes).push(note);
            }
        }
    }

    fn is_wanted(&self) -> bool {
        *lock(&self.on)
    }

    fn is_in_place(&self) -> bool {
        *lock(&self.on)
    }

    fn armed_at(&self) -> Option<Instant> {
        Some(self.since)
    }

    fn take_notes(&self, _: Instant) -> Vec<String> {
        std::mem::take(&mut lock(&self.notes))
    }
}

/// One vCPU's side of the engine.
pub(crate) struct ExceptionBitmapCpu;

impl EngineCpu for ExceptionBitmapCpu {
    fn recognise(&mut self, exit: &VmExit, cpu: &mut Vcpu, _: &Memory) -> Option<Result<Caught, NoFrame>> {
        let VmExit::Exception { vector: PAGE_FAULT, error_code } = *exit else { return None };
        let delivering = delivery::in_progress(cpu.events());
        let registers = registers::from_kvm(cpu.regs());
        let sregs = cpu.sregs();
        Some(Ok(Caught {
            address: Va(sregs.cr2),
            error_code: ErrorCode::from_bits_retain(error_code),
            cs: sregs.cs.selector,
            ss: sregs.ss.selector,
            context: Context {
                // RFLAGS as the CPU pushes it for a fault.
                registers: Registers { rflags: registers.rflags | RFLAGS_RF, ..registers },
                system: registers::system(sregs),
                paging: paging::in_force(sregs),
                code: CodeSegment::loaded(sregs),
            },
            delivering,
        }))
    }

    fn apply(&mut self, cpu: &mut Vcpu, _: &Memory, caught: &Caught, outcome: &Outcome) -> Result<(), ApplyError> {
        apply(cpu, caught, outcome)
    }
}
