//! A guest for tests, without KVM: real page tables in plain memory, and a pool that can run out.
//!
//! ```
//! use vector14_hook::mock::{Call, Method, MockGuest, Outcome, When, write_fault};
//! use vector14_hook::{Access, ErrorCode, Fault, Guest, GuestError, Hook, Result, Va, Verdict};
//!
//! /// Maps a page wherever none is present.
//! struct Fill;
//!
//! impl Hook for Fill {
//!     fn on_fault(&self, fault: &Fault, guest: &mut dyn Guest) -> Result {
//!         let frame = guest.allocate_page()?;
//!         guest.map(fault.address.page(), frame, Access::WRITE | Access::USER)?;
//!         Ok(Verdict::Resolve)
//!     }
//! }
//!
//! let mut guest = MockGuest::new(1);
//! let fault = write_fault(0x40_0123);
//! assert_eq!(guest.take(&Fill, &fault), Outcome::Retried);
//! guest.write(fault.address, b"there is a page now").unwrap();
//!
//! // The pool had one page.
//! let outcome = guest.take(&Fill, &write_fault(0x50_0000));
//! assert_eq!(outcome, Outcome::LeftOut("failed: the pool of host-owned pages is used up (1 pages)".to_owned()));
//! assert_eq!(guest.take_calls().last(), Some(&Call::AllocatePage));
//!
//! // Any call can be made to fail.
//! let mut guest = MockGuest::new(1);
//! guest.fail(Method::Map, When::Nth(1), GuestError::AlreadyMapped(Va(0x40_0000)));
//! assert!(matches!(guest.take(&Fill, &fault), Outcome::LeftOut(_)));
//! ```
//!
//! # Layout
//! - this file: a guest, and how a test sets it up
//! - `handle`: the [`Guest`](crate::Guest) that hooks get; `memory`: the memory behind it
//! - `call`: the [`Call`]s that hooks made, and the [`Method`]s that are to fail
//! - `outcome`: [`MockGuest::take`], the whole path of a fault
//! - `samples`: sample faults and options

mod call;
mod handle;
mod memory;
mod outcome;
mod samples;

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use self::call::Calls;
pub use self::call::{Call, Method, When};
use self::memory::Memory;
pub use self::outcome::Outcome;
pub use self::samples::{options, read_fault, write_fault};
use crate::paging::{CR0_PE, CR0_PG, CR0_WP, CR4_PAE, EFER_LMA, EFER_LME, EFER_NXE, Paging, Tables};
use crate::{Access, Code, Cr3, GuestError, GuestKind, PAGE_SIZE, Pa, Registers, SystemRegisters, Va};

/// The top-level table of the first address space.
const ROOT: Pa = Pa(0x1000);

/// One vCPU's view of a mock guest. Clones act as other vCPUs of the same VM: they share its memory and its list of
/// calls.
#[derive(Clone)]
pub struct MockGuest {
    shared: Arc<Shared>,
    paging: Paging,
    registers: Registers,
    system: SystemRegisters,
    /// Operand and address size of the code, in bits.
    bits: u32,
    kind: GuestKind,
    elapsed: Duration,
    /// One bit per vector whose gate is missing.
    missing_gates: u32,
}

struct Shared {
    memory: Memory,
    mapped: AtomicI64,
    flushes: AtomicU64,
    calls: Mutex<Calls>,
}

impl MockGuest {
    /// A guest with 4 levels of page tables, nothing mapped, and a pool of `pool_pages` pages.
    #[must_use]
    pub fn new(pool_pages: u64) -> Self {
        let memory = Memory::new(pool_pages);
        // Reserve page 0, so that no frame has address 0, and the top-level table.
        for _ in 0..=ROOT.0 / PAGE_SIZE {
            let _ = memory.ram.take();
        }
        let shared = Shared { memory, mapped: AtomicI64::new(0), flushes: AtomicU64::new(0), calls: Mutex::default() };
        let system = SystemRegisters {
            cr0: CR0_PG | CR0_WP | CR0_PE,
            cr4: CR4_PAE,
            efer: EFER_NXE | EFER_LMA | EFER_LME,
            ..SystemRegisters::default()
        };
        Self {
            shared: Arc::new(shared),
            paging: Paging::in_force(Cr3(ROOT.0), &system),
            registers: Registers::default(),
            system,
            bits: 64,
            kind: GuestKind::Other,
            elapsed: Duration::ZERO,
            missing_gates: 0,
        }
    }

