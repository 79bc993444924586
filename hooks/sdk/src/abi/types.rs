//! What crosses the boundary. `vector14_hook.h` is generated from this file: its docs are what a reader of the header
//! gets, so they are plain text (hooks/sdk/tests/header.rs).

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
    /// The first byte. NULL: there is no text, which is not the same as an empty one.
    pub bytes: *const c_char,
    /// How many bytes there are.
    pub length: usize,
}

/// Takes text. The caller of a function lends it for the time of the call.
#[repr(C)]
#[derive(Debug)]
pub struct Sink {
    /// Adds bytes to the text; they are copied. The first argument is `context`.
    pub write: unsafe extern "C" fn(context: *mut c_void, bytes: *const c_char, length: usize),
    /// Whatever `write` needs.
    pub context: *mut c_void,
}

/// One guest page fault, with the context that it interrupted.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Fault {
    /// Position among all faults of this VM, from 0.
    pub sequence: u64,
    /// The linear address whose access faulted (CR2).
    pub address: u64,
    /// The faulting instruction.
    pub rip: u64,
    /// Stack pointer of the interrupted context.
    pub rsp: u64,
    /// Flags of the interrupted context.
    pub rflags: u64,
    /// Root of the page tables in force.
    pub cr3: u64,
    /// The vCPU that faulted, from 0 to 7.
    pub vcpu: u32,
    /// The error code of the #PF: bit 0 present, 1 write, 2 user, 3 reserved bit, 4 fetch.
    pub error_code: u32,
    /// Selector of the interrupted code segment; its low two bits are the CPL.
    pub cs: u16,
    /// Selector of the interrupted stack segment.
    pub ss: u16,
    /// 0.
    pub padding: u32,
}

/// What happens with a fault.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VerdictKind(pub u32);

impl VerdictKind {
    /// No opinion: the next hook is asked.
    pub const PASS: Self = Self(0);
    /// The guest's own handler runs, with what the CPU would have shown it.
    pub const REINJECT: Self = Self(1);
    /// The guest's own handler runs, with `address` and `error_code` of the verdict.
    pub const REINJECT_AS: Self = Self(2);
    /// The instruction is tried again; the guest's handler never runs.
    pub const RESOLVE: Self = Self(3);
    /// The instruction has no effect, and the next one runs.
    pub const SKIP: Self = Self(4);
    /// The exception `vector` of the verdict is raised instead of #PF.
    pub const RAISE: Self = Self(5);
    /// The VM stops; the text says why.
    pub const STOP: Self = Self(6);
}

/// A verdict. It is PASS and all 0 when `on_fault` is called.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Verdict {
    /// Which one.
    pub kind: VerdictKind,
    /// For REINJECT_AS, and for RAISE where `has_error_code` is set.
    pub error_code: u32,
    /// For REINJECT_AS.
    pub address: u64,
    /// For RAISE: an IDT vector, 0 to 31.
    pub vector: u8,
    /// For RAISE: 1 where the exception comes with an error code, otherwise 0.
    pub has_error_code: u8,
    /// 0.
    pub padding: [u8; 6],
}

/// How a call of the guest's ended.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GuestStatus(pub u32);

