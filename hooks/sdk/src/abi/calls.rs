//! The host's side of the guest handle: a table of functions over any [`Guest`](crate::Guest).

use std::ffi::c_void;
use std::marker::PhantomData;

use super::convert::access;
use super::text::say;
use super::types::{
    Code, Guest, GuestCalls, GuestKind, GuestResult, Mapping, Sink, SystemRegisters, Text, Translation, Walk,
};
use crate::{Cr3, GuestError, Pa, Registers, Va};

/// A guest that is lent to the other side for one call.
pub(super) struct Lent<'a, 'g> {
    raw: Guest,
    /// `raw` points to this reference.
    _guest: PhantomData<&'a mut &'g mut dyn crate::Guest>,
}

impl<'a, 'g> Lent<'a, 'g> {
    pub(super) fn new(guest: &'a mut &'g mut dyn crate::Guest) -> Self {
        Self { raw: Guest { calls: &raw const CALLS, context: (&raw mut *guest).cast() }, _guest: PhantomData }
    }

    pub(super) fn as_raw(&mut self) -> *mut Guest {
        &raw mut self.raw
    }
}

static CALLS: GuestCalls = GuestCalls {
    registers,
    system_registers,
    kind,
    address_space,
    use_address_space,
    walk,
    translate,
    read,
    write,
    read_physical,
    write_physical,
    compare_exchange,
    allocate_page,
    free_page,
    map,
    unmap,
    protect,
    flush,
    code,
    instruction,
    elapsed,
    log,
    explain,
};

// All functions below rest on this, called "the contract":
// 1. `guest` came from a `Lent` that is still alive: a hook does not keep it after its call returns.
// 2. So `context` points to a `&mut dyn Guest` that nothing else uses meanwhile. Calls that only read borrow it as
//    shared, so that registers which a hook has borrowed stay valid.
// 3. Pointers to results, and buffers with their lengths, belong to the hook and are valid for the call.

/// Borrows the guest for reading.
///
/// # Safety
/// The contract.
unsafe fn shared<'a>(guest: *mut Guest) -> &'a dyn crate::Guest {
    // SAFETY: the contract.
    unsafe { &**(*guest).context.cast::<&mut dyn crate::Guest>() }
}

/// Borrows the guest for changes.
///
/// # Safety
/// The contract.
unsafe fn exclusive<'a>(guest: *mut Guest) -> &'a mut dyn crate::Guest {
    // SAFETY: the contract.
    unsafe { &mut **(*guest).context.cast::<&mut dyn crate::Guest>() }
}

/// Writes a result to `to`, if there is one.
///
/// # Safety
/// `to` is valid for a write.
unsafe fn give<T, R: From<T>>(result: Result<T, GuestError>, to: *mut R) -> GuestResult {
    // SAFETY: the caller's promise.
    result.map(|value| unsafe { to.write(value.into()) }).into()
}

unsafe extern "C" fn registers(guest: *mut Guest) -> *mut Registers {
    // SAFETY: the contract.
    unsafe { exclusive(guest) }.registers_mut()
}

unsafe extern "C" fn system_registers(guest: *mut Guest, registers: *mut SystemRegisters) {
    // SAFETY: the contract.
    unsafe { registers.write((*shared(guest).system_registers()).into()) }
}

unsafe extern "C" fn kind(guest: *mut Guest) -> GuestKind {
    // SAFETY: the contract.
    unsafe { shared(guest) }.kind().into()
}

unsafe extern "C" fn address_space(guest: *mut Guest) -> u64 {
    // SAFETY: the contract.
    unsafe { shared(guest) }.address_space().0
}

unsafe extern "C" fn use_address_space(guest: *mut Guest, cr3: u64) {
    // SAFETY: the contract.
    unsafe { exclusive(guest) }.use_address_space(Cr3(cr3));
}

unsafe extern "C" fn walk(guest: *mut Guest, address: u64, walk: *mut Walk) -> GuestResult {
    // SAFETY: the contract.
    unsafe { give(shared(guest).walk(Va(address)).as_ref().map_err(|error| *error), walk) }
}

unsafe extern "C" fn translate(guest: *mut Guest, address: u64, translation: *mut Translation) -> GuestResult {
    // SAFETY: the contract.
    unsafe { give(shared(guest).translate(Va(address)), translation) }
}

/// A hook's buffer as a slice to fill.
///
/// # Safety
/// The contract.
unsafe fn buffer<'a>(start: *mut c_void, length: usize) -> &'a mut [u8] {
    // SAFETY: the contract; an empty buffer may be null.
    if length == 0 { &mut [] } else { unsafe { std::slice::from_raw_parts_mut(start.cast(), length) } }
}

