//! Converts the SDK's types to the types that cross the boundary, and back. Undefined numbers from the other side are
//! errors.

use super::types;
use super::types::{GuestResult, GuestStatus, VerdictKind};
use crate::code::INSTRUCTION_LIMIT;
use crate::{
    Access, Code, Cr3, ErrorCode, Exception, Fault, GuestError, GuestKind, Mapping, Pa, Step, TableEntry, Translation,
    Va, Verdict, Walk,
};

impl From<&Fault> for types::Fault {
    fn from(fault: &Fault) -> Self {
        Self {
            sequence: fault.sequence,
            address: fault.address.0,
            rip: fault.rip.0,
            rsp: fault.rsp.0,
            rflags: fault.rflags,
            cr3: fault.cr3.0,
            vcpu: fault.vcpu,
            error_code: fault.error_code.bits(),
            cs: fault.cs,
            ss: fault.ss,
            padding: 0,
        }
    }
}

impl From<&types::Fault> for Fault {
    fn from(fault: &types::Fault) -> Self {
        Self {
            sequence: fault.sequence,
            vcpu: fault.vcpu,
            address: Va(fault.address),
            error_code: ErrorCode::from_bits_retain(fault.error_code),
            cs: fault.cs,
            rip: Va(fault.rip),
            rsp: Va(fault.rsp),
            ss: fault.ss,
            rflags: fault.rflags,
            cr3: Cr3(fault.cr3),
        }
    }
}

impl types::Verdict {
    pub(super) const PASS: Self =
        Self { kind: VerdictKind::PASS, error_code: 0, address: 0, vector: 0, has_error_code: 0, padding: [0; 6] };
}

impl From<&Verdict> for types::Verdict {
    fn from(verdict: &Verdict) -> Self {
        let of = |kind| Self { kind, ..Self::PASS };
        match verdict {
            Verdict::Pass => Self::PASS,
            Verdict::Reinject => of(VerdictKind::REINJECT),
            Verdict::ReinjectAs { address, error_code } => {
                Self { address: address.0, error_code: error_code.bits(), ..of(VerdictKind::REINJECT_AS) }
            }
            Verdict::Resolve => of(VerdictKind::RESOLVE),
            Verdict::Skip => of(VerdictKind::SKIP),
            Verdict::Raise(Exception { vector, error_code }) => Self {
                vector: *vector,
                error_code: error_code.unwrap_or(0),
                has_error_code: u8::from(error_code.is_some()),
                ..of(VerdictKind::RAISE)
            },
            Verdict::Stop(_) => of(VerdictKind::STOP),
        }
    }
}

impl types::Verdict {
    /// The SDK's verdict; `None` if the kind is undefined. `reason` is used for STOP.
    pub(super) fn decode(&self, reason: impl FnOnce() -> String) -> Option<Verdict> {
        Some(match self.kind {
            VerdictKind::PASS => Verdict::Pass,
            VerdictKind::REINJECT => Verdict::Reinject,
            VerdictKind::REINJECT_AS => Verdict::ReinjectAs {
                address: Va(self.address),
                error_code: ErrorCode::from_bits_retain(self.error_code),
            },
            VerdictKind::RESOLVE => Verdict::Resolve,
            VerdictKind::SKIP => Verdict::Skip,
            VerdictKind::RAISE => Verdict::Raise(Exception {
                vector: self.vector,
                error_code: (self.has_error_code != 0).then_some(self.error_code),
            }),
            VerdictKind::STOP => Verdict::Stop(reason().into()),
            VerdictKind(_) => return None,
        })
    }
}

