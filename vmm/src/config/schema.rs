//! The values of a parsed config. Where each was written is not kept, except for hooks: they check their own options
//! later.

use std::fmt;
use std::ops::Range;
use std::path::PathBuf;
use std::time::Duration;

use vector14_hook::{ErrorCode, Options, Va};

use super::defaults;
use super::hooks::HookPlaces;
use crate::chain::Trust;
use crate::library::Library;

/// A parsed config.
#[derive(Clone, Debug)]
pub struct Config {
    /// What to call the config in messages: the file as its user named it.
    pub name: String,
    /// The machine.
    pub vm: VmConfig,
    /// What the machine boots.
    pub boot: BootConfig,
    /// The machine's disks, in the order in which the guest numbers them.
    pub disks: Vec<DiskConfig>,
    /// How page faults are intercepted.
    pub intercept: InterceptConfig,
    /// How the VM is controlled while it runs.
    pub control: ControlConfig,
    /// The hooks that faults go through, in chain order.
    pub hooks: Vec<HookConfig>,
}

impl Config {
    /// A config for the tiny guest with this command line, and defaults for everything else.
    #[must_use]
    pub fn tiny(cmdline: impl Into<String>) -> Self {
        Self {
            name: "tiny".to_owned(),
            vm: VmConfig::default(),
            boot: BootConfig { cmdline: cmdline.into(), ..BootConfig::of(Kernel::Tiny) },
            disks: Vec::new(),
            intercept: InterceptConfig::default(),
            control: ControlConfig::default(),
            hooks: Vec::new(),
        }
    }
}

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
        Self { memory: defaults::MEMORY, vcpus: defaults::VCPUS, timeout: defaults::TIMEOUT, nested: defaults::NESTED }
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
        let (protocol, cmdline) = (defaults::PROTOCOL, defaults::CMDLINE.to_owned());
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

/// `[intercept]`: how faults are intercepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InterceptConfig {
    /// The engine that intercepts faults.
    pub engine: EngineChoice,
    /// Where the `gate` engine may put its stubs in the guest; `None`: vector14 looks for room.
    pub stub: Option<Range<Va>>,
    /// Which faults cause an exit with the `exception-bitmap` engine; `None`: all of them.
    pub error_code: Option<ErrorCodeFilter>,
}

impl Default for InterceptConfig {
    fn default() -> Self {
        Self { engine: defaults::ENGINE, stub: None, error_code: None }
    }
}

/// `intercept.error_code`: a fault causes an exit if its error code, masked with `mask`, is `value`. Other faults go
/// straight to the guest's own handler.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ErrorCodeFilter {
    /// The bits that are compared.
    pub mask: ErrorCode,
    /// What these bits must be. Every bit set here is also set in `mask`.
    pub value: ErrorCode,
}

impl ErrorCodeFilter {
    /// A filter that matches every fault.
    pub const ALL: Self = Self { mask: ErrorCode::empty(), value: ErrorCode::empty() };
}

/// `intercept.engine`: how faults are intercepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EngineChoice {
    /// The best engine that this host's KVM offers.
    Auto,
    /// IDT entry 14 points to a stub that exits to the host.
    Gate,
    /// Faults cause an exit before they are delivered. This needs a patched KVM.
    ExceptionBitmap,
    /// Faults are not intercepted.
    Off,
}

impl EngineChoice {
    /// All engines, in the order in which messages list them.
    pub const ALL: [Self; 4] = [Self::Auto, Self::Gate, Self::ExceptionBitmap, Self::Off];

    /// The name in the config file.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Gate => "gate",
            Self::ExceptionBitmap => "exception-bitmap",
            Self::Off => "off",
        }
    }
}

impl fmt::Display for EngineChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// `[control]`: how a VM is controlled while it runs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ControlConfig {
    /// Path of the control socket; `None`: no socket.
    pub socket: Option<PathBuf>,
}

/// `[[hook]]`: one hook of the chain.
#[derive(Clone, Debug)]
pub struct HookConfig {
    /// Name of the hook's type, or the name given to a hook from a library.
    pub name: String,
    /// The library that the hook is loaded from; `None`: the hook is one that is compiled into the program.
    pub library: Option<Library>,
    /// How far the hook is trusted.
    pub trust: Trust,
    /// The hook's own options.
    pub options: Options,
    /// Where the hook's table was written.
    pub(super) places: HookPlaces,
}

impl HookConfig {
    /// A hook that does not come from a config file.
    pub fn new(name: impl Into<String>, options: Options) -> Self {
        Self { name: name.into(), library: None, trust: defaults::TRUST, options, places: HookPlaces::default() }
    }
}
