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
    let page = fault.rip.page();
    let Some(code) = Leaf::at(guest, page) else { return Ok(false) };
    if !held.note(fault.cr3, page) || !code.exchange(guest, &[Right::Tripwire], &[])? {
        return Ok(false);
    }
    guest.flush()?;
    Ok(true)
}

/// Takes it away, where `fault` is one that has gone off.
pub(crate) fn spring_tripwire(fault: &Fault, guest: &mut dyn Guest, held: &Held) -> Result<bool, GuestError> {
    if !fault.error_code.contains(ErrorCode::PRESENT | ErrorCode::USER) {
        return Ok(false);
    }
    let page = fault.address.page();
    let Some(leaf) = Leaf::at(guest, page).filter(|leaf| leaf.lacks(Right::Tripwire)) else { return Ok(false) };
    leaf.exchange(guest, &[], &[Right::Tripwire])?;
    held.forget(fault.cr3, page);
    Ok(true)
}
