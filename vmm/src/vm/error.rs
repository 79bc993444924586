//! Why a VM can't be made or run, what to do about it, and whose fault it is.

use std::path::PathBuf;

use crate::device::ImageError;
use crate::engine::EngineError;
use crate::loader::LoadError;
use crate::memory::MemoryError;
use crate::summary::Summary;
use crate::sys::mapped::RefusedSlot;

/// Why a VM can't be made or run.
#[derive(Debug, thiserror::Error)]
pub enum VmError {
    /// There is no KVM, or no right to use it.
    #[error("{} can't be opened: {source}", .path.display())]
    NoKvm {
        /// Where it was looked for.
        path: PathBuf,
        /// What the host says.
        source: kvm_ioctls::Error,
    },
    /// There is something else in the place of KVM.
    #[error("{} is no KVM device", .path.display())]
    NotKvm {
        /// What was opened.
        path: PathBuf,
    },
    /// This host's KVM lacks something that a VM can't do without.
    #[error("this host's KVM lacks {0}")]
    MissingCapability(&'static str),
    /// KVM refuses.
    #[error("{call} failed: {source}")]
    Kvm {
        /// The ioctl.
        call: &'static str,
        /// What KVM says.
        source: kvm_ioctls::Error,
    },
    /// KVM refuses a range of guest memory.
    #[error("KVM refuses {size} bytes of guest memory at {start:#x}: {source}")]
    Slot {
        /// Guest-physical start.
        start: u64,
        /// Size, in bytes.
        size: u64,
        /// What KVM says.
        source: kvm_ioctls::Error,
    },
    /// The engine that the config asks for can't be had.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// The host has no memory for the guest.
    #[error(transparent)]
    Memory(#[from] MemoryError),
    /// The kernel, or what goes with it, is not what it should be, or does not fit.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// A disk's image can't be used.
    #[error("disk {}: {source}", .path.display())]
    Disk {
        /// The image.
        path: PathBuf,
        /// Why not.
        source: ImageError,
    },
    /// Something else of the host's: descriptors, threads.
    #[error("{what}: {source}")]
    Host {
        /// What was attempted.
        what: &'static str,
        /// What the host says.
        source: std::io::Error,
    },
}

impl From<RefusedSlot> for VmError {
    fn from(RefusedSlot { start, size, source }: RefusedSlot) -> Self {
        Self::Slot { start, size, source }
    }
}

/// The host failed a VM that ran. Its hooks were ended all the same.
#[derive(Debug, thiserror::Error)]
#[error("{source}")]
pub struct RunError {
    /// What failed.
    pub source: VmError,
    /// What the run came to until then.
    pub summary: Box<Summary>,
}

impl VmError {
    /// The exit status of the `vector14` command for this error: 2 where the config is to blame, 3 where the host is.
    #[must_use]
    pub fn exit_status(&self) -> u8 {
        match self {
            Self::Load(_) | Self::Disk { .. } | Self::Engine(EngineError::FilterOnGate) => 2,
            Self::NoKvm { .. }
            | Self::NotKvm { .. }
            | Self::MissingCapability(_)
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

    /// What to do about it, where there is something to be done.
    #[must_use]
    pub fn help(&self) -> Option<&'static str> {
        match self {
            Self::NoKvm { source, .. } if source.errno() == libc::EACCES => Some(
                "this user has no right to it: join its group (`sudo usermod -aG kvm $USER`, then log in again), or run as root",
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
            Self::Engine(EngineError::NestedGate) => Some(
                "Linux 6.11 and later have it; or leave vm.nested out, and the guest is not told of AMD-V and VT-x",
            ),
            Self::Memory(_) => Some("lower vm.memory, or free memory on the host"),
            Self::NoKvm { .. }
            | Self::NotKvm { .. }
            | Self::MissingCapability(_)
            | Self::Kvm { .. }
            | Self::Slot { .. } => Some("`vector14 doctor` says what this host's KVM offers"),
            Self::Load(_)
            | Self::Disk { .. }
            | Self::Host { .. }
            | Self::Engine(EngineError::FilterOnGate | EngineError::Refused(_)) => None,
        }
    }
}

/// Gives a failing ioctl its name.
pub(crate) fn call<T>(call: &'static str, result: Result<T, kvm_ioctls::Error>) -> Result<T, VmError> {
    result.map_err(|source| VmError::Kvm { call, source })
}

/// Gives another failure of the host's a name.
pub(crate) fn host<T>(what: &'static str, result: Result<T, impl Into<std::io::Error>>) -> Result<T, VmError> {
    result.map_err(|source| VmError::Host { what, source: source.into() })
}
