//! The KVM device: is it there, may we open it, is it KVM?

use std::ffi::CString;
use std::fmt;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use kvm_ioctls::Kvm;
use serde::Serialize;

/// Where the KVM device usually is.
pub const DEFAULT_PATH: &str = "/dev/kvm";

/// The one version of the KVM API that there has been since Linux 2.6.22 (KVM API, 4.1).
const API_VERSION: i32 = 12;

/// The KVM device.
#[derive(Clone, Debug, Serialize)]
pub struct Device {
    /// Where it is.
    pub path: PathBuf,
    /// How it is.
    #[serde(flatten)]
    pub state: DeviceState,
}

/// How the KVM device is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "state", rename_all = "kebab-case")]
pub enum DeviceState {
    /// It can be opened, and makes VMs.
    Usable {
        /// KVM_GET_API_VERSION.
        api_version: i32,
    },
    /// There is no such file.
    Missing,
    /// We have no right to open it for reading and writing.
    Denied,
    /// It is there, and can't be opened for some other reason.
    Unopenable {
        /// The reason.
        error: String,
    },
    /// It is something else, or a KVM that nobody has seen yet.
    NotKvm {
        /// KVM_GET_API_VERSION, or -1 where it failed.
        api_version: i32,
    },
    /// It is KVM, and KVM_CREATE_VM fails.
    NoVms {
        /// Why.
        error: String,
    },
}

impl fmt::Display for DeviceState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Usable { api_version } => write!(f, "usable, API version {api_version}"),
            Self::Missing => write!(f, "does not exist"),
            Self::Denied => write!(f, "exists, but we have no right to open it"),
            Self::Unopenable { error } => write!(f, "can't be opened: {error}"),
            Self::NotKvm { api_version: -1 } => write!(f, "is not a KVM device"),
            Self::NotKvm { api_version } => write!(f, "speaks KVM API version {api_version}, not {API_VERSION}"),
            Self::NoVms { error } => write!(f, "is KVM, but makes no VM: {error}"),
        }
    }
}

/// Opens the device and sees whether it is KVM and makes VMs. A KVM that makes none can still be asked things.
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
        // The device node without the module behind it.
        let state = state_of_error(&io::Error::from_raw_os_error(libc::ENODEV));
        assert!(matches!(state, DeviceState::Unopenable { .. }));
    }
}
