//! Arguments that several commands share.

use std::path::PathBuf;

use clap::{Args, ValueHint};
use vector14::config::{Config, ConfigError};
use vector14::doctor::device;
use vector14_hooks::HOOKS;

/// A config file, and the `--set` options that override it.
#[derive(Debug, Args)]
pub(super) struct ConfigArgs {
    /// The config file, in TOML
    #[arg(value_hint = ValueHint::FilePath)]
    config: PathBuf,
    /// Set a key of the config, such as vm.memory=1G, hook.0.file=a.jsonl or hook.trace.file=a.jsonl
    ///
    /// VALUE is parsed as TOML if it can be, and is plain text otherwise: boot.cmdline='"1"' is the text 1. Relative
    /// paths start at the config file's folder, as in the file itself.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    sets: Vec<String>,
}

impl ConfigArgs {
    pub(super) fn load(&self) -> Result<Config, ConfigError> {
        Config::load(&self.config, &self.sets, HOOKS)
    }
}

/// Which KVM device to use.
#[derive(Debug, Args)]
pub(super) struct KvmArgs {
    /// The KVM device
    #[arg(long = "kvm", value_name = "PATH", default_value = device::DEFAULT_PATH, value_hint = ValueHint::FilePath)]
    pub(super) path: PathBuf,
}
