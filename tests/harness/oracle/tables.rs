//! The oracle's own page walk, and what the guest's tables allow (SDM vol. 3A, 4.6 and 4.7; APM vol. 2, 5.4 to 5.6).

use std::arch::x86_64::__cpuid;
use std::fmt;

use vector14_hook::{ErrorCode, Fault, Guest, Pa};

use super::access::{By, Way};
use crate::harness::emulated_by_qemu;

const PRESENT: u64 = 1 << 0;
const WRITE: u64 = 1 << 1;
const USER: u64 = 1 << 2;
const LARGE: u64 = 1 << 7;
const NO_EXECUTE: u64 = 1 << 63;

/// The CPU state that a page walk depends on.
#[derive(Clone, Copy, Debug)]
pub struct Cpu {
    long_mode: bool,
    pae: bool,
    pse: bool,
    levels_5: bool,
    write_protect: bool,
    no_execute: bool,
    smep: bool,
    smap: bool,
    /// PKRU, if protection keys are on.
    keys: Option<u32>,
    /// Number of bits in a physical address (CPUID 0x8000_0008).
    address_bits: u32,
}

impl Cpu {
    pub fn of(guest: &dyn Guest, pkru: u32) -> Self {
        let system = guest.system_registers();
        let cr0 = |bit: u32| system.cr0 >> bit & 1 != 0;
        let cr4 = |bit: u32| system.cr4 >> bit & 1 != 0;
        let efer = |bit: u32| system.efer >> bit & 1 != 0;
        Self {
            long_mode: efer(10),
            pae: cr4(5),
            pse: cr4(4),
            levels_5: cr4(12),
            write_protect: cr0(16),
            no_execute: efer(11),
            smep: cr4(20),
            smap: cr4(21),
            keys: (cr4(22) && efer(10)).then_some(pkru),
            address_bits: __cpuid(0x8000_0008).eax & 0xff,
        }
    }

    /// The address bits that index each table, from the top-level table down: the lowest bit, and the number of bits.
    fn levels(&self) -> &'static [(u32, u32)] {
        match (self.long_mode, self.pae) {
            (true, _) if self.levels_5 => &[(48, 9), (39, 9), (30, 9), (21, 9), (12, 9)],
            (true, _) => &[(39, 9), (30, 9), (21, 9), (12, 9)],
            (false, true) => &[(30, 2), (21, 9), (12, 9)],
            (false, false) => &[(22, 10), (12, 10)],
        }
    }

    /// Bits that must be clear in a present entry whose index begins at bit `shift` of an address.
    fn reserved(&self, entry: u64, shift: u32, leaf: bool) -> u64 {
        let above = (!0 << self.address_bits) & ((1 << 52) - 1);
        let offset = (1u64 << shift) - 1;
        match (self.long_mode, self.pae) {
            // The entries of the top table were checked when CR3 was written.
            (false, true) if shift == 30 => 0,
            (false, false) => {
                if leaf && shift == 22 {
                    1 << 21
                } else {
                    0
                }
            }
            (long, _) => {
                let execute = if self.no_execute { 0 } else { NO_EXECUTE };
                let ignored = if long { 0 } else { 0x7ff << 52 };
                let large = if entry & LARGE != 0 && shift > 30 { LARGE } else { 0 };
                // Bit 12 of a large leaf is PAT.
                let misplaced = if leaf && shift > 12 { offset & !0x1fff } else { 0 };
                above | execute | ignored | large | misplaced
            }
        }
    }
}

impl fmt::Display for Cpu {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// A walk: the entries that were read, and where it ended.
pub struct Walk {
    entries: Vec<(Pa, u64)>,
    end: End,
}

#[derive(Clone, Copy, Debug)]
enum End {
    /// At a table outside of memory.
    Nowhere,
    Absent,
    Reserved,
    Page(Page),
}

/// What all levels together allow, and the leaf's protection key.
#[derive(Clone, Copy, Debug)]
struct Page {
    write: bool,
    user: bool,
    execute: bool,
    key: u32,
}

impl Walk {
    pub fn of(fault: &Fault, cpu: &Cpu, guest: &dyn Guest) -> Self {
        let mut entries = Vec::new();
        let end = walk(fault, cpu, guest, &mut entries);
        Self { entries, end }
    }

