//! Why a VM can't be created or run, what to do about it, and whether the config or the host is to blame.

use std::path::PathBuf;

use crate::intercept::engine::EngineError;
use crate::machine::device::ImageError;
use crate::machine::loader::LoadError;
use crate::machine::memory::MemoryError;
use crate::sys::mapped::RefusedSlot;
use crate::vm::summary::Summary;

/// Why a VM can't be created or run.
#[derive(Debug, thiserror::Error)]
pub enum VmError {
    /// There is not a KVM device, or no permission to open it.
    #[error("{} can't be opened: {source}", .path.display())]
    NoKvm {
        /// Path of the device.
        path: PathBuf,
        /// The host's error.
        source: kvm_ioctls::Error,
    },
    /// The device is not KVM.
    #[error("{} is not a KVM device", .path.display())]
    NotKvm {
        /// Path of the device.
        path: PathBuf,
    },
    /// This host's KVM lacks something that every VM needs.
    #[error("this host's KVM lacks {name}: {purpose}")]
    MissingCapability {
        /// The capability's name in the KVM API.
        name: &'static str,
        /// What a VM uses it for.
        purpose: &'static str,
    },
    /// An ioctl failed.
    #[error("{call} failed: {source}")]
    Kvm {
        /// Name of the ioctl.
        call: &'static str,
        /// KVM's error.
        source: kvm_ioctls::Error,
    },
    /// KVM refuses a range of guest memory.
    #[error("KVM refuses {size} bytes of guest memory at {start:#x}: {source}")]
    Slot {
        /// Guest-physical start.
        start: u64,
        /// Size, in bytes.
        size: u64,
        /// KVM's error.
        source: kvm_ioctls::Error,
    },
    /// The engine that the config asks for is not available.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// The host has no memory for the guest.
    #[error(transparent)]
    Memory(#[from] MemoryError),
    /// The kernel, or a file loaded with it, is invalid or does not fit.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// A disk's image can't be used.
    #[error("disk {}: {source}", .path.display())]
    Disk {
        /// Path of the image.
        path: PathBuf,
        /// Why the image can't be used.
        source: ImageError,
    },
    /// Another host resource failed, such as a descriptor or a thread.
    #[error("{what}: {source}")]
    Host {
        /// What was attempted.
        what: &'static str,
        /// The host's error.
        source: std::io::Error,
    },
}

impl From<RefusedSlot> for VmError {
    fn from(RefusedSlot { start, size, source }: RefusedSlot) -> Self {
        Self::Slot { start, size, source }
    }
}

/// The host failed while a VM ran. The VM's hooks were ended all the same.
#[derive(Debug, thiserror::Error)]
#[error("{source}")]
pub struct RunError {
    /// What failed.
    pub source: VmError,
    /// Summary of the run up to the failure.
    pub summary: Box<Summary>,
}

impl VmError {
    /// Exit status of the `vector14` command for this error: 2 if the config is to blame, 3 if the host is.
    #[must_use]
    pub fn exit_status(&self) -> u8 {
        match self {
            Self::Load(_) | Self::Disk { .. } | Self::Engine(EngineError::FilterOnGate) => 2,
            Self::NoKvm { .. }
            | Self::NotKvm { .. }
            | Self::MissingCapability { .. }
            | Self::Kvm { .. }
            | Self::Slot { .. }
            | Self::Engine(
                EngineError::NotOffered { .. }
                | EngineError::NoFilter { .. }
                | EngineError::NestedGate
                | EngineError::Refused(_),
            )
            | Self::Memory(_)
            | Self::Host { .. } => 3,
        }
    }

    /// What to do about the error, if anything can be done.
    #[must_use]
    pub fn help(&self) -> Option<&'static str> {
        match self {
            Self::NoKvm { source, .. } if source.errno() == libc::EACCES => Some(
                "this user has no permission to open it: join its group (`sudo usermod -aG kvm $USER`, then log in again), or run as root",
            ),
            Self::NoKvm { source, .. } if source.errno() == libc::ENOENT => Some(
                "load the module (`sudo modprobe kvm_amd` or `kvm_intel`), turn virtualisation on in the firmware, or, inside of a VM, \
                 turn nested virtualisation on for it; `vector14 doctor` says more",
            ),
            Self::Engine(EngineError::NotOffered { .. }) => Some(
                "no stock KVM offers it: `make kvm-module` builds one that does, and kvm/README.md says how to load it; or write \
                 intercept.engine = \"gate\", which runs on any KVM",
            ),
            Self::Engine(EngineError::NoFilter { .. }) => Some(
                "no stock KVM offers it: `make kvm-module` builds one that does, and kvm/README.md says how to load it; or leave \
                 intercept.error_code out and look at the error code in a hook",
            ),
            Self::Engine(EngineError::NestedGate) => {
                Some("Linux 6.11 and later have it; or leave vm.nested out, which hides AMD-V and VT-x from the guest")
            }
            Self::Memory(_) => Some("lower vm.memory, or free memory on the host"),
            Self::NoKvm { .. }
            | Self::NotKvm { .. }
            | Self::MissingCapability { .. }
            | Self::Kvm { .. }
            | Self::Slot { .. } => Some("`vector14 doctor` says what this host's KVM offers"),
            Self::Load(_)
            | Self::Disk { .. }
            | Self::Host { .. }
            | Self::Engine(EngineError::FilterOnGate | EngineError::Refused(_)) => None,
        }
    }
}

/// Names the ioctl that failed.
pub(crate) fn call<T>(call: &'static str, result: Result<T, kvm_ioctls::Error>) -> Result<T, VmError> {
    result.map_err(|source| VmError::Kvm { call, source })
}

/// Describes what another host failure was about.
pub(crate) fn host<T>(what: &'static str, result: Result<T, impl Into<std::io::Error>>) -> Result<T, VmError> {
    result.map_err(|source| VmError::Host { what, source: source.into() })
}
