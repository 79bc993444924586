//! The types that cross the boundary. `vector14_hook.h` is generated from this file by hooks/sdk/tests/header.rs. The
//! doc comments become comments in the header, so they are plain text.

use std::ffi::{c_char, c_void};

use crate::Registers;

/// The first 8 bytes of every descriptor, whatever the version: "v14 hook".
pub const MAGIC: u64 = 0x6b6f_6f68_2034_3176;

/// The version of this interface. Libraries of another version are refused.
pub const VERSION: u32 = 2;

/// Text in UTF-8, without a NUL at its end.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Text {
    /// The first byte. NULL means no text, which is not the same as an empty text.
    pub bytes: *const c_char,
    /// Length in bytes.
    pub length: usize,
}

/// Receives text. A sink that is passed to a function is valid until the function returns.
#[repr(C)]
#[derive(Debug)]
pub struct Sink {
    /// Appends bytes to the text; the bytes are copied. Pass `context` as the first argument.
    pub write: unsafe extern "C" fn(context: *mut c_void, bytes: *const c_char, length: usize),
    /// The first argument for `write`.
    pub context: *mut c_void,
}

/// One guest page fault, with the context that it interrupted.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Fault {
    /// Number of the fault among all faults of this VM, from 0, in the order in which they reached the host.
    pub sequence: u64,
    /// The linear address whose access faulted (CR2).
    pub address: u64,
    /// Address of the faulting instruction.
    pub rip: u64,
    /// Stack pointer of the interrupted context.
    pub rsp: u64,
    /// Flags of the interrupted context.
    pub rflags: u64,
    /// CR3 at the exit: the page tables that were in use.
    pub cr3: u64,
    /// The vCPU that faulted, from 0 to 7.
    pub vcpu: u32,
    /// The error code of the #PF: bit 0 present, 1 write, 2 user, 3 reserved bit, 4 fetch, 5 protection key,
    /// 6 shadow stack; the other bits are as the CPU pushed them.
    pub error_code: u32,
    /// Selector of the interrupted code segment; its low two bits are the CPL.
    pub cs: u16,
    /// Selector of the interrupted stack segment.
    pub ss: u16,
    /// 0.
    pub padding: u32,
}

/// What happens with a fault. The first verdict in the chain that is not PASS decides; if every hook passes, the fault
/// is reinjected. Register changes take effect with any verdict that does not fail. An instruction pointer that is not
/// canonical fails with any verdict. A verdict that fails is reported, and the fault is reinjected with the registers
/// as they were. The failure counts against the hook, which is then disabled, unless the guest's gates, segments or
/// stack are the cause.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VerdictKind(pub u32);

impl VerdictKind {
    /// No opinion: the next hook is asked.
    pub const PASS: Self = Self(0);
    /// The guest's own handler runs, with the error code and CR2 that the CPU supplied.
    pub const REINJECT: Self = Self(1);
    /// The guest's own handler runs, with the verdict's `address` and `error_code`. Fails if the
    /// address is not canonical, or if the error code has bits that no CPU sets.
    pub const REINJECT_AS: Self = Self(2);
    /// The instruction is retried; the guest's handler never runs. If the guest makes no progress, the fault is
    /// reinjected.
    pub const RESOLVE: Self = Self(3);
    /// The instruction has no effect, and the next one runs, with RFLAGS.RF clear. Fails if the instruction can't be
    /// read or decoded, or if there is none, because the CPU was delivering another event.
    pub const SKIP: Self = Self(4);
    /// The exception in the verdict's `vector` is raised at the faulting instruction instead of #PF. Fails if the
    /// vector is not an exception; if it has an error code but the CPU pushes none, or the reverse; with the engine
    /// "gate", if the gate is missing or has its own stack or code segment; with "exception-bitmap", for vectors 3 and
    /// 4, and those that CPUs don't define.
    pub const RAISE: Self = Self(5);
    /// The VM stops; the text says why.
    pub const STOP: Self = Self(6);
}

