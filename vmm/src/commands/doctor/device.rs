//! The KVM device: whether it exists, can be opened, and is KVM.

use std::ffi::CString;
use std::fmt;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use kvm_ioctls::Kvm;
use serde::Serialize;

/// Where the KVM device usually is.
pub use crate::vm::kvm::DEFAULT_PATH;

/// The only version of the KVM API since Linux 2.6.22 (KVM API, 4.1).
const API_VERSION: i32 = 12;

/// The KVM device.
#[derive(Clone, Debug, Serialize)]
pub struct Device {
    /// Path of the device.
    pub path: PathBuf,
    /// State of the device.
    #[serde(flatten)]
    pub state: DeviceState,
}

/// State of the KVM device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "state", rename_all = "kebab-case")]
pub enum DeviceState {
    /// The device can be opened, and creates VMs.
    Usable {
        /// KVM_GET_API_VERSION.
        api_version: i32,
    },
    /// The device does not exist.
    Missing,
    /// The device can't be opened for reading and writing, for lack of permission.
    Denied,
    /// The device exists, but can't be opened for some other reason.
    Unopenable {
        /// The host's error.
        error: String,
    },
    /// The file is not KVM's device, or it has an unknown version of the KVM API.
    NotKvm {
        /// KVM_GET_API_VERSION, or -1 where it failed.
        api_version: i32,
    },
    /// The device is KVM's, but KVM_CREATE_VM fails.
    NoVms {
        /// The host's error.
        error: String,
    },
}

impl fmt::Display for DeviceState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Usable { api_version } => write!(f, "usable, API version {api_version}"),
            Self::Missing => write!(f, "does not exist"),
            Self::Denied => write!(f, "exists, but permission to open it is denied"),
            Self::Unopenable { error } => write!(f, "can't be opened: {error}"),
            Self::NotKvm { api_version: -1 } => write!(f, "is not a KVM device"),
            Self::NotKvm { api_version } => write!(f, "has KVM API version {api_version}, not {API_VERSION}"),
            Self::NoVms { error } => write!(f, "is KVM, but can't create a VM: {error}"),
        }
    }
}

/// Opens the device, and checks that it is KVM and creates VMs. A KVM that can't create VMs is still returned, for
/// queries.
pub(super) fn open(path: &Path) -> (Device, Option<Kvm>) {
    let (state, kvm) = match kvm_at(path) {
        Ok(kvm) => match state_of(&kvm) {
            state @ DeviceState::NotKvm { .. } => (state, None),
            state => (state, Some(kvm)),
        },
        Err(error) => (state_of_error(&error), None),
    };
    (Device { path: path.to_owned(), state }, kvm)
}

fn kvm_at(path: &Path) -> io::Result<Kvm> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    Ok(Kvm::new_with_path(path)?)
}

fn state_of(kvm: &Kvm) -> DeviceState {
    let api_version = kvm.get_api_version();
    if api_version != API_VERSION {
        return DeviceState::NotKvm { api_version };
    }
    match kvm.create_vm() {
        Ok(_vm) => DeviceState::Usable { api_version },
        Err(error) => DeviceState::NoVms { error: io::Error::from(error).to_string() },
    }
}

fn state_of_error(error: &io::Error) -> DeviceState {
    match error.kind() {
        io::ErrorKind::NotFound => DeviceState::Missing,
        io::ErrorKind::PermissionDenied => DeviceState::Denied,
        _ => DeviceState::Unopenable { error: error.to_string() },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_that_are_not_kvm_are_told_apart() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("kvm");
        std::fs::write(&file, "").unwrap();
        let state = |path: &Path| open(path).0.state;
        assert_eq!(state(&folder.path().join("nothing")), DeviceState::Missing);
        assert_eq!(state(&file), DeviceState::NotKvm { api_version: -1 });
        assert_eq!(state(Path::new("/dev/null")), DeviceState::NotKvm { api_version: -1 });
        assert!(matches!(state(folder.path()), DeviceState::Unopenable { .. }));
    }

    #[test]
    fn a_missing_right_is_not_a_missing_device() {
        assert_eq!(state_of_error(&io::Error::from_raw_os_error(libc::EACCES)), DeviceState::Denied);
        assert_eq!(state_of_error(&io::Error::from_raw_os_error(libc::ENOENT)), DeviceState::Missing);
        // The device node exists, and its module is not loaded.
        let state = state_of_error(&io::Error::from_raw_os_error(libc::ENODEV));
        assert!(matches!(state, DeviceState::Unopenable { .. }));
    }
}
