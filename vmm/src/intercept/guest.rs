//! The guest handle that hooks get: one vCPU's registers, the VM's memory, and the page tables that connect them.

use std::time::{Duration, Instant};

use vector14_hook::paging::{Paging, Tables};
use vector14_hook::{
    Access, Code, Cr3, Guest, GuestError, GuestKind, Mapping, Pa, Registers, SystemRegisters, Translation, Va, Walk,
};

use crate::machine::memory::{Memory, Owner};
use crate::machine::paging::{read_virtual, write_virtual};
use crate::machine::segment::CodeSegment;

/// The context that a fault interrupted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Context {
    /// Its registers at the fault.
    pub registers: Registers,
    /// System registers, which an exception does not change.
    pub system: SystemRegisters,
    /// The page tables in force.
    pub paging: Paging,
    /// The code segment that it runs in.
    pub code: CodeSegment,
}

/// The guest as one fault sees it.
pub struct FaultedGuest<'a> {
    memory: &'a Memory,
    paging: Paging,
    code: CodeSegment,
    registers: Registers,
    /// The registers as they were at the fault.
    interrupted: Registers,
    system: SystemRegisters,
    /// When the VM started to run.
    start: Instant,
    /// Name of the hook that is called, for log lines; `owner` is the owner of the pages that it takes.
    hook: &'a str,
    owner: Owner,
    /// The page tables of the fault, which each hook starts with.
    cr3: Cr3,
    /// Whether vCPUs may still use a stale translation that a hook has changed.
    stale: bool,
}

impl<'a> FaultedGuest<'a> {
    /// The guest at a fault that interrupted `context`, in a VM that has run since `start`.
    #[must_use]
    pub fn new(memory: &'a Memory, context: &Context, start: Instant) -> Self {
        let Context { registers, system, paging, code } = *context;
        let (hook, owner, cr3) = ("", Owner::GUEST, paging.cr3);
        let interrupted = registers;
        Self { memory, paging, code, registers, interrupted, system, start, hook, owner, cr3, stale: false }
    }

    /// Attributes pages and log lines to `hook` from here on, and restores the fault's address space.
    #[inline]
    pub(crate) fn enter_hook(&mut self, hook: &'a str, owner: Owner) {
        (self.hook, self.owner, self.paging.cr3) = (hook, owner, self.cr3);
    }

    /// The same as `enter_hook`, for a hook that is being ended.
    pub(crate) fn enter_hook_at_end(&mut self, owner: Owner) {
        (self.hook, self.owner, self.paging.cr3) = ("", owner, self.cr3);
    }

    /// Undoes the hooks' changes to the registers.
    pub(crate) fn restore_registers(&mut self) {
        self.registers = self.interrupted;
    }

    /// Returns the registers as the hooks left them. The hooks' changes of page tables have taken effect when this
    /// returns.
    ///
    /// # Errors
    /// [`GuestError::Flush`].
    pub fn finish(mut self) -> Result<Registers, GuestError> {
        if self.stale {
            self.flush()?;
        }
        Ok(self.registers)
    }

    fn load(&self) -> impl Fn(Pa) -> Result<u64, GuestError> + '_ {
        |slot| self.memory.load(slot)
    }
}

