//! Engine `exception-bitmap`: bit 14 of the exception bitmap that AMD-V and VT-x have, where KVM lets user space set it.
//! No stock KVM does; `kvm/README.md` has the change.
//!
//! The exit comes before the fault is delivered, in any mode of the CPU: RIP is at the instruction, CR2 in the synced
//! registers is the fault's, and the guest has noticed nothing. Resolve is to enter again: KVM then gives the guest the
//! CR2 back that it had. Reinject is to queue the exception, through the synced events. No byte of guest memory changes.
//!
//! # Layout
//! - `offer`: what KVM has to offer for this
//! - `delivery`: what becomes of an event whose delivery faulted
//! - `apply`: a verdict's outcome, made into machine state

mod apply;
mod delivery;
pub(crate) mod offer;

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use kvm_bindings::KVM_CAP_X86_TRIPLE_FAULT_EVENT;
use vector14_hook::{ErrorCode, Registers, Va};

pub(super) use self::apply::apply;
use self::offer::KVM_CAP_X86_EXCEPTION_EXIT;
use super::caught::{At, Caught};
use super::registers::{self, RFLAGS_RF};
use crate::config::ErrorCodeFilter;
use crate::guest::Context;
use crate::paging;
use crate::segment::CodeSegment;
use crate::sys::lock;
use crate::sys::mapped::MappedVm;
use crate::vcpu::{Vcpu, VmExit};

/// #PF.
const PAGE_FAULT: u8 = 14;

/// The engine's state of one VM.
pub(crate) struct Bitmap {
    machine: MappedVm,
    filter: ErrorCodeFilter,
    on: AtomicBool,
    since: Instant,
    notes: Mutex<Vec<String>>,
}

impl Bitmap {
    /// Has all faults of `machine` that pass `filter` leave the guest, from its first instruction on.
    pub(super) fn new(machine: MappedVm, filter: ErrorCodeFilter) -> Result<Self, kvm_ioctls::Error> {
        machine.enable_cap(KVM_CAP_X86_TRIPLE_FAULT_EVENT, [1, 0])?;
        let bitmap =
            Self { machine, filter, on: AtomicBool::new(true), since: Instant::now(), notes: Mutex::default() };
        bitmap.set(true)?;
        Ok(bitmap)
    }

    /// When faults began to be intercepted.
    pub(super) fn since(&self) -> Instant {
        self.since
    }

    /// Has faults leave the guest, or not. It is in force at each vCPU's next entry at the latest.
    pub(super) fn want(&self, on: bool) {
        self.on.store(on, Ordering::Relaxed);
        if let Err(error) = self.set(on) {
            let note = format!("interception could not be switched {}: {error}", if on { "on" } else { "off" });
            tracing::warn!("{note}");
            lock(&self.notes).push(note);
        }
    }

    /// Whether faults leave the guest.
    pub(super) fn is_on(&self) -> bool {
        self.on.load(Ordering::Relaxed)
    }

    fn set(&self, on: bool) -> Result<(), kvm_ioctls::Error> {
        let vectors = if on { 1 << PAGE_FAULT } else { 0 };
        let filter = u64::from(self.filter.mask.bits()) | u64::from(self.filter.value.bits()) << 32;
        self.machine.enable_cap(KVM_CAP_X86_EXCEPTION_EXIT, [vectors, if on { filter } else { 0 }])
    }

    /// Sentences for the summary.
    pub(super) fn take_notes(&self) -> Vec<String> {
        std::mem::take(&mut lock(&self.notes))
    }
}

/// Whether `exit` is a #PF on its way to the guest.
pub(super) fn recognise(exit: &VmExit, cpu: &mut Vcpu) -> Option<Caught> {
    let VmExit::Exception { vector: PAGE_FAULT, error_code } = *exit else { return None };
    let delivering = delivery::in_progress(cpu.events());
    let registers = registers::from_kvm(cpu.regs());
    let sregs = cpu.sregs();
    Some(Caught {
        address: Va(sregs.cr2),
        error_code: ErrorCode::from_bits_retain(error_code),
        cs: sregs.cs.selector,
        ss: sregs.ss.selector,
        context: Context {
            // As the CPU pushes it for a fault.
            registers: Registers { rflags: registers.rflags | RFLAGS_RF, ..registers },
            system: registers::system(sregs),
            paging: paging::in_force(sregs),
            code: CodeSegment::loaded(sregs),
        },
        at: At::Instruction { delivering },
    })
}