impl From<Result<(), GuestError>> for GuestResult {
    fn from(result: Result<(), GuestError>) -> Self {
        let (status, value) = match result {
            Ok(()) => (GuestStatus::OK, 0),
            Err(GuestError::NotMapped(va)) => (GuestStatus::NOT_MAPPED, va.0),
            Err(GuestError::Malformed(va)) => (GuestStatus::MALFORMED, va.0),
            Err(GuestError::OutsideMemory(pa)) => (GuestStatus::OUTSIDE_MEMORY, pa.0),
            Err(GuestError::AlreadyMapped(va)) => (GuestStatus::ALREADY_MAPPED, va.0),
            Err(GuestError::Contended(va)) => (GuestStatus::CONTENDED, va.0),
            Err(GuestError::Unaligned(address)) => (GuestStatus::UNALIGNED, address),
            Err(GuestError::PoolExhausted { pages }) => (GuestStatus::POOL_EXHAUSTED, pages),
            Err(GuestError::NotTaken(pa)) => (GuestStatus::NOT_TAKEN, pa.0),
            Err(GuestError::UnreadableCode(va)) => (GuestStatus::UNREADABLE_CODE, va.0),
            Err(GuestError::NoInstruction(va)) => (GuestStatus::NO_INSTRUCTION, va.0),
            Err(GuestError::Flush(errno)) => (GuestStatus::FLUSH, u64::from(errno.cast_unsigned())),
            Err(GuestError::NoGuest) => (GuestStatus::NO_GUEST, 0),
            Err(GuestError::PoolRefused(errno)) => (GuestStatus::POOL_REFUSED, u64::from(errno.cast_unsigned())),
            Err(GuestError::NoTable(va)) => (GuestStatus::NO_TABLE, va.0),
        };
        Self { status, padding: 0, value }
    }
}

impl From<GuestResult> for Result<(), GuestError> {
    fn from(GuestResult { status, value, .. }: GuestResult) -> Self {
        Err(match status {
            GuestStatus::OK => return Ok(()),
            GuestStatus::NOT_MAPPED => GuestError::NotMapped(Va(value)),
            GuestStatus::MALFORMED => GuestError::Malformed(Va(value)),
            GuestStatus::OUTSIDE_MEMORY => GuestError::OutsideMemory(Pa(value)),
            GuestStatus::ALREADY_MAPPED => GuestError::AlreadyMapped(Va(value)),
            GuestStatus::CONTENDED => GuestError::Contended(Va(value)),
            GuestStatus::UNALIGNED => GuestError::Unaligned(value),
            GuestStatus::POOL_EXHAUSTED => GuestError::PoolExhausted { pages: value },
            GuestStatus::NOT_TAKEN => GuestError::NotTaken(Pa(value)),
            GuestStatus::UNREADABLE_CODE => GuestError::UnreadableCode(Va(value)),
            GuestStatus::NO_INSTRUCTION => GuestError::NoInstruction(Va(value)),
            GuestStatus::FLUSH => GuestError::Flush(i32::try_from(value).unwrap_or(i32::MAX)),
            GuestStatus::NO_GUEST => GuestError::NoGuest,
            GuestStatus::POOL_REFUSED => GuestError::PoolRefused(i32::try_from(value).unwrap_or(i32::MAX)),
            GuestStatus::NO_TABLE => GuestError::NoTable(Va(value)),
            // The host has the same version of the interface, so no other status can occur; treat one as a failure.
            GuestStatus(_) => GuestError::Malformed(Va(value)),
        })
    }
}

impl From<GuestKind> for types::GuestKind {
    fn from(kind: GuestKind) -> Self {
        match kind {
            GuestKind::Linux => Self::LINUX,
            GuestKind::Other => Self::OTHER,
        }
    }
}

impl From<types::GuestKind> for GuestKind {
    fn from(kind: types::GuestKind) -> Self {
        if kind == types::GuestKind::LINUX { Self::Linux } else { Self::Other }
    }
}

/// Access rights as bits.
pub(super) fn access(bits: u32) -> Access {
    let [low, ..] = bits.to_le_bytes();
    Access::from_bits_truncate(low)
}

impl From<Translation> for types::Translation {
    fn from(Translation { address, page_size, access }: Translation) -> Self {
        Self { address: address.0, page_size, access: access.bits().into(), padding: 0 }
    }
}

