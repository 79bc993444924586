//! What to do about what is missing.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use super::{Capability, Cpu, Device, DeviceState};

/// What to do, one sentence each; empty if nothing is missing.
pub(super) fn advice(device: &Device, modules: &[String], cpu: &Cpu, capabilities: &[Capability]) -> Vec<String> {
    match &device.state {
        DeviceState::Usable { .. } => lacking(capabilities).into_iter().collect(),
        DeviceState::Denied => vec![rights(&device.path)],
        DeviceState::Missing | DeviceState::Unopenable { .. } => no_device(modules, cpu),
        DeviceState::NotKvm { .. } => vec!["name KVM's device with --kvm; it usually is /dev/kvm".to_owned()],
        DeviceState::NoVms { .. } => {
            vec![
                "check what `dmesg` says about kvm: another hypervisor may hold the processor's virtualisation"
                    .to_owned(),
            ]
        }
    }
}

fn lacking(capabilities: &[Capability]) -> Option<String> {
    let all_there = capabilities.iter().all(|capability| capability.sufficient);
    (!all_there).then(|| "use a newer kernel: Linux has had all of these capabilities since 4.17".to_owned())
}

fn rights(path: &Path) -> String {
    const GROUP_MAY: u32 = 0o060;
    let path_text = path.display();
    let mode = fs::metadata(path).map_or(GROUP_MAY, |metadata| metadata.permissions().mode());
    if mode & GROUP_MAY == GROUP_MAY {
        format!("join the group that owns {path_text}: sudo usermod -aG kvm $USER, and log in again")
    } else {
        format!(
            "open {path_text} to the group kvm: sudo chgrp kvm {path_text} && sudo chmod 660 {path_text}, \
                 and join it: sudo usermod -aG kvm $USER"
        )
    }
}

fn no_device(modules: &[String], cpu: &Cpu) -> Vec<String> {
    if modules.iter().any(|name| name != "kvm") {
        let loaded = modules.join(", ");
        return vec![format!("{loaded} is loaded: in a container, pass the device in, such as with --device /dev/kvm")];
    }
    match (cpu.has("svm"), cpu.has("vmx"), cpu.has("hypervisor")) {
        (true, _, _) => vec!["load the module: sudo modprobe kvm_amd".to_owned()],
        (_, true, _) => vec!["load the module: sudo modprobe kvm_intel".to_owned()],
        (false, false, true) => vec![
            "this is a virtual machine without virtualisation of its own: enable nested virtualisation in its \
             hypervisor (for KVM: kvm_amd nested=1 or kvm_intel nested=1, and a CPU model that passes svm or vmx on)"
                .to_owned(),
            "or use the lab, a QEMU machine under software emulation in which KVM runs".to_owned(),
        ],
        (false, false, false) => {
            vec!["enable virtualisation (AMD-V, SVM, VT-x) in the firmware; this processor reports none".to_owned()]
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn advice_for(state: DeviceState, modules: &[&str], flags: &[&'static str]) -> String {
        let device = Device { path: "/nowhere/kvm".into(), state };
        let modules: Vec<_> = modules.iter().map(ToString::to_string).collect();
        let cpu = Cpu { flags: flags.to_vec(), ..Cpu::default() };
        advice(&device, &modules, &cpu, &[]).join("\n")
    }

    #[test]
    fn each_lack_has_its_remedy() {
        use DeviceState::{Denied, Missing, NoVms, NotKvm, Usable};
        let cases = [
            (Usable { api_version: 12 }, &["kvm_amd"][..], &["svm"][..], ""),
            (Denied, &["kvm_amd"], &["svm"], "sudo usermod -aG kvm $USER"),
            (Missing, &["kvm"], &["svm"], "sudo modprobe kvm_amd"),
            (Missing, &[], &["vmx", "hypervisor"], "sudo modprobe kvm_intel"),
            (Missing, &[], &["hypervisor"], "nested virtualisation"),
            (Missing, &["kvm", "kvm_amd"], &["svm"], "--device /dev/kvm"),
            (Missing, &[], &[], "firmware"),
            (NotKvm { api_version: -1 }, &[], &[], "--kvm"),
            (NoVms { error: String::new() }, &[], &[], "dmesg"),
        ];
        for (state, modules, flags, words) in cases {
            let advice = advice_for(state.clone(), modules, flags);
            assert!(advice.contains(words) && advice.is_empty() == words.is_empty(), "{state:?}: {advice}");
        }
    }
}
