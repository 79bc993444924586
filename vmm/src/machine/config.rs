//! What a config says of the machine and of what it boots.

use std::fmt;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use vector14_hook::MAX_VCPUS;

use super::device::virtio::SLOTS;

/// Default of `vm.memory`, in bytes.
pub(crate) const MEMORY: u64 = 64 << 20;
/// Allowed values of `vm.memory`, in bytes.
pub(crate) const MEMORY_RANGE: RangeInclusive<u64> = (2 << 20)..=(1 << 40);
/// `vm.memory` is a multiple of this, in bytes.
pub(crate) const MEMORY_STEP: u64 = 4 << 10;
/// Default of `vm.vcpus`.
pub(crate) const VCPUS: u32 = 1;
/// Allowed values of `vm.vcpus`.
pub(crate) const VCPUS_RANGE: RangeInclusive<u32> = 1..=8;
// More would share their counters, which are not atomic.
const _: () = assert!(*VCPUS_RANGE.end() as usize == MAX_VCPUS);
/// Default of `vm.timeout`: no timeout.
pub(crate) const TIMEOUT: Option<Duration> = None;
/// The longest `vm.timeout`, in days.
pub(crate) const TIMEOUT_MAX_DAYS: u64 = 365;
/// Default of `vm.nested`.
pub(crate) const NESTED: bool = false;
/// Default of `boot.protocol`.
pub(crate) const PROTOCOL: ProtocolChoice = ProtocolChoice::Auto;
/// Default of `boot.cmdline`.
pub(crate) const CMDLINE: &str = "";
/// Default of `disk.readonly`.
pub(crate) const DISK_READONLY: bool = false;
/// Maximum number of disks: one virtio device is the entropy source.
pub(crate) const DISKS_MAX: usize = SLOTS as usize - 1;

/// `[vm]`: the machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VmConfig {
    /// Guest RAM, in bytes: a multiple of 4 KiB.
    pub memory: u64,
    /// Number of virtual CPUs.
    pub vcpus: u32,
    /// Time after which the guest is stopped; `None`: never.
    pub timeout: Option<Duration>,
    /// Whether the guest sees AMD-V and VT-x, and can run guests of its own.
    pub nested: bool,
}

impl Default for VmConfig {
    fn default() -> Self {
        Self { memory: MEMORY, vcpus: VCPUS, timeout: TIMEOUT, nested: NESTED }
    }
}

/// `[boot]`: what the machine boots.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BootConfig {
    /// The kernel.
    pub kernel: Kernel,
    /// How the kernel is booted.
    pub protocol: ProtocolChoice,
    /// The initial RAM disk of a Linux kernel, or of another kernel that is booted as one.
    pub initrd: Option<PathBuf>,
    /// The modules of a multiboot kernel, in order.
    pub modules: Vec<Module>,
    /// The kernel's command line.
    pub cmdline: String,
}

impl BootConfig {
    /// Boots `kernel`, with defaults for everything else.
    #[must_use]
    pub fn of(kernel: Kernel) -> Self {
        let (protocol, cmdline) = (PROTOCOL, CMDLINE.to_owned());
        Self { kernel, protocol, initrd: None, modules: Vec::new(), cmdline }
    }
}

/// `boot.kernel`: the kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kernel {
    /// `"tiny"`: the test kernel that is built into vector14.
    Tiny,
    /// The path of a kernel's file.
    Path(PathBuf),
}

impl fmt::Display for Kernel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tiny => f.write_str("tiny"),
            Self::Path(path) => write!(f, "{}", path.display()),
        }
    }
}

/// One entry of `boot.modules`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Module {
    /// Path of the file.
    pub path: PathBuf,
    /// The string that the kernel gets with the module: the entry as written, the file's name and the words after it.
    pub string: String,
}

impl fmt::Display for Module {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.string)
    }
}

/// `boot.protocol`: how the kernel is booted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProtocolChoice {
    /// Detected from the kernel's file.
    Auto,
    /// An x86-64 ELF file, entered by the Linux 64-bit boot protocol.
    Elf,
    /// Linux: a bzImage, or else a vmlinux.
    Linux,
    /// Multiboot, version 1.
    Multiboot,
}

impl ProtocolChoice {
    /// All protocols, in the order in which messages list them.
    pub const ALL: [Self; 4] = [Self::Auto, Self::Elf, Self::Linux, Self::Multiboot];

    /// The name in the config file.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Elf => "elf",
            Self::Linux => "linux",
            Self::Multiboot => "multiboot",
        }
    }
}

impl fmt::Display for ProtocolChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// `[[disk]]`: one disk of the machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiskConfig {
    /// Path of the raw image.
    pub path: PathBuf,
    /// Whether the disk is read-only for the guest.
    pub readonly: bool,
}
