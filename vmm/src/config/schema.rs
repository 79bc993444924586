//! The values that a config comes to. Where each was written is forgotten, except for hooks: their options are looked
//! at later, by the hooks themselves.

use std::fmt;
use std::ops::Range;
use std::path::PathBuf;
use std::time::Duration;

use vector14_hook::{ErrorCode, Options, Va};

use super::defaults;
use super::hooks::HookPlaces;
use crate::chain::Trust;
use crate::library::Library;

/// All that a config file says.
#[derive(Clone, Debug)]
pub struct Config {
    /// What to call the config in messages: the file as its user named it.
    pub name: String,
    /// The machine.
    pub vm: VmConfig,
    /// What it boots.
    pub boot: BootConfig,
    /// Its disks, in the order in which the guest numbers them.
    pub disks: Vec<DiskConfig>,
    /// How its faults are intercepted.
    pub intercept: InterceptConfig,
    /// How it is controlled while it runs.
    pub control: ControlConfig,
    /// What its faults go through, in chain order.
    pub hooks: Vec<HookConfig>,
}

impl Config {
    /// The tiny guest with a command line, and the defaults for everything else.
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
    /// Virtual CPUs.
    pub vcpus: u32,
    /// The guest is stopped when it has run this long; `None`: never.
    pub timeout: Option<Duration>,
    /// Whether the guest is told of AMD-V and VT-x, and can run guests of its own.
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
    /// How it is booted.
    pub protocol: ProtocolChoice,
    /// The initial RAM disk of a Linux kernel, or of another that is booted as one.
    pub initrd: Option<PathBuf>,
    /// The modules of a multiboot kernel, in order.
    pub modules: Vec<Module>,
    /// Its command line.
    pub cmdline: String,
}

impl BootConfig {
    /// A kernel, and the defaults for everything else.
    #[must_use]
    pub fn of(kernel: Kernel) -> Self {
        let (protocol, cmdline) = (defaults::PROTOCOL, defaults::CMDLINE.to_owned());
        Self { kernel, protocol, initrd: None, modules: Vec::new(), cmdline }
    }
}

/// `boot.kernel`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kernel {
    /// `"tiny"`: the test kernel that vector14 carries with it.
    Tiny,
    /// A file.
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

/// One of `boot.modules`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Module {
    /// The file.
    pub path: PathBuf,
    /// What the kernel is told of it: the module as it was written, the file's name and words after it.
    pub string: String,
}

impl fmt::Display for Module {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.string)
    }
}

/// `boot.protocol`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProtocolChoice {
    /// What the kernel's file says.
    Auto,
    /// An x86-64 ELF file, entered by the Linux 64-bit boot protocol.
    Elf,
    /// Linux: a bzImage, or else a vmlinux.
    Linux,
    /// Multiboot, version 1.
    Multiboot,
}

impl ProtocolChoice {
    /// All of them, in the order in which they are offered.
    pub const ALL: [Self; 4] = [Self::Auto, Self::Elf, Self::Linux, Self::Multiboot];

    /// As the config file writes it.
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
    /// The raw image.
    pub path: PathBuf,
    /// Whether the guest may not write to it.
    pub readonly: bool,
}

/// `[intercept]`: how faults are intercepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InterceptConfig {
    /// The engine.
    pub engine: EngineChoice,
    /// Where the guest has room for the `gate` engine's stubs; `None`: it is looked for.
    pub stub: Option<Range<Va>>,
    /// Which faults of the `exception-bitmap` engine leave the guest; `None`: all of them.
    pub error_code: Option<ErrorCodeFilter>,
}

impl Default for InterceptConfig {
    fn default() -> Self {
        Self { engine: defaults::ENGINE, stub: None, error_code: None }
    }
}

/// `intercept.error_code`: a fault leaves the guest where its error code, under `mask`, is `value`. The others go straight
/// to the guest's own handler.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ErrorCodeFilter {
    /// The bits that are looked at.
    pub mask: ErrorCode,
    /// What they must be: no bit that `mask` lacks.
    pub value: ErrorCode,
}

impl ErrorCodeFilter {
    /// The one that lets every fault out.
    pub const ALL: Self = Self { mask: ErrorCode::empty(), value: ErrorCode::empty() };
}

/// `intercept.engine`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EngineChoice {
    /// The best engine that this host's KVM offers.
    Auto,
    /// IDT entry 14 leads to a stub that leaves the guest.
    Gate,
    /// Faults leave the guest before they are delivered, where this host's KVM has been taught to let them.
    ExceptionBitmap,
    /// Faults are not intercepted.
    Off,
}

impl EngineChoice {
    /// All of them, in the order in which they are offered.
    pub const ALL: [Self; 4] = [Self::Auto, Self::Gate, Self::ExceptionBitmap, Self::Off];

    /// As the config file writes it.
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
    /// Where the control socket is made; `None`: there is none.
    pub socket: Option<PathBuf>,
}

/// `[[hook]]`: one hook of the chain.
#[derive(Clone, Debug)]
pub struct HookConfig {
    /// Which hook, or what to call the one that is loaded.
    pub name: String,
    /// The library that it is loaded from; `None`: it is among those that the program knows.
    pub library: Option<Library>,
    /// How far it is trusted.
    pub trust: Trust,
    /// The hook's own options.
    pub options: Options,
    /// Where all this was written.
    pub(super) places: HookPlaces,
}

impl HookConfig {
    /// A hook that no file names.
    pub fn new(name: impl Into<String>, options: Options) -> Self {
        Self { name: name.into(), library: None, trust: defaults::TRUST, options, places: HookPlaces::default() }
    }
}
