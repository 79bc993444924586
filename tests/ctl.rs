//! `vector14 ctl`: another process inspects and changes a running VM.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Child;

use libtest_mimic::Trial;
use serde_json::Value;

use crate::harness::command::Cue;
use crate::harness::{Command, Finished, kvm_test, libraries, test};

pub fn tests() -> Vec<Trial> {
    vec![
        kvm_test("ctl", ctl),
        kvm_test("ctl::hooks_from_outside", hooks),
        kvm_test("ctl::a_loaded_hook", loaded),
        kvm_test("ctl::stats", stats),
        kvm_test("ctl::who_has_the_socket", sockets),
        kvm_test("ctl::errors", errors),
        test("ctl::no_vm", no_vm),
    ]
}

/// A guest that runs until the test stops it; the deadline is a fallback.
const SPIN: &str = "[boot]\nkernel = \"tiny\"\ncmdline = \"scenario=storm count=100000000\"\n[vm]\ntimeout = \"100s\"\n\
                    [control]\nsocket = \"s\"\n";

/// Runs `vector14 ctl`, in a folder of its own, on the socket of the run in `folder`.
fn ask(folder: &Path, arguments: &[&str]) -> Finished {
    let socket = folder.join("s");
    let arguments: Vec<_> = ["ctl", socket.to_str().unwrap()].iter().chain(arguments).copied().collect();
    Command::new(&arguments).finish()
}

/// As [`ask`], and checks that the command succeeds. Returns its standard output.
#[track_caller]
fn tell(folder: &Path, arguments: &[&str]) -> String {
    let finished = ask(folder, arguments);
    assert_eq!(finished.status(), Some(0), "{arguments:?}\n{finished}");
    finished.stdout()
}

#[track_caller]
fn tell_json(folder: &Path, arguments: &[&str]) -> Value {
    let arguments: Vec<_> = arguments.iter().chain(&["--json"]).copied().collect();
    serde_json::from_str(&tell(folder, &arguments)).unwrap()
}

/// Runs the guest, and stops it once `act` has returned.
fn run_until_stopped(config: &str, mut act: impl FnMut(&Path, &mut Child)) -> Finished {
    let command = Command::run_config(config);
    let folder = command.path("");
    let finished = command.finish_after("kind=fault", |child| {
        act(&folder, child);
        assert_eq!(tell(&folder, &["stop"]), "ending\n");
    });
    assert_eq!(finished.status(), Some(143), "{finished}");
    assert_eq!(finished.summary()["stop"]["reason"], "request", "{finished}");
    let summary = finished.summary();
    let decided: u64 = summary["verdicts"].as_object().unwrap().values().map(|count| count.as_u64().unwrap()).sum();
    assert_eq!(summary["faults"]["total"], decided, "{finished}");
    finished
}

