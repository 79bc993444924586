//! A guest for tests, without KVM: real page tables in plain memory, and a pool with a bottom.
//!
//! ```
//! use vector14_hook::mock::{MockGuest, write_fault};
//! use vector14_hook::{Access, Guest, Va};
//!
//! let mut guest = MockGuest::new(8);
//! let fault = write_fault(0x40_0000);
//! let frame = guest.allocate_page().unwrap();
//! guest.map(fault.address.page(), frame, Access::WRITE | Access::USER).unwrap();
//! assert_eq!(guest.translate(Va(0x40_0123)).unwrap().address, frame.offset(0x123));
//! ```

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde_json::{Map, Value};

use crate::paging::{Mode, Paging, Tables};
use crate::{
    Access, Code, Cr3, ErrorCode, Fault, Guest, GuestError, Mapping, Options, PAGE_SIZE, Pa, Registers,
    SystemRegisters, Translation, Va, Walk,
};

/// RAM with the top-level table in it; from 0 on, so that small physical addresses mean something.
const RAM_PAGES: u64 = 64;
const ROOT: Pa = Pa(0x1000);
/// Where page tables come from, so that the pool is the hooks' own.
const TABLES_START: Pa = Pa(1 << 30);
const TABLES_PAGES: u64 = 256;
const POOL_START: Pa = Pa(1 << 32);

/// One vCPU's view of a guest; clones share its memory, as the vCPUs of one VM do.
#[derive(Clone)]
pub struct MockGuest {
    memory: Arc<Memory>,
    paging: Paging,
    registers: Registers,
    system: SystemRegisters,
}

struct Memory {
    ram: Pages,
    tables: Pages,
    pool: Pages,
    mapped: AtomicU64,
    flushes: AtomicU64,
    map_error: Mutex<Option<GuestError>>,
}

/// Consecutive pages of guest-physical memory.
struct Pages {
    start: Pa,
    words: Box<[AtomicU64]>,
    taken: Box<[AtomicBool]>,
}

impl MockGuest {
    /// A guest with nothing mapped and `pool_pages` pages to take.
    #[must_use]
    pub fn new(pool_pages: u64) -> Self {
        let memory = Memory {
            ram: Pages::new(Pa(0), RAM_PAGES),
            tables: Pages::new(TABLES_START, TABLES_PAGES),
            pool: Pages::new(POOL_START, pool_pages),
            mapped: AtomicU64::new(0),
            flushes: AtomicU64::new(0),
            map_error: Mutex::new(None),
        };
        let paging = Paging { cr3: Cr3(ROOT.0), mode: Mode::Long { levels: 4 }, no_execute: true };
        Self { memory: Arc::new(memory), paging, registers: Registers::default(), system: SystemRegisters::default() }
    }

    /// Lets every call of [`Guest::map`] fail with `error`, or none.
    pub fn fail_to_map(&mut self, error: Option<GuestError>) {
        *lock(&self.memory.map_error) = error;
    }

    /// How many pages of the pool hooks have.
    #[must_use]
    pub fn pages_taken(&self) -> usize {
        self.memory.pool.taken.iter().filter(|taken| taken.load(Ordering::Acquire)).count()
    }

    /// How many pages [`Guest::map`] has mapped that [`Guest::unmap`] has not unmapped.
    #[must_use]
    pub fn pages_mapped(&self) -> u64 {
        self.memory.mapped.load(Ordering::Acquire)
    }

    /// How often translations were flushed.
    #[must_use]
    pub fn flushes(&self) -> u64 {
        self.memory.flushes.load(Ordering::Acquire)
    }

    /// Goes through `length` bytes of virtual memory page by page: physical address, and which part of the whole it is.
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
            access(self.translate(at)?.address, done..end)?;
            done = end;
        }
        Ok(())
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Pages {
    fn new(start: Pa, count: u64) -> Self {
        let words = (0..count * PAGE_SIZE / 8).map(|_| AtomicU64::new(0)).collect();
        Self { start, words, taken: (0..count).map(|_| AtomicBool::new(false)).collect() }
    }

    fn word(&self, address: Pa) -> Option<&AtomicU64> {
        let offset = address.0.checked_sub(self.start.0).filter(|offset| offset % 8 == 0)?;
        self.words.get(usize::try_from(offset / 8).ok()?)
    }

    fn take(&self) -> Result<Pa, GuestError> {
        let free = self.taken.iter().position(|taken| !taken.swap(true, Ordering::AcqRel));
        let index = free.ok_or(GuestError::PoolExhausted { pages: self.taken.len() as u64 })?;
        Ok(self.start.offset(index as u64 * PAGE_SIZE))
    }

    fn give_back(&self, page: Pa) -> Result<(), GuestError> {
        let not_taken = GuestError::NotTaken(page);
        let offset = page.0.checked_sub(self.start.0).filter(|offset| offset % PAGE_SIZE == 0).ok_or(not_taken)?;
        let index = usize::try_from(offset / PAGE_SIZE).map_err(|_| not_taken)?;
        let taken = self.taken.get(index).filter(|taken| taken.load(Ordering::Acquire)).ok_or(not_taken)?;
        (0..PAGE_SIZE)
            .step_by(8)
            .filter_map(|at| self.word(page.offset(at)))
            .for_each(|word| word.store(0, Ordering::Release));
        taken.store(false, Ordering::Release);
        Ok(())
    }
}

impl Memory {
    /// The word that holds the byte at `address`, and the byte's place in it.
    fn byte(&self, address: Pa) -> Result<(&AtomicU64, u64), GuestError> {
        Ok((self.word(Pa(address.0 & !7))?, (address.0 & 7) * 8))
    }

