//! The command line, the config file and the summary, as users meet them.

use libtest_mimic::Trial;

use crate::harness::{Command, engine, kvm_test, test};

pub fn tests() -> Vec<Trial> {
    vec![
        test("run-command::bad_config", bad_config),
        test("run-command::bad_usage", bad_usage),
        test("run-command::missing_config", missing_config),
        test("run-command::check", check),
        test("run-command::hooks", hooks),
        test("run-command::completions", completions),
        test("run-command::man", man),
        kvm_test("run-command::summary", summary),
        kvm_test("run-command::summary_on_a_full_disk", full_disk),
        kvm_test("run-command::set", set),
        kvm_test("run-command::guest_failure", guest_failure),
        kvm_test("run-command::a_closed_console", closed_console),
    ]
}

const DEMAND: &str = "[boot]\nkernel = \"tiny\"\ncmdline = \"scenario=demand pages=10\"\n[vm]\ntimeout = \"60s\"\n";

/// All errors of a config file are reported at once, each with its line.
fn bad_config() {
    let config = "[vm]\nmemory = \"7K\"\nvcpus = 9\ntimeout = \"soon\"\n[boot]\nkernle = \"tiny\"\n\
                  [intercept]\nengine = \"gaet\"\n[[hook]]\nname = \"trase\"\n[[hook]]\nname = \"trace\"\nformat = \"xml\"\n";
    let places = [
        "config.toml:2",
        "config.toml:3",
        "config.toml:4",
        "config.toml:6",
        "config.toml:8",
        "config.toml:10",
        "config.toml:13",
    ];
    let finished = Command::run_config(config).finish().failed_with(2, &places);
    finished.failed_with(2, &["7K", "1 to 8", "soon", "kernel", "gate", "trace", "xml"]);
}

fn bad_usage() {
    Command::new(&["run"]).finish().failed_with(2, &["CONFIG"]);
    Command::new(&["rnu", "x.toml"]).finish().failed_with(2, &["rnu"]);
    Command::run_config(DEMAND).argument("--set").argument("vm.memory=7K").finish().failed_with(2, &["--set", "7K"]);
    Command::run_config(DEMAND).argument("--set").argument("nonsense").finish().failed_with(2, &["nonsense"]);
}

fn missing_config() {
    Command::new(&["run", "nowhere.toml"]).finish().failed_with(2, &["nowhere.toml", "does not exist"]);
}

fn check() {
    let finished = Command::new(&["check", "config.toml"]).file("config.toml", DEMAND.as_bytes()).finish();
    assert_eq!(finished.status(), Some(0), "{finished}");
    assert!(finished.stdout().contains("tiny"), "{finished}");
    // An existing trace file is left as it is.
    let config = format!("{DEMAND}[[hook]]\nname = \"trace\"\nfile = \"old.txt\"\n");
    let command =
        Command::new(&["check", "config.toml"]).file("config.toml", config.as_bytes()).file("old.txt", b"old");
    let finished = command.finish();
    assert_eq!((finished.status(), finished.read("old.txt").as_str()), (Some(0), "old"), "{finished}");
}

fn hooks() {
    let finished = Command::new(&["hooks"]).finish();
    assert_eq!(finished.status(), Some(0), "{finished}");
    for word in ["trace", "count", "zero-fill", "format", "start"] {
        assert!(finished.stdout().contains(word), "no `{word}`\n{finished}");
    }
}

fn completions() {
    for shell in ["bash", "zsh", "fish"] {
        let finished = Command::new(&["completions", shell]).finish();
        assert_eq!(finished.status(), Some(0), "{finished}");
        assert!(finished.stdout().contains("vector14"), "{finished}");
    }
}

