//! Hosts that can't run guests: the command ends with status 3 and says what to do.

use libtest_mimic::Trial;

use crate::harness::{Command, Finished, kvm_test, test};

pub fn tests() -> Vec<Trial> {
    vec![
        test("bad-host::no_device", no_device),
        test("bad-host::no_rights", no_rights),
        test("bad-host::not_kvm", not_kvm),
        kvm_test("bad-host::doctor_is_content", doctor_is_content),
    ]
}

const CONFIG: &str = "[boot]\nkernel = \"tiny\"\ncmdline = \"scenario=demand\"\n";

fn run_on(device: &str) -> Finished {
    Command::run_config(CONFIG).argument("--kvm").argument(device).finish()
}

fn no_device() {
    run_on("/no/such/kvm").failed_with(3, &["/no/such/kvm", "No such file", "modprobe"]);
    let finished = Command::new(&["doctor", "--kvm", "/no/such/kvm"]).finish();
    assert_eq!(finished.status(), Some(3), "{finished}");
    for word in ["/no/such/kvm", "does not exist", "to do: ", "guests can't run here"] {
        assert!(finished.stdout().contains(word), "no `{word}`\n{finished}");
    }
    for command in ["demo", "bench"] {
        Command::new(&[command, "--kvm", "/no/such/kvm"]).finish().failed_with(3, &["/no/such/kvm", "modprobe"]);
    }
}

/// Runs the command as a user without access to the device. If the test runs as root, the command becomes `nobody`
/// first.
fn no_rights() {
    let command = Command::run_config(CONFIG).file("device", b"").argument("--kvm").argument("device");
    let folder = command.path("");
    let open = |path: &std::path::Path, mode| {
        use std::os::unix::fs::PermissionsExt;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    };
    open(&folder, 0o777);
    open(&command.path("device"), 0o000);
    let root = std::fs::File::open(command.path("device")).is_ok();
    if !root {
        command.finish().failed_with(3, &["Permission denied", "usermod -aG kvm"]);
        return;
    }
    // A copy that `nobody` can reach, wherever the original is.
    std::fs::copy(crate::harness::command::binary(), command.path("vector14")).unwrap();
    let script = "shift; exec setpriv --reuid=65534 --regid=65534 --clear-groups ./vector14 \"$@\"";
    command.under(&["sh", "-c", script, "sh"]).finish().failed_with(3, &["Permission denied", "usermod -aG kvm"]);
}

fn not_kvm() {
    run_on("/dev/null").failed_with(3, &["/dev/null is not a KVM device"]);
}

fn doctor_is_content() {
    let finished = Command::new(&["doctor"]).finish();
    assert_eq!(finished.status(), Some(0), "{finished}");
    assert!(finished.stdout().contains("guests can run here"), "{finished}");
    let finished = Command::new(&["doctor", "--json"]).finish();
    let diagnosis: serde_json::Value = serde_json::from_str(&finished.stdout()).unwrap();
    assert_eq!(diagnosis["runs"], true, "{finished}");
}
