//! `vector14 replay` asks hooks about the faults of a trace. A damaged trace leads to an error, and to nothing worse.

use libtest_mimic::Trial;

use crate::harness::{Command, kvm_test, test};

pub fn tests() -> Vec<Trial> {
    vec![
        kvm_test("replay::of_a_run", of_a_run),
        test("replay::verdicts", verdicts),
        test("replay::json", json),
        test("replay::no_guest", no_guest),
        test("replay::a_chain_from_a_config", chain),
        test("replay::damaged", damaged),
        test("replay::usage", usage),
        test("replay::a_reader_that_has_enough", enough),
    ]
}

fn line(sequence: u64, address: u64) -> String {
    format!(
        "{{\"seq\":{sequence},\"vcpu\":0,\"address\":\"{address:#x}\",\"error_code\":\"0x6\",\"flags\":[\"write\",\"user\"],\
         \"rip\":\"0x401000\",\"rsp\":\"0x7ff0\",\"cs\":\"0x33\",\"ss\":\"0x2b\",\"rflags\":\"0x246\",\"cr3\":\"0x1000\"}}\n"
    )
}

/// Stops at one page, and raises at another.
const GUARDS: &str = "[boot]\nkernel = \"tiny\"\n\
                      [[hook]]\nname = \"guard\"\naction = \"stop\"\nranges = [{ start = 0x2000, end = 0x3000 }]\n\
                      [[hook]]\nname = \"guard\"\nranges = [{ start = 0x3000, end = 0x4000 }]\n";

fn replay(trace: &str) -> Command {
    Command::new(&["replay", "trace.jsonl"]).file("trace.jsonl", trace.as_bytes())
}

fn with_guards(trace: &str) -> Command {
    replay(trace).file("guards.toml", GUARDS.as_bytes()).argument("--config").argument("guards.toml")
}

/// `count` counts in a replay exactly the faults that `trace` wrote while the guest ran.
fn of_a_run() {
    let config = "[boot]\nkernel = \"tiny\"\ncmdline = \"scenario=demand pages=50\"\n[vm]\ntimeout = \"60s\"\n\
                  [[hook]]\nname = \"trace\"\nformat = \"json\"\nfile = \"faults.jsonl\"\n[[hook]]\nname = \"count\"\n";
    let ran = Command::run_config(config).finish();
    assert_eq!(ran.status(), Some(0), "{ran}");
    let finished = replay(&ran.read("faults.jsonl")).argument("--hook").argument("count").finish();
    assert_eq!(finished.status(), Some(0), "{finished}");
    assert!(finished.stderr().contains("50 faults: pass 50"), "{finished}");
    assert!(finished.stderr().contains("count: faults by kind"), "{finished}");
    assert!(finished.stderr().contains("write, user, not present\t0x6\t25\t50.0%"), "{finished}");
    assert_eq!(finished.stdout().lines().count(), 51, "a line of headings, and one line per fault\n{finished}");
}

fn verdicts() {
    let trace: String = (1..4).map(|page| line(page, page << 12)).collect();
    let finished = with_guards(&trace).finish();
    assert_eq!(finished.status(), Some(0), "{finished}");
    let lines: Vec<_> = finished.stdout().lines().map(str::to_owned).collect();
    let expected = [
        "fault\tvcpu\taddress\taccess\trip\tverdict\thook",
        "1\t0\t0x1000\twrite, user, not present\t0x401000\tpass\t",
        "2\t0\t0x2000\twrite, user, not present\t0x401000\tstop: write of 0x2000 by user code at 0x401000: \
         there is no guest: a trace has faults in it, and neither memory nor general registers\tguard",
        "3\t0\t0x3000\twrite, user, not present\t0x401000\traise 13 (0x0)\tguard#2",
    ];
    assert_eq!(lines, expected, "{finished}");
    assert!(finished.stderr().contains("3 faults: pass 1, raise 1, stop 1"), "{finished}");
}

fn json() {
    let finished = with_guards(&line(7, 0x3000)).argument("--json").finish();
    assert_eq!(finished.status(), Some(0), "{finished}");
    let answer: serde_json::Value = serde_json::from_str(&finished.stdout()).unwrap();
    assert_eq!(
        (&answer["seq"], &answer["verdict"], &answer["detail"]["vector"]),
        (&7.into(), &"raise".into(), &13.into())
    );
}

/// A hook that needs the guest's memory fails, is reported, and is not asked again.
fn no_guest() {
    let trace = line(0, 0x1000) + line(1, 0x1000).as_str();
    let options = ["--hook", "zero-fill", "--option", "start=0x1000", "--option", "zero-fill.end=0x2000"];
    let finished = options.into_iter().fold(replay(&trace), Command::argument).finish();
    assert_eq!(finished.status(), Some(0), "{finished}");
    let lines: Vec<_> = finished.stdout().lines().map(str::to_owned).collect();
    assert!(lines[1].ends_with("reinject\tzero-fill failed: there is no guest: a trace has faults in it, and neither memory nor general registers"), "{finished}");
    assert!(lines[2].ends_with("pass\t"), "{finished}");
}

/// The hooks of the config file are asked before those of the command line.
fn chain() {
    let finished =
        with_guards(&(line(0, 0x2000) + line(1, 0x5000).as_str())).argument("--hook").argument("count").finish();
    assert!(finished.stderr().contains("write, user, not present\t0x6\t1\t100.0%"), "{finished}");
}

fn damaged() {
    let good = line(0, 0x1000);
    for (bad, said) in [
        (format!("{good}#1 vcpu 0  write\n{good}"), "trace.jsonl: line 2: is not a fault"),
        (format!("{good}{}", &good[..60]), "trace.jsonl: line 2: is truncated"),
        (format!("{good}{}", "x".repeat(1 << 20)), "trace.jsonl: line 2: longer than 4096 bytes"),
        (good.replace("0x1000", "0xzz"), "line 1: is not a fault"),
    ] {
        let finished = with_guards(&bad).finish().failed_with(2, &[said]);
        let faults = if said.contains("line 1") { "0 faults" } else { "1 faults: pass 1" };
        assert!(finished.stderr().contains(faults), "the lines before the damage are replayed\n{finished}");
    }
}

fn usage() {
    replay("").finish().failed_with(2, &["--hook NAME"]);
    replay("").argument("--hook").argument("cuont").finish().failed_with(2, &["unknown hook `cuont`", "count"]);
    let bad = ["--hook", "count", "--option", "top=none"].into_iter().fold(replay(""), Command::argument);
    bad.finish().failed_with(2, &["option `top`", "none"]);
    Command::new(&["replay", "none.jsonl", "--hook", "count"])
        .finish()
        .failed_with(2, &["none.jsonl: can't be opened"]);
}

fn enough() {
    let trace: String = (0..5000).map(|number| line(number, 0x1000)).collect();
    let script = "\"$0\" \"$@\" | head -1; exit ${PIPESTATUS[0]}";
    let finished = with_guards(&trace).under(&["bash", "-c", script]).finish();
    assert_eq!((finished.status(), finished.stdout().lines().count()), (Some(0), 1), "{finished}");
}
