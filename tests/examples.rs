//! Every hook that ships has an example in hooks/examples, which runs as it stands and shows what the hook does.

use libtest_mimic::Trial;
use vector14_hooks::HOOKS;

use crate::harness::{Command, Finished, kvm_test, test};

/// Each hook's name, its example, and the test of that.
const EXAMPLES: &[(&str, &str, fn())] = &[
    ("trace", include_str!("../hooks/examples/trace.toml"), trace),
    ("count", include_str!("../hooks/examples/count.toml"), count),
    ("zero-fill", include_str!("../hooks/examples/zero-fill.toml"), zero_fill),
    ("pager", include_str!("../hooks/examples/pager.toml"), pager),
    ("watch", include_str!("../hooks/examples/watch.toml"), watch),
    ("guard", include_str!("../hooks/examples/guard.toml"), guard),
    ("wx", include_str!("../hooks/examples/wx.toml"), wx),
    ("chaos", include_str!("../hooks/examples/chaos.toml"), chaos),
    #[cfg(feature = "script")]
    ("script", include_str!("../hooks/examples/script.toml"), script),
];

pub fn tests() -> Vec<Trial> {
    let examples = EXAMPLES.iter().map(|(name, _, body)| kvm_test(&format!("examples::{name}"), *body));
    examples.chain([test("examples::there_is_one_for_every_hook", complete)]).collect()
}

fn complete() {
    let names: Vec<_> = EXAMPLES.iter().map(|(name, ..)| *name).collect();
    assert_eq!(names, HOOKS.iter().map(|hook| hook.name).collect::<Vec<_>>());
}

/// The config of a hook's example.
fn example(name: &str) -> &'static str {
    EXAMPLES.iter().find(|(hook, ..)| *hook == name).unwrap().1
}

/// Runs the example of a hook, and checks that the guest passes and the hook does not fail.
#[track_caller]
fn run(name: &str) -> Finished {
    let script = include_bytes!("../hooks/examples/explore.rhai");
    let finished = Command::run_config(example(name)).file("explore.rhai", script).finish();
    assert_eq!(finished.status(), Some(0), "{finished}");
    assert_eq!(finished.summary()["hooks"][0]["failures"], 0, "{finished}");
    finished
}

/// The rows, as text, of a table that one of the hooks has reported.
#[track_caller]
fn rows(finished: &Finished, title: &str) -> Vec<Vec<String>> {
    let summary = finished.summary();
    let hooks = summary["hooks"].as_array().unwrap().iter();
    let mut tables = hooks.flat_map(|hook| hook["report"]["tables"].as_array().unwrap());
    let table = tables.find(|table| table["title"] == title);
    let table = table.unwrap_or_else(|| panic!("no table `{title}`\n{finished}"));
    serde_json::from_value(table["rows"].clone()).unwrap()
}

fn trace() {
    let finished = run("trace");
    let lines: Vec<_> = finished.stderr().lines().filter(|line| line.starts_with('#')).map(str::to_owned).collect();
    assert_eq!(lines.len(), 3, "{finished}");
    assert!(lines[1].contains("write, user, not present") && lines[1].contains("0x1000001000"), "{finished}");
}

fn count() {
    let finished = run("count");
    let rows = rows(&finished, "faults by address range");
    assert_eq!(rows.iter().map(|row| &row[2]).collect::<Vec<_>>(), ["5", "5"], "{finished}");
}

fn zero_fill() {
    let finished = run("zero-fill");
    assert_eq!(rows(&finished, "pages mapped")[0][2], "16", "{finished}");
}

/// The tests of the hook itself are in `pager`.
fn pager() {
    let finished = run("pager");
    assert!(finished.summary()["verdicts"]["resolve"].as_u64().unwrap() > 4096, "{finished}");
}

/// The guest writes the page's first word, and then reads the whole page, word by word.
fn watch() {
    let finished = run("watch");
    assert_eq!(rows(&finished, "accesses by page"), [["0x1000001000", "512", "1", "0", "0"]], "{finished}");
    let first = rows(&finished, "the first accesses");
    assert_eq!(first.len(), 5, "{finished}");
    assert_eq!(first[0][..2], ["write", "0x1000001000"], "{finished}");
    assert_eq!((first[0][7].as_str(), first[1][0].as_str()), ("mov [rdi],rsi", "read"), "{finished}");
    // The guest's handler gets only the first touch of each page.
    assert_eq!(finished.summary()["verdicts"]["reinject"], 4, "{finished}");
    assert!(finished.stdout().contains("4 pages mapped at their first touch, contents right"), "{finished}");
}

fn guard() {
    let finished = run("guard");
    let touches = rows(&finished, "2 touches");
    assert_eq!([&touches[0][3], &touches[1][3]], ["user", "kernel"], "{finished}");
    assert!(touches.iter().all(|row| row[7] == "mov rax,[rdi]"), "{finished}");
    let registers = rows(&finished, "registers at the first touch");
    assert!(registers.contains(&vec!["rdi".to_owned(), "0x1240000000".to_owned()]), "{finished}");
    assert_eq!(finished.summary()["verdicts"]["raise"], 2, "{finished}");
}

fn wx() {
    let finished = run("wx");
    let pages = rows(&finished, "pages executed after a write");
    assert_eq!(pages.len(), 4, "{finished}");
    assert!(pages.iter().all(|page| page[2] == "3"), "each of 3 rounds\n{finished}");
}

/// The guest passes, and the random choices repeat: the second run has the same faults, to the last register, and the
/// same verdicts.
fn chaos() {
    let trace = "[[hook]]\nname = \"trace\"\nformat = \"json\"\nfile = \"faults.jsonl\"\n";
    let traced = || {
        let finished =
            Command::run_config(&example("chaos").replacen("[[hook]]", &format!("{trace}[[hook]]"), 1)).finish();
        assert_eq!(finished.status(), Some(0), "{finished}");
        finished
    };
    let (first, second) = (traced(), traced());
    let put_in = rows(&first, "what was put in");
    let spurious: u64 = put_in[0][2].parse().unwrap();
    assert!((10..60).contains(&spurious), "one in four of 100\n{first}");
    assert_eq!(first.summary()["verdicts"]["reinject"], 100 + spurious, "{first}");
    assert_eq!(rows(&second, "what was put in"), put_in, "{second}");
    assert_eq!(second.summary()["verdicts"], first.summary()["verdicts"], "{second}");
    assert_eq!(second.read("faults.jsonl"), first.read("faults.jsonl"), "{second}");
}

#[cfg(feature = "script")]
fn script() {
    let finished = run("script");
    for line in [
        "mov rax,[rdi] faults at 0x1000000000, with rdi = 0x1000000000",
        "mov [rdi],rsi faults at 0x1000001000, with rdi = 0x1000001000",
        "mov rax,[rdi]: 3 faults",
        "mov [rdi],rsi: 3 faults",
    ] {
        assert!(finished.stderr().contains(line), "no `{line}`\n{finished}");
    }
}
