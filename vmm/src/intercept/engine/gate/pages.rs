//! Pages that hold our gates. The guest can only read them: KVM returns at each write, and the engine carries the
//! write out and keeps the stub in place. So no fault is missed when a guest rewrites its gate 14.
//!
//! A page that the CPU writes to by itself can't be kept like this: KVM can't return in the middle of a descriptor
//! load or of the delivery of an exception. A page that the guest writes to all the time should not be. Such a page
//! is given up, and its gates are checked at intervals, like those of any other page.

use iced_x86::Mnemonic;
use vector14_hook::paging::Paging;
use vector14_hook::{PAGE_SIZE, Pa, Va};

use super::idt::{Seen, Width};
use crate::machine::memory::Memory;
use crate::machine::paging::read_words;
use crate::machine::segment::CodeSegment;
use crate::machine::vcpu::Vcpu;
use crate::sys::mapped::{Access, AccessError, MappedVm};

/// Largest number of pages kept at the same time; each is a memory slot, or splits one.
const PAGE_LIMIT: usize = 16;
/// Number of writes beside the gates after which a page is given up, less those forgiven. Each costs an exit.
const WRITES_AT_ONCE: u32 = 10_000;
/// Number of those writes that are forgiven at each beat.
const WRITES_FORGIVEN: u32 = 100;

/// Largest number of given-up pages that are remembered. After that, every further page counts as given up.
const GIVEN_UP_LIMIT: usize = 64;

/// Makes a page of guest memory read-only, or writable again. No vCPU runs meanwhile.
pub(super) trait SetAccess: Send + Sync {
    /// Changes what the guest may do with `page`.
    fn set_access(&self, page: Pa, access: Access) -> Result<(), AccessError>;
}

impl SetAccess for MappedVm {
    fn set_access(&self, page: Pa, access: Access) -> Result<(), AccessError> {
        Self::set_access(self, page, access)
    }
}

/// The pages of one VM that hold our gates.
pub(super) struct Pages {
    machine: Box<dyn SetAccess>,
    kept: Vec<Kept>,
    given_up: Vec<Pa>,
}

struct Kept {
    page: Pa,
    /// Writes beside the gates that have not been forgiven.
    writes: u32,
}

/// The guest has lost memory: KVM did not restore a slot.
#[derive(Debug, thiserror::Error)]
#[error("the guest's page at {page} is lost: {source}")]
pub(super) struct LostPage {
    page: Pa,
    source: AccessError,
}

impl Pages {
    pub(super) fn new(machine: Box<dyn SetAccess>) -> Self {
        Self { machine, kept: Vec::new(), given_up: Vec::new() }
    }

    /// Whether guest writes to `page` exit to us.
    pub(super) fn keeps(&self, page: Pa) -> bool {
        self.kept.iter().any(|kept| kept.page == page)
    }

    /// Whether no page is kept.
    pub(super) fn is_empty(&self) -> bool {
        self.kept.is_empty()
    }

    /// Whether there is nothing to do about `page`: it is kept, or can't be.
    pub(super) fn is_settled(&self, page: Pa) -> bool {
        self.keeps(page) || self.given_up.contains(&page) || self.given_up.len() == GIVEN_UP_LIMIT
    }

    /// Keeps `page`, unless `obstacle` says why it can't be kept. Returns a note if the page is given up.
    pub(super) fn keep(&mut self, page: Pa, obstacle: Option<&str>) -> Result<Option<String>, LostPage> {
        if let Some(obstacle) = obstacle {
            return self.give_up(page, obstacle);
        }
        if self.is_settled(page) {
            return Ok(None);
        }
        if self.kept.len() == PAGE_LIMIT {
            return self.give_up(page, "there are too many such pages");
        }
        match self.machine.set_access(page, Access::ReadOnly) {
            Ok(()) => {
                self.kept.push(Kept { page, writes: 0 });
                Ok(None)
            }
            Err(source @ AccessError::Lost(_)) => Err(LostPage { page, source }),
            Err(refused) => self.give_up(page, &refused.to_string()),
        }
    }

    /// Gives `page` up: the guest can write to it from now on. Returns a note about it, once.
    pub(super) fn give_up(&mut self, page: Pa, why: &str) -> Result<Option<String>, LostPage> {
        self.release(page)?;
        if self.is_settled(page) {
            return Ok(None);
        }
        self.given_up.push(page);
        Ok(Some(format!(
            "faults may be missed after the guest has rewritten its gate 14 in the page at {page}, until the next exit: its \
             writes to that page are not intercepted, because {why}"
        )))
    }

    /// Gives all pages up: the guest can write to them from now on.
    pub(super) fn give_up_all(&mut self, why: &str) -> Result<Vec<String>, LostPage> {
        let pages: Vec<Pa> = self.kept.iter().map(|kept| kept.page).collect();
        pages.into_iter().filter_map(|page| self.give_up(page, why).transpose()).collect()
    }

    /// Makes all pages writable again, and forgets them.
    pub(super) fn release_all(&mut self) -> Result<(), LostPage> {
        self.given_up.clear();
        while let Some(kept) = self.kept.last() {
            self.release(kept.page)?;
        }
        Ok(())
    }

