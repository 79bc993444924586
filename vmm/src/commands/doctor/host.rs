//! The processor and the kernel's modules, as the kernel reports them in files.

use std::fs;
use std::path::PathBuf;

use serde::Serialize;

/// The files in which the kernel describes a host.
#[derive(Clone, Debug)]
pub struct Host {
    /// A folder with one entry per kernel module.
    pub modules: PathBuf,
    /// The file that describes the processors.
    pub cpuinfo: PathBuf,
}

impl Default for Host {
    fn default() -> Self {
        Self { modules: "/sys/module".into(), cpuinfo: "/proc/cpuinfo".into() }
    }
}

/// The processor.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Cpu {
    /// The processor's model name.
    pub model: String,
    /// The flags among [`FLAGS`] that the processor has.
    pub flags: Vec<&'static str>,
}

/// Flags of /proc/cpuinfo that matter: the two kinds of virtualisation, whether this is itself a virtual machine, and
/// the features that affect faults.
pub const FLAGS: [&str; 8] = ["svm", "vmx", "hypervisor", "la57", "smep", "smap", "pku", "fred"];

/// Modules that provide /dev/kvm, and the one that they share.
const MODULES: [&str; 4] = ["kvm", "kvm_amd", "kvm_intel", "kvm_pvm"];

impl Host {
    /// KVM modules that are loaded.
    pub(super) fn modules(&self) -> Vec<String> {
        MODULES.iter().filter(|name| self.modules.join(name).exists()).map(ToString::to_string).collect()
    }

    /// The first processor.
    pub(super) fn cpu(&self) -> Cpu {
        let text = fs::read_to_string(&self.cpuinfo).unwrap_or_default();
        let value = |key: &str| {
            let mut pairs = text.lines().filter_map(|line| line.split_once(':'));
            pairs.find(|(name, _)| name.trim() == key).map_or("", |(_, value)| value.trim())
        };
        let has: Vec<_> = value("flags").split(' ').collect();
        Cpu {
            model: value("model name").to_owned(),
            flags: FLAGS.into_iter().filter(|flag| has.contains(flag)).collect(),
        }
    }
}

impl Cpu {
    /// Whether the processor has the flag.
    #[must_use]
    pub fn has(&self, flag: &str) -> bool {
        self.flags.contains(&flag)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_read_from_its_files() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("kvm_amd")).unwrap();
        let cpuinfo = folder.path().join("cpuinfo");
        fs::write(&cpuinfo, "processor\t: 0\nmodel name\t: AMD EPYC\nflags\t\t: fpu svm smep\n\nprocessor\t: 1\n")
            .unwrap();
        let host = Host { modules: folder.path().to_owned(), cpuinfo };
        assert_eq!(host.modules(), ["kvm_amd"]);
        assert_eq!(host.cpu(), Cpu { model: "AMD EPYC".to_owned(), flags: vec!["svm", "smep"] });
    }

    #[test]
    fn a_host_without_files_is_an_unknown_one() {
        let host = Host { modules: "/nowhere".into(), cpuinfo: "/nowhere".into() };
        assert!(host.modules().is_empty());
        assert_eq!(host.cpu(), Cpu::default());
    }
}
