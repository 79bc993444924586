//! What holds where a config file says nothing, and the limits of what it may say.

use std::ops::RangeInclusive;
use std::time::Duration;

use super::{EngineChoice, ProtocolChoice};
use crate::chain::Trust;

/// `vm.memory`, in bytes.
pub const MEMORY: u64 = 64 << 20;
/// What `vm.memory` may be, in bytes.
pub const MEMORY_RANGE: RangeInclusive<u64> = (2 << 20)..=(1 << 40);
/// `vm.memory` is a multiple of this, in bytes.
pub const MEMORY_STEP: u64 = 4 << 10;

/// `vm.vcpus`.
pub const VCPUS: u32 = 1;
/// What `vm.vcpus` may be.
pub const VCPUS_RANGE: RangeInclusive<u32> = 1..=8;

/// Distance of two stubs in `intercept.stub`, in bytes. No stub is longer.
pub const STUB_STRIDE: usize = 16;

/// `vm.timeout`: none.
pub const TIMEOUT: Option<Duration> = None;
/// `vm.nested`.
pub(super) const NESTED: bool = false;
/// The longest `vm.timeout`, in days.
pub const TIMEOUT_MAX_DAYS: u64 = 365;

/// `boot.protocol`.
pub const PROTOCOL: ProtocolChoice = ProtocolChoice::Auto;
/// `boot.cmdline`.
pub const CMDLINE: &str = "";

/// `disk.readonly`.
pub const DISK_READONLY: bool = false;
/// How many disks a machine may have: one virtio device is its entropy source.
pub const DISKS_MAX: usize = 7;

/// `intercept.engine`.
pub const ENGINE: EngineChoice = EngineChoice::Auto;

/// `hook.budget`, `hook.timeout` and `hook.on_error`.
pub const TRUST: Trust = Trust::DEFAULT;
/// What `hook.budget` and `hook.timeout` may be: nothing shorter can be told.
pub const TRUST_RANGE: RangeInclusive<Duration> = Duration::from_millis(1)..=Duration::from_secs(24 * 60 * 60);

/// The largest config file that is read, in bytes: anything larger is taken for a file named by mistake.
pub const FILE_MAX: u64 = 1 << 20;