    fn word(&self, address: Pa) -> Result<&AtomicU64, GuestError> {
        let parts = [&self.ram, &self.tables, &self.pool];
        parts.into_iter().find_map(|part| part.word(address)).ok_or(GuestError::OutsideMemory(address))
    }
}

impl Tables for Memory {
    fn load(&self, slot: Pa) -> Result<u64, GuestError> {
        Ok(self.word(slot)?.load(Ordering::Acquire))
    }

    fn replace(&self, slot: Pa, current: u64, new: u64) -> Result<bool, GuestError> {
        Ok(self.word(slot)?.compare_exchange(current, new, Ordering::AcqRel, Ordering::Acquire).is_ok())
    }

    fn allocate_table(&self) -> Result<Pa, GuestError> {
        self.tables.take()
    }

    fn free_table(&self, table: Pa) {
        let _ = self.tables.give_back(table);
    }
}

impl Guest for MockGuest {
    fn registers(&self) -> &Registers {
        &self.registers
    }

    fn registers_mut(&mut self) -> &mut Registers {
        &mut self.registers
    }

    fn system_registers(&self) -> &SystemRegisters {
        &self.system
    }

    fn address_space(&self) -> Cr3 {
        self.paging.cr3
    }

    fn use_address_space(&mut self, cr3: Cr3) {
        self.paging.cr3 = cr3;
    }

    fn walk(&self, address: Va) -> Result<Walk, GuestError> {
        self.paging.walk(address, |slot| self.memory.load(slot))
    }

    fn translate(&self, address: Va) -> Result<Translation, GuestError> {
        self.paging.translate(address, |slot| self.memory.load(slot))
    }

    fn read(&self, address: Va, buffer: &mut [u8]) -> Result<(), GuestError> {
        self.each_page(address, buffer.len(), |at, part| self.read_physical(at, &mut buffer[part]))
    }

    fn write(&mut self, address: Va, data: &[u8]) -> Result<(), GuestError> {
        let mut other = self.clone();
        self.each_page(address, data.len(), |at, part| other.write_physical(at, &data[part]))
    }

    fn read_physical(&self, address: Pa, buffer: &mut [u8]) -> Result<(), GuestError> {
        for (byte, at) in buffer.iter_mut().zip(address.0..) {
            let (word, shift) = self.memory.byte(Pa(at))?;
            *byte = (word.load(Ordering::Acquire) >> shift).to_le_bytes()[0];
        }
        Ok(())
    }

    fn write_physical(&mut self, address: Pa, data: &[u8]) -> Result<(), GuestError> {
        for (byte, at) in data.iter().zip(address.0..) {
            let (word, shift) = self.memory.byte(Pa(at))?;
            let set = |old: u64| Some((old & !(0xff << shift)) | u64::from(*byte) << shift);
            let _ = word.fetch_update(Ordering::AcqRel, Ordering::Acquire, set);
        }
        Ok(())
    }

    fn compare_exchange(&mut self, address: Pa, current: u64, new: u64) -> Result<bool, GuestError> {
        self.memory.replace(address, current, new)
    }

    fn allocate_page(&mut self) -> Result<Pa, GuestError> {
        self.memory.pool.take()
    }

    fn free_page(&mut self, page: Pa) -> Result<(), GuestError> {
        self.memory.pool.give_back(page)
    }

    fn map(&mut self, page: Va, frame: Pa, access: Access) -> Result<(), GuestError> {
        if let Some(error) = *lock(&self.memory.map_error) {
            return Err(error);
        }
        self.paging.map(&*self.memory, page, frame, access)?;
        self.memory.mapped.fetch_add(1, Ordering::AcqRel);
        Ok(())
    }

    fn unmap(&mut self, page: Va) -> Result<Mapping, GuestError> {
        let mapping = self.paging.unmap(&*self.memory, page)?;
        self.memory.mapped.fetch_sub(1, Ordering::AcqRel);
        Ok(mapping)
    }

    fn protect(&mut self, page: Va, access: Access) -> Result<Mapping, GuestError> {
        self.paging.protect(&*self.memory, page, access)
    }

    fn flush(&mut self) -> Result<(), GuestError> {
        self.memory.flushes.fetch_add(1, Ordering::AcqRel);
        Ok(())
    }

    fn code(&self) -> Result<Code, GuestError> {
        let rip = Va(self.registers.rip);
        let mut code = Code { rip, bits: 64, ..Code::default() };
        for (byte, at) in code.bytes.iter_mut().zip(rip.0..) {
            if self.read(Va(at), std::slice::from_mut(byte)).is_err() {
                break;
            }
            code.count += 1;
        }
        if code.count == 0 { Err(GuestError::UnreadableCode(rip)) } else { Ok(code) }
    }

    fn elapsed(&self) -> Duration {
        Duration::ZERO
    }

    fn log(&self, message: &str) {
        println!("{message}");
    }
}

/// A write from user mode to an unmapped page.
#[must_use]
pub fn write_fault(address: u64) -> Fault {
    Fault {
        sequence: 0,
        vcpu: 0,
        address: Va(address),
        error_code: ErrorCode::USER | ErrorCode::WRITE,
        cs: 0x33,
        rip: Va(0x40_1000),
        rsp: Va(0x7fff_0000),
        ss: 0x2b,
        rflags: 0x246,
        cr3: Cr3(ROOT.0),
    }
}

/// Options as a config file in `/etc/v14` would give them; `value` is a table.
///
/// # Panics
/// `value` is something else.
#[must_use]
pub fn options(value: Value) -> Options {
    let values: Map<String, Value> = serde_json::from_value(value).expect("a table of options");
    Options::new(values, "/etc/v14")
}