impl From<types::Translation> for Translation {
    fn from(translation: types::Translation) -> Self {
        let types::Translation { address, page_size, access: bits, padding: _ } = translation;
        Self { address: Pa(address), page_size, access: access(bits) }
    }
}

impl From<Mapping> for types::Mapping {
    fn from(Mapping { frame, page_size, access, dirty, slot, entry }: Mapping) -> Self {
        let (access, dirty) = (access.bits().into(), dirty.into());
        Self { frame: frame.0, page_size, slot: slot.0, entry, access, dirty }
    }
}

impl From<types::Mapping> for Mapping {
    fn from(mapping: types::Mapping) -> Self {
        let types::Mapping { frame, page_size, slot, entry, access: bits, dirty } = mapping;
        Self { frame: Pa(frame), page_size, access: access(bits), dirty: dirty != 0, slot: Pa(slot), entry }
    }
}

impl From<TableEntry> for types::TableEntry {
    fn from(TableEntry { level, slot, entry }: TableEntry) -> Self {
        Self { slot: slot.0, entry, level: level.into(), padding: 0 }
    }
}

impl From<types::TableEntry> for TableEntry {
    fn from(types::TableEntry { slot, entry, level, padding: _ }: types::TableEntry) -> Self {
        let [level, ..] = level.to_le_bytes();
        Self { level, slot: Pa(slot), entry }
    }
}

impl From<&Walk> for types::Walk {
    fn from(walk: &Walk) -> Self {
        let mut raw = Self::default();
        for (raw, entry) in raw.entries.iter_mut().zip(walk.entries()) {
            *raw = (*entry).into();
        }
        raw.count = u32::try_from(walk.entries().len()).unwrap_or(u32::MAX);
        raw.end = match walk.end() {
            Step::Leaf(translation) => {
                raw.translation = translation.into();
                types::Step::LEAF
            }
            Step::Absent(_) => types::Step::ABSENT,
            Step::Reserved(_) => types::Step::RESERVED,
        };
        raw
    }
}

impl From<&types::Walk> for Walk {
    fn from(raw: &types::Walk) -> Self {
        let count = usize::try_from(raw.count).unwrap_or(usize::MAX).min(raw.entries.len());
        let entries = raw.entries.map(TableEntry::from);
        let last = count.checked_sub(1).map_or_else(TableEntry::default, |last| entries[last]);
        let end = match raw.end {
            types::Step::LEAF => Step::Leaf(raw.translation.into()),
            types::Step::ABSENT => Step::Absent(last),
            types::Step(_) => Step::Reserved(last),
        };
        Self::new(&entries[..count], end)
    }
}

impl From<Code> for types::Code {
    fn from(code: Code) -> Self {
        let mut bytes = [0; 16];
        bytes[..INSTRUCTION_LIMIT].copy_from_slice(&code.bytes);
        Self { rip: code.rip.0, count: u32::try_from(code.count).unwrap_or(u32::MAX), bits: code.bits, bytes }
    }
}

impl From<types::Code> for Code {
    fn from(raw: types::Code) -> Self {
        let mut bytes = [0; INSTRUCTION_LIMIT];
        bytes.copy_from_slice(&raw.bytes[..INSTRUCTION_LIMIT]);
        let count = usize::try_from(raw.count).unwrap_or(usize::MAX).min(INSTRUCTION_LIMIT);
        Self { rip: Va(raw.rip), bytes, count, bits: raw.bits }
    }
}
impl From<crate::SystemRegisters> for types::SystemRegisters {
    fn from(system: crate::SystemRegisters) -> Self {
        let crate::SystemRegisters { cr0, cr4, efer, fs_base, gs_base } = system;
        Self { cr0, cr4, efer, fs_base: fs_base.0, gs_base: gs_base.0 }
    }
}

impl From<types::SystemRegisters> for crate::SystemRegisters {
    fn from(system: types::SystemRegisters) -> Self {
        let types::SystemRegisters { cr0, cr4, efer, fs_base, gs_base } = system;
        Self { cr0, cr4, efer, fs_base: Va(fs_base), gs_base: Va(gs_base) }
    }
}