    /// A Linux guest: [`Guest::map`](crate::Guest::map) creates no page tables in it. [`MockGuest::load`] creates them,
    /// as the kernel would.
    #[must_use]
    pub fn linux(pool_pages: u64) -> Self {
        Self { kind: GuestKind::Linux, ..Self::new(pool_pages) }
    }

    /// Writes bytes, such as code, to `address` in the current address space. Pages that are not mapped are first
    /// mapped to RAM, with the rights `access`.
    ///
    /// # Panics
    /// If there is no RAM left, or no page can be mapped there.
    pub fn load(&mut self, address: Va, bytes: &[u8], access: Access) {
        let last = address.offset((bytes.len() as u64).saturating_sub(1)).page();
        for page in (address.page().0..=last.0).step_by(4096).map(Va) {
            if self.paging.translate(page, self.load_entry()).is_err() {
                let frame = self.shared.memory.ram.take().expect("a page of RAM");
                self.paging
                    .map(self.tables(), GuestKind::Other, page, frame, access)
                    .expect("a page that can be mapped");
            }
        }
        self.write_virtual(address, bytes).expect("pages that were just mapped");
    }

    /// Creates an empty address space. Use it with [`Guest::use_address_space`](crate::Guest::use_address_space), or as
    /// the CR3 of a fault.
    ///
    /// # Panics
    /// If there is no page left for its table.
    #[must_use]
    pub fn new_address_space(&mut self) -> Cr3 {
        Cr3(self.shared.memory.tables.take().expect("a page for a table").0)
    }

    /// Sets the size of the guest's code segment: 16, 32 or 64 bits.
    pub fn set_bits(&mut self, bits: u32) {
        self.bits = bits;
    }

    /// Sets the system registers that hooks see.
    pub fn set_system_registers(&mut self, system: SystemRegisters) {
        self.system = system;
    }

    /// Sets the time that the VM has been running.
    pub fn set_elapsed(&mut self, elapsed: Duration) {
        self.elapsed = elapsed;
    }

    /// Removes the guest's gate for an exception, so that it can no longer be raised.
    pub fn remove_gate(&mut self, vector: u8) {
        self.missing_gates |= 1 << (vector & 31);
    }

    /// Makes calls of a method fail with `error`.
    pub fn fail(&mut self, method: Method, when: When, error: GuestError) {
        self.calls().fail(method, when, error);
    }

    /// Makes calls of a method succeed again.
    pub fn succeed(&mut self, method: Method) {
        self.calls().succeed(method);
    }

    /// The calls that hooks, and the test itself, have made since the last `take_calls`.
    #[must_use]
    pub fn take_calls(&self) -> Vec<Call> {
        self.calls().take()
    }

    /// Number of pool pages that hooks have allocated and not freed.
    #[must_use]
    pub fn pages_taken(&self) -> usize {
        self.shared.memory.pool.count_taken()
    }

    /// Number of pages mapped by `map` minus those unmapped by `unmap`. Negative if hooks have unmapped the guest's own
    /// pages.
    #[must_use]
    pub fn pages_mapped(&self) -> i64 {
        self.shared.mapped.load(Ordering::Acquire)
    }

    /// Number of flushes.
    #[must_use]
    pub fn flushes(&self) -> u64 {
        self.shared.flushes.load(Ordering::Acquire)
    }

    fn calls(&self) -> MutexGuard<'_, Calls> {
        self.shared.calls.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note(&self, call: Call) -> Result<(), GuestError> {
        self.calls().note(call)
    }

    fn tables(&self) -> &Memory {
        &self.shared.memory
    }

