//! A tripwire: removes user access from the page whose code has just faulted. This causes another fault when the
//! guest's own handler has finished and returns, before the instruction is retried. The hook can then check what the
//! handler has mapped.

use vector14_hook::{ErrorCode, Fault, Guest, GuestError};

use super::{Held, Leaf, Right};

/// Sets a tripwire for the code that `fault` interrupted. Returns false if that is not possible: in the kernel, or if
/// user mode already has no access to that page.
pub(crate) fn set_tripwire(fault: &Fault, guest: &mut dyn Guest, held: &Held) -> Result<bool, GuestError> {
    if !fault.from_user() {
        return Ok(false);
    }
    let Some(code) = Leaf::at(guest, held, fault.rip.page()) else { return Ok(false) };
    let set = code.exchange(guest, held, &[Right::Tripwire], &[]);
    if set {
        guest.flush()?;
    }
    Ok(set)
}

/// Removes the tripwire, if `fault` was caused by one, and returns whether it was.
pub(crate) fn spring_tripwire(fault: &Fault, guest: &mut dyn Guest, held: &Held) -> bool {
    if !fault.error_code.contains(ErrorCode::PRESENT | ErrorCode::USER) {
        return false;
    }
    let leaf = Leaf::at(guest, held, fault.address.page()).filter(|leaf| leaf.lacks(Right::Tripwire));
    let Some(leaf) = leaf else { return false };
    leaf.exchange(guest, held, &[], &[Right::Tripwire]);
    true
}
