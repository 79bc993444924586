//! `error-codes`: every combination of the error-code bits P, W, U, I and RSVD that can be made.
//!
//! P alone is missing: it needs a supervisor read that is forbidden, and only SMAP forbids one.

use vector14_guest_abi::window::{ERROR_CODES, PAGE_SIZE, RESERVED_BIT};

use super::{I, P, RSVD, W, fault, reserved};
use crate::fault::Action;
use crate::paging::{NO_EXECUTE, PRESENT, USER, WRITABLE, patterned};
use crate::probe::Ring;
use crate::window::open;
use crate::{cpu, quirks, say};

use core::sync::atomic::Ordering::Relaxed;

/// The access that faults.
#[derive(Clone, Copy)]
enum Access {
    Load,
    Store,
    Exchange,
    Fetch,
}

const ABSENT: u64 = 0;
const READ_ONLY: u64 = PRESENT | USER;
const SUPERVISOR: u64 = PRESENT | WRITABLE;
const NX: u64 = PRESENT | USER | WRITABLE | NO_EXECUTE;
const BAD: u64 = PRESENT | USER | WRITABLE | RESERVED_BIT;

/// PTE bits, access, and error code without U.
const CASES: &[(&[Ring], u64, Access, u64)] = &[
    (BOTH, ABSENT, Access::Load, 0),
    (BOTH, ABSENT, Access::Store, W),
    (BOTH, ABSENT, Access::Exchange, W),
    (BOTH, ABSENT, Access::Fetch, I),
    (BOTH, READ_ONLY, Access::Store, P | W),
    (BOTH, READ_ONLY, Access::Exchange, P | W),
    (BOTH, NX, Access::Fetch, P | I),
    (BOTH, BAD, Access::Load, P | RSVD),
    (BOTH, BAD, Access::Store, P | W | RSVD),
    (BOTH, BAD, Access::Fetch, P | I | RSVD),
    (RING3, SUPERVISOR, Access::Load, P),
    (RING3, SUPERVISOR, Access::Store, P | W),
    (RING3, SUPERVISOR, Access::Fetch, P | I),
];

const BOTH: &[Ring] = &[Ring::Three, Ring::Zero];
const RING3: &[Ring] = &[Ring::Three];

pub(super) fn run() {
    reserved::require_reserved_bit();
    let ptes = open(&ERROR_CODES, CASES.len() as u64, Action::Resume);
    let addresses = (ERROR_CODES.start..).step_by(PAGE_SIZE as usize);
    for ((&(rings, flags, access, error), pte), address) in CASES.iter().zip(ptes).zip(addresses) {
        if flags != ABSENT {
            pte.store(patterned(address, 1) | flags, Relaxed);
        }
        for &ring in rings {
            let exchanged = matches!(access, Access::Exchange) && flags == ABSENT;
            let error = if exchanged { quirks::exchange_error(error) } else { error };
            cause(ring, address, access, error | ring.user_bit());
        }
    }
}

/// Makes the access, checks that it faults, and prints what the handler saw.
fn cause(ring: Ring, address: u64, access: Access, error: u64) {
    fault(address, error, || match access {
        Access::Load => drop(ring.load(address)),
        Access::Store => ring.store(address, 0),
        Access::Exchange => drop(ring.exchange(address, 0)),
        Access::Fetch => drop(ring.fetch(address)),
    });
    let last = &cpu::this().last;
    let (address, error, rip) = (&last.address, &last.error, &last.rip);
    let [address, error, rip] = [address, error, rip].map(|field| field.load(Relaxed));
    say!("address={address:#x} error={error:#x} rip={rip:#x}");
}