impl GuestStatus {
    /// Well.
    pub const OK: Self = Self(0);
    /// The guest does not map the virtual address `value`.
    pub const NOT_MAPPED: Self = Self(1);
    /// A reserved bit on the way, or a virtual address `value` that is not canonical.
    pub const MALFORMED: Self = Self(2);
    /// There is no memory at the physical address `value`.
    pub const OUTSIDE_MEMORY: Self = Self(3);
    /// The virtual address `value` is mapped already.
    pub const ALREADY_MAPPED: Self = Self(4);
    /// Other vCPUs change the page-table entry of the virtual address `value` all the time.
    pub const CONTENDED: Self = Self(5);
    /// The address `value` is not a multiple of 4096.
    pub const UNALIGNED: Self = Self(6);
    /// All `value` pages of the pool are in use.
    pub const POOL_EXHAUSTED: Self = Self(7);
    /// The page `value` is none that this hook has taken.
    pub const NOT_TAKEN: Self = Self(8);
    /// The instruction at `value` can't be read.
    pub const UNREADABLE_CODE: Self = Self(9);
    /// The bytes at `value` are no instruction.
    pub const NO_INSTRUCTION: Self = Self(10);
    /// The vCPUs' translations can't be flushed; `value` is the errno.
    pub const FLUSH: Self = Self(11);
    /// There is a recorded fault and no guest.
    pub const NO_GUEST: Self = Self(12);
    /// KVM refuses memory for more pages of the pool; `value` is the errno.
    pub const POOL_REFUSED: Self = Self(13);
    /// The virtual address `value` has no last-level page table, and Linux can't use one of the pool's.
    pub const NO_TABLE: Self = Self(14);
}

/// What kind of guest it is.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GuestKind(pub u32);

impl GuestKind {
    /// None of the below.
    pub const OTHER: Self = Self(0);
    /// Linux.
    pub const LINUX: Self = Self(1);
}

/// How a call of the guest's ended, and the address or number that this is about.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct GuestResult {
    /// How it ended.
    pub status: GuestStatus,
    /// 0.
    pub padding: u32,
    /// What it is about; 0 where all is well.
    pub value: u64,
}

/// Where a virtual address leads.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Translation {
    /// The physical address.
    pub address: u64,
    /// Size of the page, in bytes: 4 KiB, 2 MiB or 1 GiB.
    pub page_size: u64,
    /// What the mapping allows: bit 0 writes, 1 user mode, 2 instruction fetches.
    pub access: u32,
    /// 0.
    pub padding: u32,
}

/// A leaf of the page tables as it was before it was changed.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Mapping {
    /// Physical address of the page's frame.
    pub frame: u64,
    /// Size of the page, in bytes: 4 KiB, 2 MiB or 1 GiB.
    pub page_size: u64,
    /// Physical address of the leaf's entry.
    pub slot: u64,
    /// The entry.
    pub entry: u64,
    /// What the mapping allowed: bit 0 writes, 1 user mode, 2 instruction fetches.
    pub access: u32,
    /// 1 where the CPU had written through it, otherwise 0.
    pub dirty: u32,
}

/// A page-table entry on the way to an address.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct TableEntry {
    /// Physical address of the entry.
    pub slot: u64,
    /// The entry.
    pub entry: u64,
    /// Level of its table; level 1 maps 4 KiB.
    pub level: u32,
    /// 0.
    pub padding: u32,
}

/// Where a walk ended: at the last of its entries.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Step(pub u32);

impl Step {
    /// It is a leaf; `translation` is filled in.
    pub const LEAF: Self = Self(0);
    /// It is not present.
    pub const ABSENT: Self = Self(1);
    /// It has a reserved bit.
    pub const RESERVED: Self = Self(2);
}

/// A walk through the page tables, entry by entry.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Walk {
    /// The entries that were read, from the top-level table down.
    pub entries: [TableEntry; 5],
    /// How many of them there are.
    pub count: u32,
    /// Where it ended.
    pub end: Step,
    /// Where the address leads, if it ended at a leaf.
    pub translation: Translation,
}

/// The bytes of an instruction, and those behind it.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Code {
    /// Where the first byte is.
    pub rip: u64,
    /// How many bytes could be read.
    pub count: u32,
    /// Operand and address size: 16, 32 or 64.
    pub bits: u32,
    /// The bytes; those from `count` on are 0.
    pub bytes: [u8; 16],
}

/// What else decides how the faulting instruction ran.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemRegisters {
    /// CR0: paging, and whether read-only pages hold for the kernel.
    pub cr0: u64,
    /// CR4: the paging mode, SMEP, SMAP, protection keys.
    pub cr4: u64,
    /// EFER: long mode, NX.
    pub efer: u64,
    /// Where FS begins.
    pub fs_base: u64,
    /// Where GS begins.
    pub gs_base: u64,
}

