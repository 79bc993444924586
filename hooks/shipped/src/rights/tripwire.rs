//! A tripwire: user mode is kept off the page whose code has just faulted, so that there is another fault when the guest's own
//! handler has done its work and returns, before the instruction is tried again. What the handler has mapped can then be
//! looked at.

use vector14_hook::{ErrorCode, Fault, Guest, GuestError};

use super::{Held, Leaf, Right};

/// Sets one for the code that `fault` interrupted. False where there can be none: in the kernel, or where user mode is kept off
/// that page already.
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

/// Takes it away, where `fault` is one that has gone off.
pub(crate) fn spring_tripwire(fault: &Fault, guest: &mut dyn Guest, held: &Held) -> bool {
    if !fault.error_code.contains(ErrorCode::PRESENT | ErrorCode::USER) {
        return false;
    }
    let leaf = Leaf::at(guest, held, fault.address.page()).filter(|leaf| leaf.lacks(Right::Tripwire));
    let Some(leaf) = leaf else { return false };
    leaf.exchange(guest, held, &[], &[Right::Tripwire]);
    true
}
