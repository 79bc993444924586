//! The mock guest as hooks see it: each call is recorded, fails if a test asked for that, and otherwise acts on the
//! mock's memory.

use std::time::Duration;

use super::{Call, MockGuest};
use crate::paging::Tables;
use crate::{
    Access, Code, Cr3, Guest, GuestError, GuestKind, Mapping, Pa, Registers, SystemRegisters, Translation, Va, Walk,
};

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

    fn kind(&self) -> GuestKind {
        self.kind
    }

    fn address_space(&self) -> Cr3 {
        self.paging.cr3
    }

    fn use_address_space(&mut self, cr3: Cr3) {
        // Never fails: `Method` has no such call.
        let _ = self.note(Call::UseAddressSpace(cr3));
        self.paging.cr3 = cr3;
    }

    fn walk(&self, address: Va) -> Result<Walk, GuestError> {
        self.note(Call::Walk(address))?;
        self.paging.walk(address, self.load_entry())
    }

    fn translate(&self, address: Va) -> Result<Translation, GuestError> {
        self.note(Call::Translate(address))?;
        self.paging.translate(address, self.load_entry())
    }

    fn read(&self, address: Va, buffer: &mut [u8]) -> Result<(), GuestError> {
        self.note(Call::Read { address, length: buffer.len() })?;
        self.read_virtual(address, buffer)
    }

    fn write(&mut self, address: Va, data: &[u8]) -> Result<(), GuestError> {
        self.note(Call::Write { address, data: data.to_vec() })?;
        self.write_virtual(address, data)
    }

    fn read_physical(&self, address: Pa, buffer: &mut [u8]) -> Result<(), GuestError> {
        self.note(Call::ReadPhysical { address, length: buffer.len() })?;
        self.shared.memory.read(address, buffer)
    }

    fn write_physical(&mut self, address: Pa, data: &[u8]) -> Result<(), GuestError> {
        self.note(Call::WritePhysical { address, data: data.to_vec() })?;
        self.shared.memory.write(address, data)
    }

    fn compare_exchange(&mut self, address: Pa, current: u64, new: u64) -> Result<bool, GuestError> {
        self.note(Call::CompareExchange { address, current, new })?;
        self.tables().replace(address, current, new)
    }

    fn allocate_page(&mut self) -> Result<Pa, GuestError> {
        self.note(Call::AllocatePage)?;
        self.shared.memory.pool.take()
    }

    fn free_page(&mut self, page: Pa) -> Result<(), GuestError> {
        self.note(Call::FreePage(page))?;
        self.shared.memory.pool.give_back(page)
    }

    fn map(&mut self, page: Va, frame: Pa, access: Access) -> Result<(), GuestError> {
        self.note(Call::Map { page, frame, access })?;
        self.paging.map(self.tables(), self.kind, page, frame, access)?;
        self.count_mapped(1);
        Ok(())
    }

    fn unmap(&mut self, page: Va) -> Result<Mapping, GuestError> {
        self.note(Call::Unmap(page))?;
        let mapping = self.paging.unmap(self.tables(), page)?;
        self.count_mapped(-1);
        Ok(mapping)
    }

    fn protect(&mut self, page: Va, access: Access) -> Result<Mapping, GuestError> {
        self.note(Call::Protect { page, access })?;
        self.paging.protect(self.tables(), page, access)
    }

    fn flush(&mut self) -> Result<(), GuestError> {
        self.note(Call::Flush)?;
        self.count_flush();
        Ok(())
    }

    fn code(&self) -> Result<Code, GuestError> {
        self.note(Call::Code)?;
        self.code_at(Va(self.registers.rip))
    }

    fn elapsed(&self) -> Duration {
        self.elapsed
    }

    fn log(&self, message: &str) {
        // Never fails: `Method` has no such call.
        let _ = self.note(Call::Log(message.to_owned()));
        println!("{message}");
    }
}