/// The guest, while a fault waits for its verdict. Valid until the function returns that was given it, on its thread.
#[repr(C)]
#[derive(Debug)]
pub struct Guest {
    /// What can be done with it; each function takes the guest itself as its first argument.
    pub calls: *const GuestCalls,
    /// The host's.
    pub context: *mut c_void,
}

/// What can be done with a guest. Where a result's status is not OK, what it should have filled in is unspecified.
#[repr(C)]
#[derive(Debug)]
pub struct GuestCalls {
    /// The interrupted registers. What is written to them is in force when the guest goes on.
    pub registers: unsafe extern "C" fn(guest: *mut Guest) -> *mut Registers,
    /// System registers of the vCPU that faulted.
    pub system_registers: unsafe extern "C" fn(guest: *mut Guest, registers: *mut SystemRegisters),
    /// What kind of guest it is.
    pub kind: unsafe extern "C" fn(guest: *mut Guest) -> GuestKind,
    /// The page tables that virtual addresses go through.
    pub address_space: unsafe extern "C" fn(guest: *mut Guest) -> u64,
    /// Sends virtual addresses through other page tables, until the hook returns.
    pub use_address_space: unsafe extern "C" fn(guest: *mut Guest, cr3: u64),
    /// Every page-table entry on the way to an address.
    pub walk: unsafe extern "C" fn(guest: *mut Guest, address: u64, walk: *mut Walk) -> GuestResult,
    /// Where an address leads.
    pub translate: unsafe extern "C" fn(guest: *mut Guest, address: u64, translation: *mut Translation) -> GuestResult,
    /// Reads virtual memory, without regard to rights.
    pub read: unsafe extern "C" fn(guest: *mut Guest, address: u64, buffer: *mut c_void, length: usize) -> GuestResult,
    /// Writes virtual memory, without regard to rights.
    pub write: unsafe extern "C" fn(guest: *mut Guest, address: u64, data: *const c_void, length: usize) -> GuestResult,
    /// Reads physical memory.
    pub read_physical:
        unsafe extern "C" fn(guest: *mut Guest, address: u64, buffer: *mut c_void, length: usize) -> GuestResult,
    /// Writes physical memory.
    pub write_physical:
        unsafe extern "C" fn(guest: *mut Guest, address: u64, data: *const c_void, length: usize) -> GuestResult,
    /// Replaces 8 aligned bytes of physical memory that still are `current`; `exchanged` is 1 where they were, otherwise 0.
    pub compare_exchange: unsafe extern "C" fn(
        guest: *mut Guest,
        address: u64,
        current: u64,
        new_value: u64,
        exchanged: *mut u8,
    ) -> GuestResult,
    /// Takes a zeroed page of 4 KiB from the pool of host-owned pages.
    pub allocate_page: unsafe extern "C" fn(guest: *mut Guest, page: *mut u64) -> GuestResult,
    /// Gives such a page back, which must not be mapped any more.
    pub free_page: unsafe extern "C" fn(guest: *mut Guest, page: u64) -> GuestResult,
    /// Maps a page of 4 KiB to a frame; `access`: bit 0 writes, 1 user mode, 2 instruction fetches. In a Linux guest the last-level
    /// page table must be there, and the kernel complains of the page when it finds it.
    pub map: unsafe extern "C" fn(guest: *mut Guest, page: u64, frame: u64, access: u32) -> GuestResult,
    /// Makes the leaf that maps a page absent.
    pub unmap: unsafe extern "C" fn(guest: *mut Guest, page: u64, mapping: *mut Mapping) -> GuestResult,
    /// Gives the leaf that maps a page other rights.
    pub protect: unsafe extern "C" fn(guest: *mut Guest, page: u64, access: u32, mapping: *mut Mapping) -> GuestResult,
    /// Makes every vCPU forget its translations.
    pub flush: unsafe extern "C" fn(guest: *mut Guest) -> GuestResult,
    /// The bytes of the instruction that faulted.
    pub code: unsafe extern "C" fn(guest: *mut Guest, code: *mut Code) -> GuestResult,
    /// The instruction that faulted, as Intel writes it, and its length in bytes.
    pub instruction: unsafe extern "C" fn(guest: *mut Guest, text: *mut Sink, length: *mut u32) -> GuestResult,
    /// Nanoseconds since the VM was started.
    pub elapsed: unsafe extern "C" fn(guest: *mut Guest) -> u64,
    /// Writes a line to the VM's log under this hook's name.
    pub log: unsafe extern "C" fn(guest: *mut Guest, message: Text),
    /// Puts a result into words.
    pub explain: unsafe extern "C" fn(guest: *mut Guest, result: GuestResult, text: *mut Sink),
}

