//! An observed access: its address, its instruction, and who made it. The first few are kept for the report at the end.

use std::fmt;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use iced_x86::{Instruction, InstructionInfoFactory, OpAccess};
use vector14_hook::{Cr3, ErrorCode, Fault, Guest, OptionsError, Table, Va};

use crate::address::Number;
use crate::emulate::Effect;

/// Maximum rows in the report.
const MOST_ROWS: u128 = 10_000;
pub(crate) const DEFAULT_ROWS: u128 = 20;

/// The kind of an access.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AccessKind {
    Read,
    Write,
    /// Read and write, as in `add [mem], reg`.
    ReadWrite,
    Fetch,
}

impl AccessKind {
    /// The kind that the error code says, unless the instruction both reads and writes the memory. For such an
    /// instruction, real CPUs report a write, and QEMU's emulated ones a read.
    pub(crate) fn of(error_code: ErrorCode, instruction: Option<&Instruction>) -> Self {
        if error_code.contains(ErrorCode::FETCH) {
            Self::Fetch
        } else if instruction.is_some_and(reads_and_writes) {
            Self::ReadWrite
        } else if error_code.contains(ErrorCode::WRITE) {
            Self::Write
        } else {
            Self::Read
        }
    }

    pub(crate) const fn of_effect(effect: &Effect) -> Self {
        match (effect.read, effect.written) {
            (_, None) => Self::Read,
            (None, Some(_)) => Self::Write,
            (Some(_), Some(_)) => Self::ReadWrite,
        }
    }
}

/// Whether the instruction has one memory operand, which it both reads and writes.
fn reads_and_writes(instruction: &Instruction) -> bool {
    let mut factory = InstructionInfoFactory::new();
    let used = factory.info(instruction).used_memory();
    matches!(used, [only] if matches!(only.access(), OpAccess::ReadWrite | OpAccess::ReadCondWrite))
}

impl fmt::Display for AccessKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::ReadWrite => "read+write",
            Self::Fetch => "fetch",
        })
    }
}

/// What is shown of an observed access.
#[derive(Clone, Debug)]
pub(crate) struct Sighting {
    vcpu: u32,
    from_user: bool,
    cr3: Cr3,
    kind: AccessKind,
    address: Va,
    rip: Va,
    instruction: String,
    /// The value read and the value written.
    value: String,
}

impl Sighting {
    /// The access that faulted, with its value unknown.
    pub(crate) fn of(fault: &Fault, guest: &dyn Guest) -> Self {
        Self::new(fault, AccessKind::of(fault.error_code, guest.instruction().ok().as_ref()), None, guest)
    }

    /// The access that faulted, with the values of its `effect` if that is known.
    pub(crate) fn new(fault: &Fault, kind: AccessKind, effect: Option<&Effect>, guest: &dyn Guest) -> Self {
        let instruction = guest.instruction().map_or_else(|error| error.to_string(), |text| text.to_string());
        let hex =
            |value: Option<u64>, size: usize| value.map(|value| format!("{value:#0width$x}", width = 2 * size + 2));
        let value = effect.map(|effect| {
            let both = [hex(effect.read, effect.size), hex(effect.written, effect.size)];
            both.into_iter().flatten().collect::<Vec<_>>().join(" -> ")
        });
        Self {
            vcpu: fault.vcpu,
            from_user: fault.from_user(),
            cr3: fault.cr3,
            kind,
            address: fault.address,
            rip: fault.rip,
            instruction,
            value: value.unwrap_or_default(),
        }
    }

    fn who(&self) -> &'static str {
        if self.from_user { "user" } else { "kernel" }
    }

    fn row(self) -> Vec<String> {
        let (kind, who) = (self.kind.to_string(), self.who().to_owned());
        let [address, rip] = [self.address, self.rip].map(|address| address.to_string());
        vec![kind, address, self.value, who, self.vcpu.to_string(), self.cr3.to_string(), rip, self.instruction]
    }
}

/// Shown as `write of 0x1000 by user code at 0x401000: mov [rdi],rax`.
impl fmt::Display for Sighting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kind, address, rip, instruction, value, .. } = self;
        let value = if value.is_empty() { String::new() } else { format!(" ({value})") };
        write!(f, "{kind} of {address}{value} by {} code at {rip}: {instruction}", self.who())
    }
}

/// The first accesses that were observed, up to a maximum.
pub(crate) struct Sightings {
    seen: AtomicUsize,
    rows: Box<[OnceLock<Sighting>]>,
}

impl Sightings {
    /// Room for as many accesses as the option `show` says.
    pub(crate) fn new(show: Option<Number>) -> Result<Self, OptionsError> {
        let count = show.map_or(DEFAULT_ROWS, |Number(count)| count);
        let rows = usize::try_from(count).ok().filter(|_| count <= MOST_ROWS);
        let rows =
            rows.ok_or_else(|| OptionsError::new("show", format!("show = {count}: must be from 0 to {MOST_ROWS}")))?;
        Ok(Self { seen: AtomicUsize::new(0), rows: (0..rows).map(|_| OnceLock::new()).collect() })
    }

    /// Keeps and logs the result of `sighting` if there is still room.
    pub(crate) fn add(&self, guest: &dyn Guest, sighting: impl FnOnce(&dyn Guest) -> Sighting) {
        // Do not count once all rows are used, so that the count can't wrap.
        if self.seen.load(Relaxed) >= self.rows.len() {
            return;
        }
        let Some(row) = self.rows.get(self.seen.fetch_add(1, Relaxed)) else { return };
        let sighting = sighting(guest);
        guest.log(&sighting.to_string());
        // No other thread has this row.
        let _ = row.set(sighting);
    }

    /// The accesses as a table.
    pub(crate) fn table(&self, title: &str) -> Table {
        let rows: Vec<_> = self.rows.iter().filter_map(OnceLock::get).cloned().map(Sighting::row).collect();
        let columns = ["access", "address", "value", "by", "vcpu", "cr3", "rip", "instruction"];
        Table { title: title.to_owned(), columns: columns.map(str::to_owned).to_vec(), rows }
    }
}
