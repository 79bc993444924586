//! A parsed config. Where each value was written is not kept, except for hooks: they check their own options later.

use std::path::PathBuf;

use crate::intercept::config::{HookConfig, InterceptConfig};
use crate::machine::config::{BootConfig, DiskConfig, Kernel, VmConfig};

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

/// `[control]`: how a VM is controlled while it runs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ControlConfig {
    /// Path of the control socket; `None`: no socket.
    pub socket: Option<PathBuf>,
}
