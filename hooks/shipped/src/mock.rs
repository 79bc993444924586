//! A guest for the tests: page tables that are a map, frames that are arrays, and a pool with a bottom.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};

use serde_json::Value;
use vector14_hook::{
    Access, Cr3, ErrorCode, Fault, Guest, GuestError, Options, PAGE_SIZE, Pa, Registers, SystemRegisters, Translation,
    Va,
};

const FIRST_FRAME: u64 = 1 << 32;

/// One vCPU's view of a guest; clones share its memory, as the vCPUs of one VM do.
#[derive(Clone)]
pub(crate) struct MockGuest {
    memory: Arc<Mutex<Memory>>,
    registers: Registers,
    system: SystemRegisters,
}

struct Memory {
    pool_pages: u64,
    frames: HashMap<Pa, [u8; 4096]>,
    mapped: HashMap<Va, (Pa, Access)>,
    map_error: Option<GuestError>,
}

impl MockGuest {
    /// A guest with nothing mapped and `pool_pages` pages to take.
    pub(crate) fn new(pool_pages: u64) -> Self {
        let memory = Memory { pool_pages, frames: HashMap::new(), mapped: HashMap::new(), map_error: None };
        Self {
            memory: Arc::new(Mutex::new(memory)),
            registers: Registers::default(),
            system: SystemRegisters::default(),
        }
    }

    /// Lets every call of [`Guest::map`] fail with `error`, or none.
    pub(crate) fn fail_to_map(&mut self, error: Option<GuestError>) {
        self.memory().map_error = error;
    }

    /// How many pages were taken from the pool.
    pub(crate) fn pages_taken(&self) -> usize {
        self.memory().frames.len()
    }

    /// How many pages are mapped.
    pub(crate) fn pages_mapped(&self) -> usize {
        self.memory().mapped.len()
    }

    fn memory(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().unwrap()
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

    fn translate(&self, address: Va) -> Result<Translation, GuestError> {
        let (frame, access) = *self.memory().mapped.get(&address.page()).ok_or(GuestError::NotMapped(address))?;
        Ok(Translation { address: frame.offset(address.page_offset()), page_size: PAGE_SIZE, access })
    }

    fn read(&self, address: Va, buffer: &mut [u8]) -> Result<(), GuestError> {
        self.read_physical(self.translate(address)?.address, buffer)
    }

    fn write(&mut self, address: Va, data: &[u8]) -> Result<(), GuestError> {
        self.write_physical(self.translate(address)?.address, data)
    }

    fn read_physical(&self, address: Pa, buffer: &mut [u8]) -> Result<(), GuestError> {
        let memory = self.memory();
        let frame = memory.frames.get(&address.page()).ok_or(GuestError::OutsideMemory(address))?;
        let start = usize::try_from(address.page_offset()).unwrap();
        buffer.copy_from_slice(&frame[start..start + buffer.len()]);
        Ok(())
    }

    fn write_physical(&mut self, address: Pa, data: &[u8]) -> Result<(), GuestError> {
        let mut memory = self.memory();
        let frame = memory.frames.get_mut(&address.page()).ok_or(GuestError::OutsideMemory(address))?;
        let start = usize::try_from(address.page_offset()).unwrap();
        frame[start..start + data.len()].copy_from_slice(data);
        Ok(())
    }

    fn allocate_page(&mut self) -> Result<Pa, GuestError> {
        let mut memory = self.memory();
        let taken = memory.frames.len() as u64;
        if taken == memory.pool_pages {
            return Err(GuestError::PoolExhausted { pages: taken });
        }
        let frame = Pa(FIRST_FRAME + taken * PAGE_SIZE);
        memory.frames.insert(frame, [0; 4096]);
        Ok(frame)
    }

    fn map(&mut self, page: Va, frame: Pa, access: Access) -> Result<(), GuestError> {
        let mut memory = self.memory();
        if let Some(error) = memory.map_error {
            return Err(error);
        }
        if memory.mapped.contains_key(&page) {
            return Err(GuestError::AlreadyMapped(page));
        }
        memory.mapped.insert(page, (frame, access));
        Ok(())
    }

    fn log(&self, message: &str) {
        println!("{message}");
    }
}

/// A write from user mode to an unmapped page.
pub(crate) fn fault(sequence: u64, address: u64) -> Fault {
    Fault {
        sequence,
        vcpu: 0,
        address: Va(address),
        error_code: ErrorCode::USER | ErrorCode::WRITE,
        cs: 0x33,
        rip: Va(0x40_1000),
        rsp: Va(0x7fff_0000),
        ss: 0x2b,
        rflags: 0x246,
        cr3: Cr3(0x10_0000),
    }
}

/// Options as a config file in `/etc/v14` would give them.
pub(crate) fn options(value: Value) -> Options {
    let Value::Object(values) = value else { panic!("{value} is no table") };
    Options::new(values, "/etc/v14")
}
