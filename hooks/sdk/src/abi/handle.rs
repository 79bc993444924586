//! The library's side of the guest handle: a [`Guest`] whose methods call the host.

use std::cell::OnceCell;
use std::ffi::c_void;
use std::marker::PhantomData;
use std::time::Duration;

use super::types;
use super::types::{GuestCalls, GuestResult, Text};
use crate::{
    Access, Code, Cr3, Guest, GuestError, GuestKind, Mapping, Pa, Registers, SystemRegisters, Translation, Va, Walk,
};

/// The guest that the host lends for one call.
pub(super) struct Handle<'a> {
    raw: *mut types::Guest,
    calls: &'a GuestCalls,
    /// Fetched at the first use.
    system: OnceCell<SystemRegisters>,
    _lent: PhantomData<&'a mut types::Guest>,
}

// The calls below rest on this: `raw` is a guest of the host's that is valid for `'a` (the promise to `Handle::new`),
// and the host implements each function as the header says. References that are passed are valid for the call.

impl Handle<'_> {
    /// # Safety
    /// `raw` is a guest that the host has lent for at least the lifetime of the handle.
    pub(super) unsafe fn new(raw: *mut types::Guest) -> Self {
        // SAFETY: the caller's promise; the host's table of calls is a constant.
        Self { raw, calls: unsafe { &*(*raw).calls }, system: OnceCell::new(), _lent: PhantomData }
    }

    /// The result of a call that fills in an output argument.
    fn take<R: Default, T: From<R>>(call: impl FnOnce(*mut R) -> GuestResult) -> Result<T, GuestError> {
        let mut result = R::default();
        Result::from(call(&raw mut result))?;
        Ok(result.into())
    }
}

impl Guest for Handle<'_> {
    fn registers(&self) -> &Registers {
        // SAFETY: as above; the registers are valid as long as the guest, and change only through `registers_mut`.
        unsafe { &*(self.calls.registers)(self.raw) }
    }

    fn registers_mut(&mut self) -> &mut Registers {
        // SAFETY: as above; `self` stays mutably borrowed meanwhile.
        unsafe { &mut *(self.calls.registers)(self.raw) }
    }

    fn system_registers(&self) -> &SystemRegisters {
        self.system.get_or_init(|| {
            let mut system = types::SystemRegisters::default();
            // SAFETY: as above.
            unsafe { (self.calls.system_registers)(self.raw, &raw mut system) };
            system.into()
        })
    }

    fn kind(&self) -> GuestKind {
        // SAFETY: as above.
        unsafe { (self.calls.kind)(self.raw) }.into()
    }

    fn address_space(&self) -> Cr3 {
        // SAFETY: as above.
        Cr3(unsafe { (self.calls.address_space)(self.raw) })
    }

    fn use_address_space(&mut self, cr3: Cr3) {
        // SAFETY: as above.
        unsafe { (self.calls.use_address_space)(self.raw, cr3.0) };
    }

    fn walk(&self, address: Va) -> Result<Walk, GuestError> {
        let mut walk = types::Walk::default();
        // SAFETY: as above.
        Result::from(unsafe { (self.calls.walk)(self.raw, address.0, &raw mut walk) })?;
        Ok(Walk::from(&walk))
    }

    fn translate(&self, address: Va) -> Result<Translation, GuestError> {
        // SAFETY: as above.
        Self::take::<types::Translation, _>(|to| unsafe { (self.calls.translate)(self.raw, address.0, to) })
    }

    fn read(&self, address: Va, buffer: &mut [u8]) -> Result<(), GuestError> {
        let (to, length) = (buffer.as_mut_ptr().cast::<c_void>(), buffer.len());
        // SAFETY: as above.
        unsafe { (self.calls.read)(self.raw, address.0, to, length) }.into()
    }

    fn write(&mut self, address: Va, data: &[u8]) -> Result<(), GuestError> {
        let (from, length) = (data.as_ptr().cast::<c_void>(), data.len());
        // SAFETY: as above.
        unsafe { (self.calls.write)(self.raw, address.0, from, length) }.into()
    }

    fn read_physical(&self, address: Pa, buffer: &mut [u8]) -> Result<(), GuestError> {
        let (to, length) = (buffer.as_mut_ptr().cast::<c_void>(), buffer.len());
        // SAFETY: as above.
        unsafe { (self.calls.read_physical)(self.raw, address.0, to, length) }.into()
    }

    fn write_physical(&mut self, address: Pa, data: &[u8]) -> Result<(), GuestError> {
        let (from, length) = (data.as_ptr().cast::<c_void>(), data.len());
        // SAFETY: as above.
        unsafe { (self.calls.write_physical)(self.raw, address.0, from, length) }.into()
    }

    fn compare_exchange(&mut self, address: Pa, current: u64, new: u64) -> Result<bool, GuestError> {
        let mut exchanged = 0;
        let to = &raw mut exchanged;
        // SAFETY: as above.
        Result::from(unsafe { (self.calls.compare_exchange)(self.raw, address.0, current, new, to) })?;
        Ok(exchanged != 0)
    }

    fn allocate_page(&mut self) -> Result<Pa, GuestError> {
        // SAFETY: as above.
        Self::take::<u64, u64>(|to| unsafe { (self.calls.allocate_page)(self.raw, to) }).map(Pa)
    }

    fn free_page(&mut self, page: Pa) -> Result<(), GuestError> {
        // SAFETY: as above.
        unsafe { (self.calls.free_page)(self.raw, page.0) }.into()
    }

    fn map(&mut self, page: Va, frame: Pa, access: Access) -> Result<(), GuestError> {
        // SAFETY: as above.
        unsafe { (self.calls.map)(self.raw, page.0, frame.0, access.bits().into()) }.into()
    }

    fn unmap(&mut self, page: Va) -> Result<Mapping, GuestError> {
        // SAFETY: as above.
        Self::take::<types::Mapping, _>(|to| unsafe { (self.calls.unmap)(self.raw, page.0, to) })
    }

    fn protect(&mut self, page: Va, access: Access) -> Result<Mapping, GuestError> {
        let access = access.bits().into();
        // SAFETY: as above.
        Self::take::<types::Mapping, _>(|to| unsafe { (self.calls.protect)(self.raw, page.0, access, to) })
    }

    fn flush(&mut self) -> Result<(), GuestError> {
        // SAFETY: as above.
        unsafe { (self.calls.flush)(self.raw) }.into()
    }

    fn code(&self) -> Result<Code, GuestError> {
        // SAFETY: as above.
        Self::take::<types::Code, _>(|to| unsafe { (self.calls.code)(self.raw, to) })
    }

    fn elapsed(&self) -> Duration {
        // SAFETY: as above.
        Duration::from_nanos(unsafe { (self.calls.elapsed)(self.raw) })
    }

    fn log(&self, message: &str) {
        // SAFETY: as above.
        unsafe { (self.calls.log)(self.raw, Text::lent(message)) };
    }
}