fn ctl() {
    let finished = run_until_stopped(SPIN, |folder, _| {
        let status = tell_json(folder, &["status"]);
        assert_eq!((&status["state"], &status["vcpus"]), (&"running".into(), &1.into()), "{status}");
        assert_eq!(tell(folder, &["pause"]), "paused\n");
        let (before, after) = (tell_json(folder, &["status"]), tell_json(folder, &["status"]));
        assert_eq!((&before["state"], &before["exits"]), (&"paused".into(), &after["exits"]), "{before}");
        assert!(tell(folder, &["status"]).contains("state\tpaused\n"));
        assert_eq!(tell(folder, &["resume"]), "running\n");
        assert_eq!(tell(folder, &["detach"]), "detached\n");
        assert_eq!(tell_json(folder, &["status"])["armed"], false);
        assert_eq!(tell_json(folder, &["attach"])["armed"], true);
        let mode = std::fs::metadata(folder.join("s")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    });
    let gone = std::fs::exists(finished.path("s")).unwrap();
    assert!(!gone, "the socket is removed at the end\n{finished}");
}

fn hooks() {
    let config = format!("{SPIN}[[hook]]\nname = \"count\"\n");
    let finished = run_until_stopped(&config, |folder, _| {
        assert_eq!(tell(folder, &["add", "count", "top=3", "budget=2s"]), "added count#2\n");
        assert_eq!(
            tell(folder, &["add", "zero-fill", "start=0", "end=0x1000", "--position", "0"]),
            "added zero-fill\n"
        );
        assert_eq!(
            tell(folder, &["reorder", "count#2", "zero-fill", "count"]),
            "reordered: count#2, zero-fill, count\n"
        );
        assert_eq!(tell(folder, &["set", "count#2", "top=4", "on_error=stop"]), "changed count#2\n");
        let listed = tell_json(folder, &["hooks"]);
        let [second, fill, first] = &listed["hooks"].as_array().unwrap()[..] else { panic!("{listed}") };
        assert_eq!((&second["name"], &second["kind"]), (&"count#2".into(), &"count".into()), "{listed}");
        assert_eq!((&second["options"]["top"], &second["on_error"]), (&4.into(), &"stop".into()), "{listed}");
        assert_eq!((&second["budget_ms"], &first["budget_ms"]), (&2000.into(), &100.into()), "{listed}");
        assert_eq!(fill["options"]["end"], 0x1000, "{listed}");
        assert!(tell(folder, &["hooks"]).contains("count#2\tcount\t"));
        assert_eq!(tell(folder, &["remove", "zero-fill"]), "removed zero-fill\n");
        assert_eq!(tell(folder, &["replace", "count", "trace", "file=here.txt"]), "replaced count\n");
    });
    let summary = finished.summary();
    let hooks: Vec<_> = summary["hooks"].as_array().unwrap().iter().collect();
    let text = |hook: &Value, key| hook[key].as_str().unwrap().to_owned();
    let known: Vec<_> = hooks.iter().map(|hook| [text(hook, "name"), text(hook, "until")].join(" ")).collect();
    let expected = ["count#2 replaced", "zero-fill removed", "count replaced", "count#2 end", "count end"];
    assert_eq!(known, expected, "{finished}");
    let of_first = |hook: &&&Value| hook["name"] == "count";
    let calls: u64 = hooks.iter().filter(of_first).map(|hook| hook["calls"].as_u64().unwrap()).sum();
    assert_eq!(summary["faults"]["total"], calls, "each fault went through `count` or its successor\n{finished}");
}

/// A compiled-in hook is replaced by a library, named by its path. The hook is still the library's after its options
/// change.
fn loaded() {
    let library = libraries::in_rust();
    let library = library.to_str().unwrap();
    let finished = run_until_stopped(&format!("{SPIN}[[hook]]\nname = \"count\"\n"), |folder, _| {
        assert_eq!(tell(folder, &["replace", "count", library, "fill=3"]), "replaced count\n");
        assert_eq!(tell(folder, &["set", "count", "fill=4"]), "changed count\n");
        let listed = tell_json(folder, &["hooks"]);
        assert_eq!((&listed["hooks"][0]["kind"], &listed["hooks"][0]["options"]["fill"]), (&library.into(), &4.into()));
        ask(folder, &["set", "count", "fil=4"]).failed_with(1, &["unknown option `fil`", "did you mean `fill`?"]);
        ask(folder, &["add", "./no.so"]).failed_with(1, &["no.so", "No such file"]);
    });
    assert_eq!(finished.summary()["hooks"].as_array().unwrap().len(), 3, "{finished}");
}

fn stats() {
    let mut lines = String::new();
    let command = Command::run_config(SPIN);
    let folder = command.path("");
    let socket = command.path("s");
    let finished = command.finish_after("kind=fault", |_| {
        let stats = Command::new(&["ctl", socket.to_str().unwrap(), "stats", "--interval", "50ms"]);
        // The header, and three lines of counts.
        let mut cues: Vec<Cue<'_>> = (0..4).map(|_| ("\n", Box::new(|_: &mut Child| ()) as _)).collect();
        cues.push(("\n", Box::new(|_| drop(tell(&folder, &["stop"])))));
        let followed = stats.finish_after_each(cues);
        assert_eq!(followed.status(), Some(0), "{followed}");
        lines = followed.stdout();
    });
    let mut rows = lines.lines();
    assert!(rows.next().unwrap().starts_with("ms\tfaults/s\texits/s\tfaults\t"), "{lines}");
    let faults: Vec<u64> = rows.map(|row| row.split('\t').nth(3).unwrap().parse().unwrap()).collect();
    assert!(faults.len() >= 3 && faults.is_sorted() && faults[0] < faults[faults.len() - 1], "{lines}");
    assert_eq!(finished.summary()["faults"]["total"], faults[faults.len() - 1], "the last line has the final count");
}

/// A live run keeps its socket; a socket that a dead run left behind is replaced.
fn sockets() {
    run_until_stopped(SPIN, |folder, child| {
        let again = Command::run_config(SPIN).argument("--control").argument(folder.join("s").to_str().unwrap());
        let again = again.finish().failed_with(2, &["another VM is controlled through it"]);
        assert_eq!(again.stdout(), "", "the guest must not have run\n{again}");
        assert_eq!(child.try_wait().unwrap(), None);
    });
    let command = Command::run_config(SPIN);
    let (folder, killed) = (command.path(""), command.path("s"));
    let finished = command.finish_after("kind=fault", |child| child.kill().unwrap());
    assert!(killed.exists(), "{finished}");
    ask(&folder, &["status"]).failed_with(3, &["nobody listens at", "vector14 run CONFIG --control"]);
    let next = Command::run_config(SPIN).argument("--control").argument(killed.to_str().unwrap());
    next.finish_after("kind=fault", |_| drop(tell(&folder, &["stop"])));
    let command = Command::run_config(SPIN).file("s", b"no socket");
    let finished = command.finish().failed_with(2, &["something that is not a socket"]);
    assert_eq!(finished.read("s"), "no socket");
}

fn errors() {
    run_until_stopped(SPIN, |folder, _| {
        let cases: [(&[&str], i32, &[&str]); 9] = [
            (&["remove", "count"], 1, &["no hook `count` in the chain (it is empty)"]),
            (&["add", "cuont"], 1, &["unknown hook `cuont`", "did you mean `count`?"]),
            (&["add", "count", "topp=3"], 1, &["unknown option `topp` in hook `count`", "did you mean `top`?"]),
            (&["add", "count", "top=many"], 1, &["hook `count`, option `top`", "many"]),
            (&["add", "count", "budget=soon"], 1, &["hook.budget = \"soon\"", "must be a time in quotes"]),
            (&["add", "count", "--position", "1"], 1, &["position 1", "the chain has 0 hooks"]),
            (&["add", "count", "top"], 2, &["top: must be KEY=VALUE"]),
            (&["stats", "--interval", "1ms"], 1, &["interval_ms = 1: must be 10 or more"]),
            (&["puase"], 2, &["puase", "pause"]),
        ];
        for (arguments, status, words) in cases {
            ask(folder, arguments).failed_with(status, words);
        }
        let in_a_removed_directory = ["sh", "-c", r#"mkdir gone && cd gone && rmdir ../gone && exec "$0" "$@""#];
        Command::new(&["ctl", folder.join("s").to_str().unwrap(), "add", "count"])
            .under(&in_a_removed_directory)
            .finish()
            .failed_with(2, &["the current directory", "change to a directory that exists"]);
        assert_eq!(tell_json(folder, &["hooks"])["hooks"], Value::Array(Vec::new()));
    });
}

fn no_vm() {
    Command::new(&["ctl", "nowhere", "status"]).finish().failed_with(3, &["no socket at nowhere", "--control PATH"]);
    Command::new(&["ctl", "f", "status"]).file("f", b"").finish().failed_with(3, &["f is not a socket"]);
}