/// A hook's data as a slice.
///
/// # Safety
/// The contract.
unsafe fn data<'a>(start: *const c_void, length: usize) -> &'a [u8] {
    // SAFETY: the contract; empty data may be null.
    if length == 0 { &[] } else { unsafe { std::slice::from_raw_parts(start.cast(), length) } }
}

unsafe extern "C" fn read(guest: *mut Guest, address: u64, to: *mut c_void, length: usize) -> GuestResult {
    // SAFETY: the contract.
    unsafe { shared(guest).read(Va(address), buffer(to, length)) }.into()
}

unsafe extern "C" fn write(guest: *mut Guest, address: u64, from: *const c_void, length: usize) -> GuestResult {
    // SAFETY: the contract.
    unsafe { exclusive(guest).write(Va(address), data(from, length)) }.into()
}

unsafe extern "C" fn read_physical(guest: *mut Guest, address: u64, to: *mut c_void, length: usize) -> GuestResult {
    // SAFETY: the contract.
    unsafe { shared(guest).read_physical(Pa(address), buffer(to, length)) }.into()
}

unsafe extern "C" fn write_physical(
    guest: *mut Guest,
    address: u64,
    from: *const c_void,
    length: usize,
) -> GuestResult {
    // SAFETY: the contract.
    unsafe { exclusive(guest).write_physical(Pa(address), data(from, length)) }.into()
}

unsafe extern "C" fn compare_exchange(
    guest: *mut Guest,
    address: u64,
    current: u64,
    new: u64,
    exchanged: *mut u8,
) -> GuestResult {
    // SAFETY: the contract.
    unsafe { give(exclusive(guest).compare_exchange(Pa(address), current, new), exchanged) }
}

unsafe extern "C" fn allocate_page(guest: *mut Guest, page: *mut u64) -> GuestResult {
    // SAFETY: the contract.
    unsafe { give(exclusive(guest).allocate_page().map(|page| page.0), page) }
}

unsafe extern "C" fn free_page(guest: *mut Guest, page: u64) -> GuestResult {
    // SAFETY: the contract.
    unsafe { exclusive(guest) }.free_page(Pa(page)).into()
}

unsafe extern "C" fn map(guest: *mut Guest, page: u64, frame: u64, rights: u32) -> GuestResult {
    // SAFETY: the contract.
    unsafe { exclusive(guest) }.map(Va(page), Pa(frame), access(rights)).into()
}

unsafe extern "C" fn unmap(guest: *mut Guest, page: u64, mapping: *mut Mapping) -> GuestResult {
    // SAFETY: the contract.
    unsafe { give(exclusive(guest).unmap(Va(page)), mapping) }
}

unsafe extern "C" fn protect(guest: *mut Guest, page: u64, rights: u32, mapping: *mut Mapping) -> GuestResult {
    // SAFETY: the contract.
    unsafe { give(exclusive(guest).protect(Va(page), access(rights)), mapping) }
}

unsafe extern "C" fn flush(guest: *mut Guest) -> GuestResult {
    // SAFETY: the contract.
    unsafe { exclusive(guest) }.flush().into()
}

unsafe extern "C" fn code(guest: *mut Guest, code: *mut Code) -> GuestResult {
    // SAFETY: the contract.
    unsafe { give(shared(guest).code(), code) }
}

unsafe extern "C" fn instruction(guest: *mut Guest, text: *mut Sink, length: *mut u32) -> GuestResult {
    // SAFETY: the contract.
    let instruction = unsafe { shared(guest) }.instruction();
    if let Ok(instruction) = &instruction {
        // SAFETY: the contract.
        unsafe { say(text, instruction) };
    }
    let bytes = instruction.map(|instruction| u32::try_from(instruction.len()).unwrap_or(u32::MAX));
    // SAFETY: the contract.
    unsafe { give(bytes, length) }
}

unsafe extern "C" fn elapsed(guest: *mut Guest) -> u64 {
    // SAFETY: the contract.
    u64::try_from(unsafe { shared(guest) }.elapsed().as_nanos()).unwrap_or(u64::MAX)
}

unsafe extern "C" fn log(guest: *mut Guest, message: Text) {
    // SAFETY: the contract.
    unsafe { shared(guest).log(&message.to_string_lossy()) };
}

unsafe extern "C" fn explain(_guest: *mut Guest, result: GuestResult, text: *mut Sink) {
    match Result::<(), GuestError>::from(result) {
        // SAFETY: the contract.
        Ok(()) => unsafe { say(text, &"ok") },
        // SAFETY: the contract.
        Err(error) => unsafe { say(text, &error) },
    }
}
