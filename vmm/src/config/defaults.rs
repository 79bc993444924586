//! Defaults for keys that a config file leaves out, and the limits of values.

use std::ops::RangeInclusive;
use std::time::Duration;

use super::{EngineChoice, ProtocolChoice};
use crate::chain::Trust;

/// Default of `vm.memory`, in bytes.
pub const MEMORY: u64 = 64 << 20;
/// Allowed values of `vm.memory`, in bytes.
pub const MEMORY_RANGE: RangeInclusive<u64> = (2 << 20)..=(1 << 40);
/// `vm.memory` is a multiple of this, in bytes.
pub const MEMORY_STEP: u64 = 4 << 10;

/// Default of `vm.vcpus`.
pub const VCPUS: u32 = 1;
/// Allowed values of `vm.vcpus`.
pub const VCPUS_RANGE: RangeInclusive<u32> = 1..=8;

/// Distance between two stubs in `intercept.stub`, in bytes. No stub is longer.
pub const STUB_STRIDE: usize = 16;

/// Default of `vm.timeout`: no timeout.
pub const TIMEOUT: Option<Duration> = None;
/// Default of `vm.nested`.
pub(super) const NESTED: bool = false;
/// The longest `vm.timeout`, in days.
pub const TIMEOUT_MAX_DAYS: u64 = 365;

/// Default of `boot.protocol`.
pub const PROTOCOL: ProtocolChoice = ProtocolChoice::Auto;
/// Default of `boot.cmdline`.
pub const CMDLINE: &str = "";

/// Default of `disk.readonly`.
pub const DISK_READONLY: bool = false;
/// Maximum number of disks: one virtio device is the entropy source.
pub const DISKS_MAX: usize = 7;

/// Default of `intercept.engine`.
pub const ENGINE: EngineChoice = EngineChoice::Auto;

/// Defaults of `hook.budget`, `hook.timeout` and `hook.on_error`.
pub const TRUST: Trust = Trust::DEFAULT;
/// Allowed values of `hook.budget` and `hook.timeout`: shorter times can't be measured.
pub const TRUST_RANGE: RangeInclusive<Duration> = Duration::from_millis(1)..=Duration::from_secs(24 * 60 * 60);

/// Largest config file that is read, in bytes; a larger file was probably named by mistake.
pub const FILE_MAX: u64 = 1 << 20;