/// A verdict. When `on_fault` is called, it is initialised to PASS and zeroes.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Verdict {
    /// The kind of verdict.
    pub kind: VerdictKind,
    /// For REINJECT_AS, and for RAISE if `has_error_code` is 1: the error code to push.
    pub error_code: u32,
    /// For REINJECT_AS: the address in CR2.
    pub address: u64,
    /// For RAISE: an IDT vector, 0 to 31.
    pub vector: u8,
    /// For RAISE: 1 for vectors 8, 10 to 14, 17, 21, 29 and 30, which have an error code, otherwise 0.
    pub has_error_code: u8,
    /// 0.
    pub padding: [u8; 6],
}

/// The status of a guest call.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GuestStatus(pub u32);

impl GuestStatus {
    /// The call succeeded.
    pub const OK: Self = Self(0);
    /// The guest does not map the virtual address `value`.
    pub const NOT_MAPPED: Self = Self(1);
    /// The virtual address `value` is not canonical, or an entry on its walk has a reserved bit set. Also: mapping
    /// the page needs an entry at the top level of PAE paging, which the CPU reads only when CR3 is written.
    pub const MALFORMED: Self = Self(2);
    /// The VM has no memory at the physical address `value`: it is MMIO, a hole, or past the end of memory.
    pub const OUTSIDE_MEMORY: Self = Self(3);
    /// The virtual address `value` is already mapped.
    pub const ALREADY_MAPPED: Self = Self(4);
    /// Other vCPUs keep changing the page-table entry of the virtual address `value`.
    pub const CONTENDED: Self = Self(5);
    /// The address `value` is not a multiple of 4096.
    pub const UNALIGNED: Self = Self(6);
    /// All `value` pages of the pool are in use.
    pub const POOL_EXHAUSTED: Self = Self(7);
    /// The page `value` is not one that this hook allocated.
    pub const NOT_TAKEN: Self = Self(8);
    /// The instruction at `value`, or the descriptor of its code segment, can't be read.
    pub const UNREADABLE_CODE: Self = Self(9);
    /// The bytes at `value` do not decode as an instruction.
    pub const NO_INSTRUCTION: Self = Self(10);
    /// The vCPUs' translations can't be flushed; `value` is the errno.
    pub const FLUSH: Self = Self(11);
    /// The fault is a recorded one, and there is no guest.
    pub const NO_GUEST: Self = Self(12);
    /// KVM refuses memory for more pages of the pool; `value` is the errno.
    pub const POOL_REFUSED: Self = Self(13);
    /// The virtual address `value` has no last-level page table, and Linux can't use one from the pool. The
    /// process has to populate a page in the same 2 MiB.
    pub const NO_TABLE: Self = Self(14);
}

/// The kind of guest kernel.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GuestKind(pub u32);

impl GuestKind {
    /// Any other kernel.
    pub const OTHER: Self = Self(0);
    /// Linux.
    pub const LINUX: Self = Self(1);
}

/// The result of a guest call: its status, and the address or number that the status refers to.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct GuestResult {
    /// The status.
    pub status: GuestStatus,
    /// 0.
    pub padding: u32,
    /// The value that the status refers to; 0 if the call succeeded.
    pub value: u64,
}

/// The translation of a virtual address.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Translation {
    /// The physical address.
    pub address: u64,
    /// Size of the page, in bytes: 4 KiB, 2 MiB or 1 GiB, or 4 MiB in 32-bit paging.
    pub page_size: u64,
    /// Access rights that the mapping grants: bit 0 writes, 1 user mode, 2 instruction fetches.
    pub access: u32,
    /// 0.
    pub padding: u32,
}

/// A leaf mapping, as it was before a change.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Mapping {
    /// Physical address of the page's frame.
    pub frame: u64,
    /// Size of the page, in bytes: 4 KiB, 2 MiB or 1 GiB, or 4 MiB in 32-bit paging.
    pub page_size: u64,
    /// Physical address of the leaf's entry.
    pub slot: u64,
    /// The entry's old value.
    pub entry: u64,
    /// Access rights that the mapping granted: bit 0 writes, 1 user mode, 2 instruction fetches.
    pub access: u32,
    /// 1 if the leaf was dirty (the CPU had written to the page), otherwise 0.
    pub dirty: u32,
}

/// One page-table entry that a walk read.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct TableEntry {
    /// Physical address of the entry.
    pub slot: u64,
    /// The entry's value.
    pub entry: u64,
    /// Level of the table that holds the entry; entries of level 1 map 4 KiB.
    pub level: u32,
    /// 0.
    pub padding: u32,
}

