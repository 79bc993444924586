//! What the boot loader tells the kernel.

use core::ffi::CStr;

use crate::cpu;

/// The size of the RAM that the boot code maps; RAM above is not used.
const MAPPED_RAM: u64 = 1 << 30;

/// `struct boot_params`, of Linux's Documentation/arch/x86/zero-page.rst: the fields that this kernel reads.
#[repr(C, packed)]
pub struct BootParams {
    _before_count: [u8; 0x1e8],
    e820_count: u8,
    _before_cmdline: [u8; 0x228 - 0x1e9],
    cmdline: u32,
    _before_e820: [u8; 0x2d0 - 0x22c],
    e820: [E820; 128],
}

#[repr(C, packed)]
#[derive(Clone, Copy)]
struct E820 {
    address: u64,
    size: u64,
    kind: u32,
}

impl BootParams {
    /// End of the RAM region that holds this kernel.
    pub fn ram_end(&self) -> u64 {
        const RAM: u32 = 1;
        let here = cpu::CPUS.address();
        let count = (self.e820_count as usize).min(128);
        let entries = self.e820;
        let entry = entries[..count].iter().find(|e| e.kind == RAM && (e.address..e.address + e.size).contains(&here));
        entry.map_or(0, |e| (e.address + e.size).min(MAPPED_RAM))
    }

    /// The command line; empty if there is none, or it is not ASCII.
    pub fn cmdline(&self) -> &'static str {
        if self.cmdline == 0 {
            return "";
        }
        // SAFETY: the boot protocol says that a NUL-terminated string is there. Nothing overwrites it: the frames that
        // this kernel gives out lie after its image, and the string is far from the page that CPUs are started from.
        let line = unsafe { CStr::from_ptr(self.cmdline as usize as *const _) };
        line.to_str().unwrap_or("")
    }
}