    /// The error code of an access; `None` if it is allowed.
    pub fn predict(&self, cpu: &Cpu, way: Way, by: By) -> Option<ErrorCode> {
        let (write, fetch, user) = (way == Way::Write, way == Way::Fetch, by == By::User);
        let mut code = ErrorCode::empty();
        code.set(ErrorCode::WRITE, write);
        code.set(ErrorCode::USER, user);
        code.set(ErrorCode::FETCH, fetch && (cpu.smep || (cpu.no_execute && cpu.pae)));
        match self.end {
            End::Nowhere => None,
            End::Absent => Some(code),
            // QEMU leaves P clear (guest/tiny/src/quirks.rs).
            End::Reserved if emulated_by_qemu() => Some(code | ErrorCode::RESERVED),
            End::Reserved => Some(code | ErrorCode::RESERVED | ErrorCode::PRESENT),
            End::Page(page) => {
                let by_key = page.key_forbids(cpu, way, by);
                code.set(ErrorCode::PROTECTION_KEY, by_key);
                (by_key || page.forbids(cpu, way, by)).then_some(code | ErrorCode::PRESENT)
            }
        }
    }
}

impl Page {
    fn forbids(self, cpu: &Cpu, way: Way, by: By) -> bool {
        let user = by == By::User;
        match way {
            _ if user && !self.user => true,
            Way::Write if !self.write && (user || cpu.write_protect) => true,
            Way::Read | Way::Write => !user && self.user && cpu.smap && by != (By::Kernel { ac: true }),
            Way::Fetch => !self.execute || (!user && self.user && cpu.smep),
        }
    }

    fn key_forbids(self, cpu: &Cpu, way: Way, by: By) -> bool {
        let Some(pkru) = cpu.keys.filter(|_| self.user) else { return false };
        let (access, write) = (pkru >> (2 * self.key) & 1 != 0, pkru >> (2 * self.key + 1) & 1 != 0);
        match way {
            Way::Fetch => false,
            Way::Read => access,
            Way::Write => access || (write && (by == By::User || cpu.write_protect)),
        }
    }
}

fn walk(fault: &Fault, cpu: &Cpu, guest: &dyn Guest, entries: &mut Vec<(Pa, u64)>) -> End {
    let size = if cpu.pae { 8 } else { 4 };
    let mut table = fault.cr3.0
        & if cpu.long_mode {
            0xf_ffff_ffff_f000
        } else if cpu.pae {
            !0x1f
        } else {
            !0xfff
        };
    let mut page = Page { write: true, user: true, execute: true, key: 0 };
    for &(shift, bits) in cpu.levels() {
        let slot = Pa(table + ((fault.address.0 >> shift) & ((1 << bits) - 1)) * size as u64);
        let mut bytes = [0; 8];
        if guest.read_physical(slot, &mut bytes[..size]).is_err() {
            return End::Nowhere;
        }
        let entry = u64::from_le_bytes(bytes);
        entries.push((slot, entry));
        if entry & PRESENT == 0 {
            return End::Absent;
        }
        let large = entry & LARGE != 0 && if cpu.pae { shift > 12 } else { shift > 12 && cpu.pse };
        if entry & cpu.reserved(entry, shift, large || shift == 12) != 0 {
            return End::Reserved;
        }
        if cpu.long_mode || !cpu.pae || shift != 30 {
            page.write &= entry & WRITE != 0;
            page.user &= entry & USER != 0;
            page.execute &= entry & NO_EXECUTE == 0;
        }
        // The leaf, read last, decides.
        page.key = u32::from(bytes[7] >> 3 & 0xf);
        if large {
            break;
        }
        table = entry & 0xf_ffff_ffff_f000;
    }
    End::Page(page)
}

impl fmt::Display for Walk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (slot, entry) in &self.entries {
            writeln!(f, "  entry at {slot}: {entry:#018x}")?;
        }
        writeln!(f, "  which is {:?}", self.end)
    }
}