/// Each command has a manual page, and vector14.1 names all of them.
fn man() {
    let finished = Command::new(&["man", "pages/man1"]).finish();
    assert_eq!(finished.status(), Some(0), "{finished}");
    let all = finished.read("pages/man1/vector14.1");
    let commands = ["demo", "run", "ctl", "replay", "check", "doctor", "hooks", "hook", "bench", "completions"];
    for command in commands {
        let name = format!("vector14-{command}");
        assert!(all.contains(&name.replace('-', "\\-")), "vector14.1 does not name {name}\n{all}");
        assert!(finished.read(&format!("pages/man1/{name}.1")).contains(".SH SYNOPSIS"), "{name}");
    }
    for page in ["vector14-ctl-pause", "vector14-hook-new"] {
        assert!(finished.read(&format!("pages/man1/{page}.1")).contains(".SH SYNOPSIS"), "{page}");
    }
    assert!(!finished.path("pages/man1/vector14-man.1").exists(), "the command is hidden");
    Command::new(&["man", "/dev/null/man1"]).finish().failed_with(3, &["/dev/null/man1", "manual pages"]);
}

/// The summary has the fields that other programs read.
fn summary() {
    let finished = Command::run_config(DEMAND).finish();
    assert_eq!(finished.status(), Some(0), "{finished}");
    let summary = finished.summary();
    assert_eq!(summary["stop"]["reason"], "exit", "{finished}");
    assert_eq!(summary["stop"]["status"], 1, "{finished}");
    for (object, fields) in [
        ("faults", &["total", "user", "write", "fetch", "present", "reserved"][..]),
        ("verdicts", &["reinject", "resolve", "skip", "raise", "stop"]),
        ("exits", &["total", "fault", "io", "mmio", "hlt", "kick", "other"]),
    ] {
        let present: Vec<&String> = summary[object].as_object().unwrap().keys().collect();
        assert!(fields.iter().all(|field| present.iter().any(|key| key == field)), "{object}: {present:?}");
    }
    for number in ["armed_ms", "wall_ms", "vcpus"] {
        assert!(summary[number].is_u64(), "{number}\n{finished}");
    }
    assert!(summary["engine"] == engine().name() && summary["hooks"].is_array(), "{finished}");
}

/// A summary that can't be written fails the command after the guest has run. A summary that can't be created fails it
/// before.
fn full_disk() {
    let command =
        Command::new(&["run", "config.toml", "--summary", "/dev/full"]).file("config.toml", DEMAND.as_bytes());
    let finished = command.finish().failed_with(3, &["/dev/full", "No space left on device"]);
    assert!(finished.stdout().contains("faults=10 ok"), "{finished}");
    let command = Command::new(&["run", "config.toml", "--summary", "no/such/folder/s.json"]);
    let finished = command.file("config.toml", DEMAND.as_bytes()).finish().failed_with(2, &["no/such/folder/s.json"]);
    assert_eq!(finished.stdout(), "", "the guest must not have run\n{finished}");
}

fn set() {
    let command = Command::run_config(DEMAND).argument("--set").argument("boot.cmdline=scenario=demand pages=7");
    let finished = command.argument("--set").argument("vm.memory=32M").finish();
    assert_eq!(finished.status(), Some(0), "{finished}");
    assert!(finished.stdout().contains("faults=7 ok"), "{finished}");
}

fn guest_failure() {
    let config = "[boot]\nkernel = \"tiny\"\ncmdline = \"scenario=no-such-scenario\"\n";
    let finished = Command::run_config(config).finish();
    assert_eq!(finished.status(), Some(1), "{finished}");
    assert_eq!(finished.summary()["stop"]["reason"], "exit", "{finished}");
    assert!(finished.stdout().contains("demand"), "the guest lists what it knows\n{finished}");
}

/// A reader of the console that goes away does not stop the guest.
fn closed_console() {
    let script = "\"$0\" \"$@\" | head -c 1 >/dev/null; exit ${PIPESTATUS[0]}";
    let finished = Command::run_config(DEMAND).under(&["bash", "-c", script]).finish();
    assert_eq!(finished.status(), Some(0), "{finished}");
    assert_eq!(finished.summary()["faults"]["total"], 10, "{finished}");
}