/// How a walk ended: the state of the last entry.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Step(pub u32);

impl Step {
    /// The last entry is a leaf; `translation` is filled in.
    pub const LEAF: Self = Self(0);
    /// The last entry is not present.
    pub const ABSENT: Self = Self(1);
    /// The last entry has a reserved bit set.
    pub const RESERVED: Self = Self(2);
}

/// A page walk: every entry that was read, and how the walk ended.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Walk {
    /// The entries that were read, from the top-level table down.
    pub entries: [TableEntry; 5],
    /// Number of entries.
    pub count: u32,
    /// How the walk ended.
    pub end: Step,
    /// The translation, if the walk ended at a leaf.
    pub translation: Translation,
}

/// The bytes at the instruction pointer, and the mode in which the CPU executes them.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Code {
    /// Address of the first byte.
    pub rip: u64,
    /// Number of bytes that could be read.
    pub count: u32,
    /// Operand and address size: 16, 32 or 64.
    pub bits: u32,
    /// The bytes; those from `count` on are 0.
    pub bytes: [u8; 16],
}

/// System registers of the faulting vCPU, as they were at the fault.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemRegisters {
    /// CR0: paging, and whether write protection applies to the kernel.
    pub cr0: u64,
    /// CR4: the paging mode, SMEP, SMAP, protection keys.
    pub cr4: u64,
    /// EFER: long mode, NX.
    pub efer: u64,
    /// Base of the FS segment.
    pub fs_base: u64,
    /// Base of the GS segment.
    pub gs_base: u64,
}

/// The guest, as a hook accesses it. Valid until the function that received it returns, and only on its thread. Virtual
/// addresses are translated by the page tables in the faulting vCPU's CR3 at the exit, or by those set with
/// `use_address_space`. In `on_end` there is no faulting vCPU: registers are zero, and virtual addresses can be used
/// only after `use_address_space`.
#[repr(C)]
#[derive(Debug)]
pub struct Guest {
    /// The functions of the guest; each takes the guest as its first argument.
    pub calls: *const GuestCalls,
    /// Private to the host.
    pub context: *mut c_void,
}