    fn load_entry(&self) -> impl Fn(Pa) -> Result<u64, GuestError> + '_ {
        |slot| self.tables().load(slot)
    }

    fn count_mapped(&self, pages: i64) {
        self.shared.mapped.fetch_add(pages, Ordering::AcqRel);
    }

    fn count_flush(&self) {
        self.shared.flushes.fetch_add(1, Ordering::AcqRel);
    }

    fn read_virtual(&self, address: Va, buffer: &mut [u8]) -> Result<(), GuestError> {
        self.each_page(address, buffer.len(), |at, part| self.shared.memory.read(at, &mut buffer[part]))
    }

    fn write_virtual(&self, address: Va, data: &[u8]) -> Result<(), GuestError> {
        self.each_page(address, data.len(), |at, part| self.shared.memory.write(at, &data[part]))
    }

    /// Calls `access` for each page of `length` bytes of virtual memory, with the physical address and the range of
    /// bytes.
    fn each_page(
        &self,
        address: Va,
        length: usize,
        mut access: impl FnMut(Pa, std::ops::Range<usize>) -> Result<(), GuestError>,
    ) -> Result<(), GuestError> {
        let mut done = 0;
        while done < length {
            let at = address.offset(done as u64);
            let in_page = usize::try_from(PAGE_SIZE - at.page_offset()).unwrap_or(usize::MAX);
            let end = length.min(done + in_page);
            access(self.paging.translate(at, self.load_entry())?.address, done..end)?;
            done = end;
        }
        Ok(())
    }

    /// The bytes at `rip`, up to the first that is not mapped.
    fn code_at(&self, rip: Va) -> Result<Code, GuestError> {
        let mut code = Code { rip, bits: self.bits, ..Code::default() };
        for (byte, at) in code.bytes.iter_mut().zip(rip.0..) {
            if self.read_virtual(Va(at), std::slice::from_mut(byte)).is_err() {
                break;
            }
            code.count += 1;
        }
        if code.count == 0 { Err(GuestError::UnreadableCode(rip)) } else { Ok(code) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Guest;

    #[test]
    fn address_spaces_share_memory_and_not_mappings() {
        let mut guest = MockGuest::new(1);
        let (first, second) = (guest.address_space(), guest.new_address_space());
        let frame = guest.allocate_page().unwrap();
        guest.map(Va(0x1000), frame, Access::WRITE).unwrap();
        guest.write(Va(0x1000), b"one").unwrap();
        guest.use_address_space(second);
        assert_eq!(guest.translate(Va(0x1000)), Err(GuestError::NotMapped(Va(0x1000))));
        guest.map(Va(0x5000), frame, Access::empty()).unwrap();
        let mut back = [0; 3];
        guest.read(Va(0x5000), &mut back).unwrap();
        assert_eq!((&back, guest.address_space() == first), (b"one", false));
    }

    #[test]
    fn a_linux_guest_has_pages_mapped_only_where_it_has_tables() {
        let mut guest = MockGuest::linux(1);
        let (frame, page) = (guest.allocate_page().unwrap(), Va(0x40_1000));
        assert_eq!(guest.map(page, frame, Access::WRITE), Err(GuestError::NoTable(page)));
        guest.load(Va(0x40_0000), b"populated", Access::USER);
        guest.map(page, frame, Access::WRITE).unwrap();
        let leaf = guest.walk(page).unwrap().entries().last().unwrap().entry;
        assert_eq!(leaf & crate::paging::NO_STRUCT_PAGE, crate::paging::NO_STRUCT_PAGE);
        assert_eq!(guest.map(Va(0x60_0000), frame, Access::WRITE), Err(GuestError::NoTable(Va(0x60_0000))));
    }

    #[test]
    fn every_call_is_kept_and_the_nth_fails() {
        let mut guest = MockGuest::new(1);
        guest.fail(Method::Flush, When::Nth(2), GuestError::Flush(5));
        let flushed = [guest.flush(), guest.flush(), guest.flush()];
        assert_eq!(flushed, [Ok(()), Err(GuestError::Flush(5)), Ok(())]);
        guest.log("that was all");
        let mut expected = vec![Call::Flush; 3];
        expected.push(Call::Log("that was all".to_owned()));
        assert_eq!((guest.take_calls(), guest.take_calls(), guest.flushes()), (expected, vec![], 2));
    }

    #[test]
    fn loaded_bytes_can_cross_into_a_page_that_is_not_there_yet() {
        let mut guest = MockGuest::new(0);
        guest.load(Va(0x1ffe), &[1, 2, 3, 4], Access::USER);
        let mut back = [0; 4];
        guest.read(Va(0x1ffe), &mut back).unwrap();
        assert_eq!(back, [1, 2, 3, 4]);
        assert_eq!(guest.translate(Va(0x2000)).unwrap().access, Access::USER);
    }
}