/// The options of a hook, as its user wrote them in the config file.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// A JSON object with an entry for each option.
    pub json: Text,
    /// The folder that relative paths among them start from.
    pub folder: Text,
}

/// What is wrong with a hook's options.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct OptionsError {
    /// Takes the name of the option at fault; nothing: it is all of them together.
    pub key: *mut Sink,
    /// Takes what was got and what is allowed.
    pub message: *mut Sink,
}

/// What is known of one option, for "vector14 hooks" and "vector14 check".
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct OptionDoc {
    /// Key in the hook's table.
    pub name: Text,
    /// What it takes, in a word.
    pub value: Text,
    /// What holds when it is not given; no text: it must be.
    pub default_value: Text,
    /// One line on what it does.
    pub help: Text,
}

/// How a function of a hook's ended.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Status(pub u32);

impl Status {
    /// Well.
    pub const OK: Self = Self(0);
    /// Not well; the text says why. The fault is reinjected, and the hook left out.
    pub const FAILED: Self = Self(1);
    /// It panicked, or what its language has in the place of that; the text says why and where.
    pub const PANICKED: Self = Self(2);
}

/// The sizes of all structs, in bytes, as the library knows them.
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

/// What a descriptor begins with in every version of this interface.
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

/// A kind of hook. A library exports one, under the name vector14_hook. The functions are called on any thread, `on_fault` from
/// several at once; none may throw, jump or unwind out of itself. A library is never unloaded.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Descriptor {
    /// VECTOR14_PREFIX.
    pub prefix: Prefix,
    /// What to call the hook.
    pub name: Text,
    /// One line on what it does.
    pub summary: Text,
    /// The options that it understands.
    pub options: *const OptionDoc,
    /// How many there are.
    pub option_count: usize,
    /// Finds what `create` would object to, without leaving a trace. NULL: nothing.
    pub check: Option<unsafe extern "C" fn(options: *const Options, error: *mut OptionsError) -> Status>,
    /// Makes a hook, whatever that is: the other functions get it back. NULL: there is nothing to be made.
    pub create: Option<
        unsafe extern "C" fn(options: *const Options, hook: *mut *mut c_void, error: *mut OptionsError) -> Status,
    >,
    /// Decides about one fault. The text is the reason of STOP, or of a failure.
    pub on_fault: Option<
        unsafe extern "C" fn(
            hook: *mut c_void,
            fault: *const Fault,
            guest: *mut Guest,
            verdict: *mut Verdict,
            text: *mut Sink,
        ) -> Status,
    >,
    /// Called once, after the last fault. The text is the report, as JSON:
    /// {"tables": [{"title": "", "columns": [""], "rows": [[""]]}], "warnings": [""]}, or nothing. NULL: there is none.
    pub on_end: Option<unsafe extern "C" fn(hook: *mut c_void, guest: *mut Guest, text: *mut Sink) -> Status>,
    /// Frees what `create` made. NULL: there is nothing to be freed.
    pub destroy: Option<unsafe extern "C" fn(hook: *mut c_void)>,
}