    fn release(&mut self, page: Pa) -> Result<(), LostPage> {
        let Some(index) = self.kept.iter().position(|kept| kept.page == page) else { return Ok(()) };
        self.kept.swap_remove(index);
        self.machine.set_access(page, Access::ReadWrite).map_err(|source| LostPage { page, source })
    }

    /// Counts a write beside the gates of `page`. Returns whether there have been too many.
    pub(super) fn count_write(&mut self, page: Pa) -> bool {
        let Some(kept) = self.kept.iter_mut().find(|kept| kept.page == page) else { return false };
        kept.writes += 1;
        kept.writes > WRITES_AT_ONCE
    }

    /// Forgives some of the writes that were counted.
    pub(super) fn forgive(&mut self) {
        self.kept.iter_mut().for_each(|kept| kept.writes = kept.writes.saturating_sub(WRITES_FORGIVEN));
    }
}

/// Why the page with the gate of `seen` can't be kept, in the vCPU's current state; `None` if it can.
///
/// A page that the IDT fills always can. In others KVM emulates whatever the guest does to the data beside the IDT: locked
/// instructions are not atomic for other vCPUs then, some stores are lost in part, and some are retried forever.
pub(super) fn obstacle(
    cpu: &mut Vcpu,
    vcpus: usize,
    memory: &Memory,
    paging: &Paging,
    Seen { idtr, slot, .. }: Seen,
    thorough: bool,
) -> Option<&'static str> {
    if idtr.base.page_offset() == 0 && u64::from(idtr.limit) >= PAGE_SIZE - 1 {
        return None;
    }
    if slot.width == Width::Bits32 {
        return Some("other data of a protected-mode guest may be in it");
    }
    if vcpus > 1 {
        return Some("other data that several vCPUs use may be in it");
    }
    if thorough && stores_by_unemulated_means(cpu, memory, paging) {
        return Some("KVM can't emulate an instruction that stores to it");
    }
    written_by_cpu(cpu, memory, paging, slot.physical.page())
}

/// Whether the vCPU is at an instruction that KVM retries forever if it stores to a page that is kept.
fn stores_by_unemulated_means(cpu: &mut Vcpu, memory: &Memory, paging: &Paging) -> bool {
    let rip = cpu.regs().rip;
    let code = CodeSegment::loaded(cpu.sregs()).fetch(rip, memory, paging);
    let instruction = code.and_then(|code| code.decode().ok());
    instruction.is_some_and(|instruction| {
        matches!(instruction.mnemonic(), Mnemonic::Sidt | Mnemonic::Sgdt | Mnemonic::Fxsave | Mnemonic::Fxsave64)
    })
}

/// Names what the CPU writes to `page` by itself, in the vCPU's current state: a descriptor table (accessed and busy
/// bits), or a stack that exception frames are pushed to.
fn written_by_cpu(cpu: &mut Vcpu, memory: &Memory, paging: &Paging, page: Pa) -> Option<&'static str> {
    let rsp = Va(cpu.regs().rsp);
    let sregs = cpu.sregs();
    let holds =
        |address: Va| paging.translate(address, |slot| memory.load(slot)).is_ok_and(|at| at.address.page() == page);
    let table = |base: u64, limit: u64| {
        let (first, last) = (Va(base).page().0, base.saturating_add(limit));
        (first..=last).step_by(PAGE).take(TABLE_PAGES).any(|address| holds(Va(address)))
    };
    if table(sregs.gdt.base, sregs.gdt.limit.into()) {
        return Some("its global descriptor table is in it");
    }
    if sregs.ldt.unusable == 0 && table(sregs.ldt.base, u64::from(sregs.ldt.limit).min(0xffff)) {
        return Some("its local descriptor table is in it");
    }
    let is_stack = |top: u64| holds(Va(top.wrapping_sub(1))) || holds(Va(top.wrapping_sub(STACK_REACH)));
    if is_stack(rsp.0) || stacks(Va(sregs.tr.base), memory, paging).any(is_stack) {
        return Some("a stack for exceptions is in it");
    }
    None
}

const PAGE: usize = 1 << 12;
/// Largest number of pages of a descriptor table: it has up to 64 KiB, and may start within a page.
const TABLE_PAGES: usize = 17;
/// How far below its top a stack is looked at, in bytes: room for frames of nested exceptions.
const STACK_REACH: u64 = 256;

/// The stacks that the 64-bit TSS at `tss` names: RSP0 to RSP2, and IST1 to IST7 (SDM vol. 3A, 8.7, figure 8-11).
fn stacks(tss: Va, memory: &Memory, paging: &Paging) -> impl Iterator<Item = u64> {
    const POINTERS: std::ops::Range<usize> = 4..92;
    const RESERVED: u64 = 28;
    let mut bytes = [0; POINTERS.end];
    let count = read_words(memory, paging, tss, &mut bytes);
    let pointer = move |at: usize| {
        let bytes = bytes.get(at..at + 8).filter(|_| at + 8 <= count)?;
        Some(u64::from_le_bytes(bytes.try_into().ok()?))
    };
    let offsets = POINTERS.step_by(8).filter(|at| *at as u64 != RESERVED);
    offsets.filter_map(pointer).filter(|top| *top != 0)
}