impl Guest for FaultedGuest<'_> {
    fn registers(&self) -> &Registers {
        &self.registers
    }

    fn registers_mut(&mut self) -> &mut Registers {
        &mut self.registers
    }

    fn system_registers(&self) -> &SystemRegisters {
        &self.system
    }

    fn kind(&self) -> GuestKind {
        self.memory.kind()
    }

    fn address_space(&self) -> Cr3 {
        self.paging.cr3
    }

    fn use_address_space(&mut self, cr3: Cr3) {
        self.paging.cr3 = cr3;
    }

    fn walk(&self, address: Va) -> Result<Walk, GuestError> {
        self.paging.walk(address, self.load())
    }

    fn translate(&self, address: Va) -> Result<Translation, GuestError> {
        self.paging.translate(address, self.load())
    }

    fn read(&self, address: Va, buffer: &mut [u8]) -> Result<(), GuestError> {
        read_virtual(self.memory, &self.paging, address, buffer)
    }

    fn write(&mut self, address: Va, data: &[u8]) -> Result<(), GuestError> {
        write_virtual(self.memory, &self.paging, address, data)
    }

    fn read_physical(&self, address: Pa, buffer: &mut [u8]) -> Result<(), GuestError> {
        self.memory.read(address, buffer)
    }

    fn write_physical(&mut self, address: Pa, data: &[u8]) -> Result<(), GuestError> {
        self.memory.write(address, data)
    }

    fn compare_exchange(&mut self, address: Pa, current: u64, new: u64) -> Result<bool, GuestError> {
        self.memory.replace(address, current, new)
    }

    fn allocate_page(&mut self) -> Result<Pa, GuestError> {
        self.memory.allocate_page(self.owner)
    }

    fn free_page(&mut self, page: Pa) -> Result<(), GuestError> {
        self.memory.free_page(page, self.owner)
    }

    fn map(&mut self, page: Va, frame: Pa, access: Access) -> Result<(), GuestError> {
        let place = self.paging.map(self.memory, self.memory.kind(), page, frame, access)?;
        self.memory.note_mapped(frame, place);
        Ok(())
    }

    fn unmap(&mut self, page: Va) -> Result<Mapping, GuestError> {
        let mapping = self.paging.unmap(self.memory, page)?;
        self.stale = true;
        Ok(mapping)
    }

    fn protect(&mut self, page: Va, access: Access) -> Result<Mapping, GuestError> {
        let mapping = self.paging.protect(self.memory, page, access)?;
        self.stale = true;
        Ok(mapping)
    }

    fn flush(&mut self) -> Result<(), GuestError> {
        self.memory.flush()?;
        self.stale = false;
        Ok(())
    }

    fn code(&self) -> Result<Code, GuestError> {
        let rip = self.registers.rip;
        self.code.fetch(rip, self.memory, &self.paging).ok_or(GuestError::UnreadableCode(Va(rip)))
    }

    fn elapsed(&self) -> Duration {
        self.start.elapsed()
    }

    fn log(&self, message: &str) {
        tracing::info!(hook = self.hook, "{message}");
    }
}

#[cfg(test)]
mod tests {
    use vector14_hook::Cr3;
    use vector14_hook::paging::Mode;

    use super::*;
    use crate::machine::paging::read_words;

