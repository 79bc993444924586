//! The global descriptor table, and the task-state segments that it names (SDM vol. 3A, 3.4 and 8.7).

use core::arch::asm;
use core::cell::UnsafeCell;
use core::mem::offset_of;

/// Number of TSS descriptors in the table; CPUs beyond these are not started.
pub const MAX_CPUS: usize = 8;

/// Ring 0's code segment: the selector that the boot protocol arrives with.
pub const KERNEL_CODE: u64 = 0x10;
/// Ring 3's data segment.
pub const USER_DATA: u64 = 0x28 | 3;
/// Ring 3's code segment.
pub const USER_CODE: u64 = 0x30 | 3;
const FIRST_TSS: u64 = 0x40;

/// The global descriptor table: flat segments, then a 16-byte TSS descriptor for each CPU.
#[repr(transparent)]
pub struct Gdt(UnsafeCell<[u64; 8 + 2 * MAX_CPUS]>);

// SAFETY: a CPU writes only its own TSS descriptor.
unsafe impl Sync for Gdt {}

pub static GDT: Gdt = Gdt(UnsafeCell::new({
    let mut gdt = [0; 8 + 2 * MAX_CPUS];
    gdt[2] = 0x00af_9b00_0000_ffff; // code, DPL 0, L
    gdt[3] = 0x00cf_9300_0000_ffff; // data, DPL 0
    gdt[5] = 0x00cf_f300_0000_ffff; // data, DPL 3
    gdt[6] = 0x00af_fb00_0000_ffff; // code, DPL 3, L
    gdt
}));

impl Gdt {
    /// Copies the table to `to`.
    ///
    /// # Safety
    /// `to` is valid for writes of as many bytes as the table has.
    pub unsafe fn copy_to(&self, to: *mut u8) {
        // SAFETY: the caller's promise; nobody writes to the table meanwhile, once all CPUs have begun.
        unsafe { to.copy_from_nonoverlapping(self.0.get().cast(), GDT_LIMIT as usize + 1) };
    }
}

/// Limit of the [`GDT`].
pub const GDT_LIMIT: u16 = (8 * (8 + 2 * MAX_CPUS) - 1) as u16;

/// The task-state segment (SDM vol. 3A, 8.7), whose 8-byte fields are only 4-byte aligned. Its I/O permission bitmap
/// opens the ports to ring 3. So does IOPL 3, but not every KVM that runs this guest keeps IOPL, and QEMU's emulation
/// of a CPU does not look at the bitmap of a TSS that is busy, which it is after a hypervisor has written its
/// descriptor back.
#[repr(C)]
pub struct Tss {
    _reserved: u32,
    rsp0: [u32; 2],
    _unused: [u32; 6],
    ist1: [u32; 2],
    _unused_too: [u32; 14],
    bitmap_offset: u32,
    /// A clear bit for each port below 0x400.
    bitmap: [u8; 0x400 / 8],
    /// All ones: the CPU reads one byte more than it needs (SDM vol. 1, 19.5.2).
    bitmap_end: u32,
}

/// Sets the stack that exceptions from ring 3 switch to; it ends at `rsp0`.
///
/// # Safety
/// `tss` is valid for writes.
#[inline(always)]
pub unsafe fn set_rsp0(tss: *mut Tss, rsp0: u64) {
    // SAFETY: the caller's promise. Volatile: the CPU reads it.
    unsafe {
        (&raw mut (*tss).rsp0[0]).write_volatile(rsp0 as u32);
        (&raw mut (*tss).rsp0[1]).write_volatile((rsp0 >> 32) as u32);
    }
}

/// Sets the stack that gates with IST 1 switch to; it ends at `ist1`.
///
/// # Safety
/// `tss` is valid for writes.
pub unsafe fn set_ist1(tss: *mut Tss, ist1: u64) {
    // SAFETY: the caller's promise. Volatile: the CPU reads it.
    unsafe {
        (&raw mut (*tss).ist1[0]).write_volatile(ist1 as u32);
        (&raw mut (*tss).ist1[1]).write_volatile((ist1 >> 32) as u32);
    }
}

/// Loads the GDT, and for CPU `index` its TSS with the ring-0 stack that ends at `rsp0`.
///
/// # Safety
/// Call it in ring 0. `index` is this CPU's, and `tss` belongs to this CPU from now on.
#[inline(always)]
pub unsafe fn load(index: usize, tss: *mut Tss, rsp0: u64) {
    let selector = FIRST_TSS as usize + 16 * index;
    // SAFETY: the caller's promise makes the TSS and its descriptor this CPU's alone. All writes are volatile so that
    // they stay single stores. The selectors name descriptors of the table.
    unsafe {
        set_rsp0(tss, rsp0);
        (&raw mut (*tss).bitmap_offset).write_volatile((offset_of!(Tss, bitmap) as u32) << 16);
        (&raw mut (*tss).bitmap_end).write_volatile(u32::MAX);
        let descriptor = GDT.0.get().cast::<u64>().add(selector / 8);
        descriptor.write_volatile(tss_descriptor(tss as u64));
        descriptor.add(1).write_volatile(0);

        let gdtr = TableRegister::new(GDT.0.get() as u64, GDT_LIMIT);
        asm!("lgdt [{}]", in(reg) &raw const gdtr, options(nostack, readonly, preserves_flags));
        asm!("ltr {:x}", in(reg) selector as u16, options(nostack, preserves_flags));
        asm!("mov ds, {0:e}", "mov es, {0:e}", "mov fs, {0:e}", "mov gs, {0:e}", in(reg) USER_DATA as u32,
            options(nostack, preserves_flags));
    }
}

/// A present 64-bit TSS that is not busy, below 4 GiB.
#[inline(always)]
fn tss_descriptor(base: u64) -> u64 {
    (size_of::<Tss>() as u64 - 1) | (base & 0xff_ffff) << 16 | 0x89 << 40 | (base >> 24 & 0xff) << 56
}

/// The operand of LGDT and LIDT.
#[repr(C, align(2))]
pub struct TableRegister([u16; 5]);

impl TableRegister {
    #[inline(always)]
    pub fn new(base: u64, limit: u16) -> Self {
        Self([limit, base as u16, (base >> 16) as u16, (base >> 32) as u16, (base >> 48) as u16])
    }
}