/// The functions of a guest. If a result's status is not OK, the contents of output arguments are unspecified.
/// Only `flush` and `log` may take long, and `allocate_page` when KVM has to add memory to the guest.
#[repr(C)]
#[derive(Debug)]
pub struct GuestCalls {
    /// General registers of the faulting context, for reading and writing. The guest resumes with these values,
    /// whatever the verdict. This is how a skipped instruction gets its results.
    pub registers: unsafe extern "C" fn(guest: *mut Guest) -> *mut Registers,
    /// System registers of the faulting vCPU.
    pub system_registers: unsafe extern "C" fn(guest: *mut Guest, registers: *mut SystemRegisters),
    /// The kind of guest kernel, detected from the kernel's file.
    pub kind: unsafe extern "C" fn(guest: *mut Guest) -> GuestKind,
    /// The CR3 whose page tables translate virtual addresses.
    pub address_space: unsafe extern "C" fn(guest: *mut Guest) -> u64,
    /// Translates virtual addresses by other page tables until the hook returns. `cr3` is not checked: if it is
    /// wrong, the first access fails.
    pub use_address_space: unsafe extern "C" fn(guest: *mut Guest, cr3: u64),
    /// Walks the page tables for an address and returns every entry, from the top-level table down. An entry that is
    /// absent or has a reserved bit set is not a failure: see the walk's `end`.
    pub walk: unsafe extern "C" fn(guest: *mut Guest, address: u64, walk: *mut Walk) -> GuestResult,
    /// Translates a virtual address.
    pub translate: unsafe extern "C" fn(guest: *mut Guest, address: u64, translation: *mut Translation) -> GuestResult,
    /// Reads virtual memory; access rights are ignored. Fails as `translate` does, for the first page that fails.
    pub read: unsafe extern "C" fn(guest: *mut Guest, address: u64, buffer: *mut c_void, length: usize) -> GuestResult,
    /// Writes virtual memory; access rights are ignored. Fails as `translate` does, for the first page that fails; the
    /// pages before it have been written.
    pub write: unsafe extern "C" fn(guest: *mut Guest, address: u64, data: *const c_void, length: usize) -> GuestResult,
    /// Reads physical memory.
    pub read_physical:
        unsafe extern "C" fn(guest: *mut Guest, address: u64, buffer: *mut c_void, length: usize) -> GuestResult,
    /// Writes physical memory.
    pub write_physical:
        unsafe extern "C" fn(guest: *mut Guest, address: u64, data: *const c_void, length: usize) -> GuestResult,
    /// Atomically replaces 8 aligned bytes of physical memory if they equal `current`. Sets `exchanged` to 1 if it did,
    /// otherwise to 0. The replacement is atomic for other vCPUs and for the CPU's page walker. Use it for page-table
    /// entries that `map`, `unmap` and `protect` can't make, and call `flush` after removing an access right. An
    /// address that is not a multiple of 8 is OUTSIDE_MEMORY.
    pub compare_exchange: unsafe extern "C" fn(
        guest: *mut Guest,
        address: u64,
        current: u64,
        new_value: u64,
        exchanged: *mut u8,
    ) -> GuestResult,
    /// Allocates a zeroed 4 KiB page from the pool of host-owned pages, which the guest's own allocator does not know.
    /// The guest can access the page by its physical address from then on, even after it is freed. The hook owns the
    /// page until it frees it. When a hook is removed from the chain, each page that it still owns is unmapped where
    /// `map` last mapped it, and freed; a hook that replaces another inherits its pages.
    pub allocate_page: unsafe extern "C" fn(guest: *mut Guest, page: *mut u64) -> GuestResult,
    /// Returns a page to the pool. It must no longer be mapped, and translations to it must have been flushed.
    /// The page keeps its contents until it is allocated again.
    pub free_page: unsafe extern "C" fn(guest: *mut Guest, page: u64) -> GuestResult,
    /// Maps a 4 KiB page to a frame. `access`: bit 0 writes, 1 user mode, 2 instruction fetches. Missing tables
    /// are allocated from the pool and stay with the guest; the access rights in existing tables are not changed. In a
    /// Linux guest the last-level page table must exist: it does if the process has populated a page in the same 2 MiB,
    /// for example with MADV_POPULATE_WRITE. If munmap, exit or fork finds the page in an ordinary mapping, Linux logs
    /// "BUG: Bad page map", taints itself and continues; unmap the page first.
    pub map: unsafe extern "C" fn(guest: *mut Guest, page: u64, frame: u64, access: u32) -> GuestResult,
    /// Makes the leaf that maps a page absent, whatever its size. vCPUs may use the stale translation until the next
    /// `flush`; the VM also flushes when the hook returns. Call `flush` before you read, reuse or free the frame.
    pub unmap: unsafe extern "C" fn(guest: *mut Guest, page: u64, mapping: *mut Mapping) -> GuestResult,
    /// Sets the access rights of the leaf that maps a page, whatever its size. The tables above it may still withhold
    /// rights. vCPUs may use removed rights until the next `flush`.
    pub protect: unsafe extern "C" fn(guest: *mut Guest, page: u64, access: u32, mapping: *mut Mapping) -> GuestResult,
    /// Flushes the translations of every vCPU: after this returns, none uses an older one. It stops every vCPU briefly,
    /// so call it once per batch and not once per page.
    pub flush: unsafe extern "C" fn(guest: *mut Guest) -> GuestResult,
    /// The bytes of the faulting instruction.
    pub code: unsafe extern "C" fn(guest: *mut Guest, code: *mut Code) -> GuestResult,
    /// The faulting instruction in Intel syntax, and its length in bytes.
    pub instruction: unsafe extern "C" fn(guest: *mut Guest, text: *mut Sink, length: *mut u32) -> GuestResult,
    /// Nanoseconds since the VM was started.
    pub elapsed: unsafe extern "C" fn(guest: *mut Guest) -> u64,
    /// Writes a line to the VM's log under this hook's name. It formats and may block, so do not call it for
    /// every fault.
    pub log: unsafe extern "C" fn(guest: *mut Guest, message: Text),
    /// Describes a result as text.
    pub explain: unsafe extern "C" fn(guest: *mut Guest, result: GuestResult, text: *mut Sink),
}