    fn guest(memory: &Memory) -> FaultedGuest<'_> {
        let paging = Paging { cr3: Cr3(0x1000), mode: Mode::Long { levels: 4 }, no_execute: true };
        FaultedGuest::new(memory, &Context { paging, ..Context::default() }, Instant::now())
    }

    #[test]
    fn a_mapped_page_reads_back_through_the_tables_that_were_made_for_it() {
        let memory = Memory::new(2 << 20).unwrap();
        let mut guest = guest(&memory);
        let frame = guest.allocate_page().unwrap();
        assert_eq!(guest.translate(Va(0x40_0000)), Err(GuestError::NotMapped(Va(0x40_0000))));
        guest.map(Va(0x40_0000), frame, Access::WRITE | Access::USER).unwrap();
        let expect = Translation { address: frame.offset(8), page_size: 4096, access: Access::WRITE | Access::USER };
        assert_eq!(guest.translate(Va(0x40_0008)), Ok(expect));
        guest.write(Va(0x40_0ffd), b"abc").unwrap();
        assert_eq!(guest.write(Va(0x40_0ffd), b"abcd"), Err(GuestError::NotMapped(Va(0x40_1000))));
        let mut back = [0; 3];
        guest.read_physical(frame.offset(0xffd), &mut back).unwrap();
        assert_eq!(&back, b"abc");
        assert_eq!(guest.map(Va(0x40_0000), frame, Access::USER), Err(GuestError::AlreadyMapped(Va(0x40_0000))));
        assert_eq!(guest.map(Va(0x40_0001), frame, Access::USER), Err(GuestError::Unaligned(0x40_0001)));
    }

    #[test]
    fn a_32_bit_guest_is_given_pages_that_its_entries_can_name() {
        let memory = Memory::new(2 << 20).unwrap();
        let paging = Paging { cr3: Cr3(0x1000), mode: Mode::Bits32 { large_pages: true }, no_execute: false };
        let mut guest = FaultedGuest::new(&memory, &Context { paging, ..Context::default() }, Instant::now());
        guest.enter_hook("test", Owner::hook(0));
        for page in [Va(0x40_1000), Va(0x40_2000), Va(0xc000_0000)] {
            let frame = guest.allocate_page().unwrap();
            guest.map(page, frame, Access::WRITE).unwrap();
            guest.write(page, b"here").unwrap();
            let mut back = [0; 4];
            guest.read_physical(frame, &mut back).unwrap();
            assert_eq!(&back, b"here");
            assert_eq!(guest.map(page, frame, Access::WRITE), Err(GuestError::AlreadyMapped(page)));
        }
        let kept = guest.translate(Va(0x40_1000)).unwrap().address;
        assert_eq!(guest.unmap(Va(0x40_2000)).unwrap().access, Access::WRITE | Access::EXECUTE);
        assert_eq!(guest.translate(Va(0x40_2000)), Err(GuestError::NotMapped(Va(0x40_2000))));
        assert_eq!(guest.translate(Va(0x40_1000)).unwrap().address, kept, "its neighbour stays");
        memory.withdraw(Owner::hook(0)).unwrap();
        assert_eq!(guest.translate(Va(0x40_1000)), Err(GuestError::NotMapped(Va(0x40_1000))));
    }

    #[test]
    fn vcpus_that_map_the_same_page_at_once_agree_on_one_frame() {
        let memory = Memory::new(2 << 20).unwrap();
        let winners: usize = std::thread::scope(|scope| {
            let map = || {
                let mut guest = guest(&memory);
                let frame = guest.allocate_page().unwrap();
                (0..64u64).filter(|page| guest.map(Va(page << 12), frame, Access::WRITE).is_ok()).count()
            };
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(map)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).sum()
        });
        assert_eq!(winners, 64);
    }

    #[test]
    fn words_are_read_up_to_the_first_page_that_is_not_there() {
        let memory = Memory::new(2 << 20).unwrap();
        let mut guest = guest(&memory);
        let frame = guest.allocate_page().unwrap();
        guest.map(Va(0x40_0000), frame, Access::EXECUTE).unwrap();
        let code: Vec<u8> = (1..=32).collect();
        guest.write(Va(0x40_0fe0), &code).unwrap();
        for (start, readable) in [(0, 15), (3, 15), (8, 15), (17, 15), (18, 14), (31, 1)] {
            let mut buffer = [0; 15];
            let count = read_words(&memory, &guest.paging, Va(0x40_0fe0 + start as u64), &mut buffer);
            assert_eq!((count, &buffer[..count]), (readable, &code[start..start + readable]));
        }
        assert_eq!(read_words(&memory, &guest.paging, Va(0x50_0000), &mut [0; 8]), 0);
    }

    #[test]
    fn a_table_outside_of_memory_is_an_error() {
        let memory = Memory::new(2 << 20).unwrap();
        memory.write(Pa(0x1000), &0x7000_0003u64.to_le_bytes()).unwrap();
        let mut guest = guest(&memory);
        let outside = Err(GuestError::OutsideMemory(Pa(0x7000_0000)));
        assert_eq!(guest.map(Va(0), Pa(0x2000), Access::WRITE), outside);
        assert_eq!(guest.translate(Va(0)).map(drop), outside);
    }
}