/// The options of a hook, as its user wrote them in the config file.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// A JSON object with an entry for each option.
    pub json: Text,
    /// The folder that relative paths in the options are relative to.
    pub folder: Text,
}

/// An error in a hook's options.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct OptionsError {
    /// Receives the name of the wrong option; write nothing if the error is about all of them.
    pub key: *mut Sink,
    /// Receives the error message: the value that was given, and what is allowed.
    pub message: *mut Sink,
}

/// The documentation of one option, for "vector14 hooks" and "vector14 check".
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct OptionDoc {
    /// Key in the hook's table.
    pub name: Text,
    /// The kind of value, such as "path" or "address".
    pub value: Text,
    /// The default; no text means that the option is required.
    pub default_value: Text,
    /// One line that describes the option.
    pub help: Text,
}

/// The status that a hook's function returns.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Status(pub u32);

impl Status {
    /// The function succeeded.
    pub const OK: Self = Self(0);
    /// The function failed; the text says why. The fault is reinjected with the registers as they were, and the hook is
    /// disabled.
    pub const FAILED: Self = Self(1);
    /// The function panicked, or did the equivalent in its language; the text says why and where.
    pub const PANICKED: Self = Self(2);
}

/// The sizes of all structs, in bytes, that the library was built with.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "each is the size of the struct of its name")]
pub struct Sizes {
    pub descriptor: u32,
    pub text: u32,
    pub sink: u32,
    pub fault: u32,
    pub registers: u32,
    pub verdict: u32,
    pub guest_result: u32,
    pub translation: u32,
    pub mapping: u32,
    pub table_entry: u32,
    pub walk: u32,
    pub code: u32,
    pub system_registers: u32,
    pub guest: u32,
    pub guest_calls: u32,
    pub options: u32,
    pub options_error: u32,
    pub option_doc: u32,
}

/// The start of a descriptor, the same in every version of this interface.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Prefix {
    /// VECTOR14_MAGIC.
    pub magic: u64,
    /// VECTOR14_VERSION.
    pub version: u32,
    /// VECTOR14_SIZES.
    pub sizes: Sizes,
}

/// A kind of hook. A library exports one, under the name vector14_hook. Its functions are called on any thread,
/// `on_fault` on several threads at once. None may throw, longjmp or unwind out. A library is never unloaded.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Descriptor {
    /// VECTOR14_PREFIX.
    pub prefix: Prefix,
    /// The name of the hook.
    pub name: Text,
    /// One line that describes the hook.
    pub summary: Text,
    /// The options that the hook understands.
    pub options: *const OptionDoc,
    /// Number of options.
    pub option_count: usize,
    /// Reports errors that `create` would report, as far as possible without side effects: it creates,
    /// truncates and starts nothing. NULL: there is nothing to check.
    pub check: Option<unsafe extern "C" fn(options: *const Options, error: *mut OptionsError) -> Status>,
    /// Creates a hook. The pointer is passed to the other functions. NULL: there is nothing to create.
    pub create: Option<
        unsafe extern "C" fn(options: *const Options, hook: *mut *mut c_void, error: *mut OptionsError) -> Status,
    >,
    /// Decides about one fault. The vCPU is stopped until this returns. The text is the reason for STOP or for a
    /// failure.
    pub on_fault: Option<
        unsafe extern "C" fn(
            hook: *mut c_void,
            fault: *const Fault,
            guest: *mut Guest,
            verdict: *mut Verdict,
            text: *mut Sink,
        ) -> Status,
    >,
    /// Called once, after the last fault: when the VM has ended, or when the hook has been removed from the chain and
    /// no vCPU is in it any more. Flush buffers here, and write back and free pages. It runs on its own thread and must
    /// return within the hook's timeout. The text is the report, as JSON: {"tables": [{"title": "", "columns": [""],
    /// "rows": [[""]]}], "warnings": [""]}, or nothing. NULL: there is no report.
    pub on_end: Option<unsafe extern "C" fn(hook: *mut c_void, guest: *mut Guest, text: *mut Sink) -> Status>,
    /// Frees what `create` made. NULL: there is nothing to free.
    pub destroy: Option<unsafe extern "C" fn(hook: *mut c_void)>,
}
