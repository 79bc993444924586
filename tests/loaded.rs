//! Hooks that are loaded from shared libraries, in Rust and in C, do what compiled-in ones do.

use libtest_mimic::Trial;

use crate::harness::libraries::{self, table};
use crate::harness::{Command, Finished, kvm_test, test};

pub fn tests() -> Vec<Trial> {
    vec![
        test("loaded::listed_and_checked", listed_and_checked),
        test("loaded::bad_options", bad_options),
        test("loaded::measured", measured),
        kvm_test("loaded::in_rust", in_rust),
        kvm_test("loaded::in_c", in_c),
        kvm_test("loaded::twice", twice),
        kvm_test("loaded::panic", panics),
        kvm_test("loaded::error", fails),
        kvm_test("loaded::stop", stops),
        kvm_test("loaded::panic_at_creation_and_at_the_end", panics_elsewhere),
    ]
}

fn tiny(cmdline: &str, hooks: &str) -> Command {
    Command::run_config(&format!(
        "[boot]\nkernel = \"tiny\"\ncmdline = \"{cmdline}\"\n[vm]\ntimeout = \"60s\"\n{hooks}"
    ))
}

/// `vector14 run` with the hook in Rust.
fn subject(cmdline: &str, options: &str) -> Command {
    tiny(cmdline, &table(&libraries::in_rust(), options))
}

#[track_caller]
fn passed(finished: Finished) -> Finished {
    assert_eq!(finished.status(), Some(0), "{finished}");
    finished
}

fn listed_and_checked() {
    let library = libraries::in_rust();
    let finished = passed(Command::new(&["hooks", "--path"]).argument(library.to_str().unwrap()).finish());
    assert_eq!(
        finished.stdout(),
        "subject\tdoes what a test asks for\n\
         hook.subject.act\tword\t\"pass\"\twhat becomes of every fault\n\
         hook.subject.fill\t0..255\t0\twhat a new page is filled with\n"
    );
    let config = format!("boot.kernel = \"tiny\"\n{}", table(&library, "name = \"mine\""));
    let finished = passed(Command::new(&["check", "config.toml"]).file("config.toml", config.as_bytes()).finish());
    assert!(finished.stdout().contains(&format!("mine ({})", library.display())), "{finished}");
}

fn bad_options() {
    for (options, words) in [
        ("fil = 3", &["config.toml:8:1", "unknown option `fil` in hook `subject`", "did you mean `fill`?"][..]),
        ("fill = \"x\"", &["config.toml:8:1", "hook `subject`, option `fill`", "expected u8"]),
        ("act = \"fly\"", &["config.toml:8:1", "option `act`", "unknown variant `fly`"]),
        ("name = 3", &["config.toml:8:8", "hook.name = 3", "a string"]),
    ] {
        subject("scenario=demand", options).finish().failed_with(2, words);
    }
    let in_c = |options| tiny("scenario=demand", &table("c.so".as_ref(), options)).file("c.so", &libraries::in_c());
    let words = ["config.toml:8:1", "hook `subject-c`, option `everywhere`: must be true"];
    in_c("everywhere = 1").finish().failed_with(2, &words);
    in_c("everwhere = true").finish().failed_with(2, &["did you mean `everywhere`?"]);
}

/// Times are not checked here: `make bench-check` compares them with limits, and `instructions` counts instructions.
fn measured() {
    let library = libraries::in_rust();
    let bench = Command::new(&["bench", "--dispatch", "--json", "--hook"]).argument(library.to_str().unwrap());
    let finished = passed(bench.finish());
    let results: serde_json::Value = serde_json::from_str(&finished.stdout()).unwrap();
    let rows = results["dispatch"]["rows"].as_array().unwrap();
    let names: Vec<&str> = rows.iter().map(|row| row["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["no hook", "compiled in", "through the C ABI", library.to_str().unwrap()], "{finished}");
    assert!(results["dispatch"]["scaling"]["best"].as_f64().unwrap() > 0.0, "{finished}");
}

fn in_rust() {
    let finished = passed(subject("scenario=hidden pages=16 fill=0x33", "act = \"map\"\nfill = 0x33").finish());
    let summary = finished.summary();
    assert_eq!(summary["verdicts"]["resolve"], 16, "{finished}");
    let hook = &summary["hooks"][0];
    assert_eq!((&hook["name"], &hook["calls"]), (&"subject".into(), &16.into()), "{finished}");
    assert_eq!(hook["report"]["tables"][0]["rows"][0][0], "16", "{finished}");
}

/// A hook in C maps pages, skips instructions and raises an exception.
fn in_c() {
    let run = |cmdline: &str| {
        let command = tiny(cmdline, &table("libsubject.so".as_ref(), "")).file("libsubject.so", &libraries::in_c());
        let finished = passed(command.finish());
        assert_eq!(finished.summary()["hooks"][0]["name"], "subject-c", "{finished}");
        finished
    };
    let hidden = run("scenario=hidden pages=16");
    assert_eq!(hidden.summary()["verdicts"]["resolve"], 16, "{hidden}");
    assert_eq!(hidden.summary()["hooks"][0]["report"]["tables"][0]["rows"][0][0], "16", "{hidden}");
    let skip = run("scenario=skip");
    assert!(skip.summary()["verdicts"]["skip"].as_u64().unwrap() > 10, "{skip}");
    let raise = run("scenario=raise code=0x18");
    assert_eq!(raise.summary()["verdicts"]["raise"], 2, "{raise}");
    let demand = run("scenario=demand pages=10");
    assert_eq!(demand.summary()["verdicts"]["reinject"], 10, "{demand}");
}

/// The same library in two places of the chain makes two hooks, each with its own data.
fn twice() {
    let library = libraries::in_rust();
    let hooks = [table(&library, ""), table(&library, "name = \"second\"\nact = \"map\"\nfill = 0x5a")].concat();
    let finished = passed(tiny("scenario=hidden pages=8", &hooks).finish());
    let summary = finished.summary();
    for (hook, name) in [(0, "subject"), (1, "second")] {
        let hook = &summary["hooks"][hook];
        assert_eq!((hook["name"].as_str(), hook["calls"].as_u64()), (Some(name), Some(8)), "{finished}");
        assert_eq!(hook["report"]["tables"][0]["rows"][0][0], "8", "{finished}");
    }
}

fn panics() {
    let finished = passed(subject("scenario=demand pages=10", "act = \"panic\"").finish());
    let summary = finished.summary();
    assert_eq!((&summary["hooks"][0]["calls"], &summary["hooks"][0]["left_out"]), (&1.into(), &true.into()));
    let note = summary["notes"][0].as_str().unwrap();
    let start = "hook `subject` panicked: at 0x1000000000, as the test wants it (tests/hooks/src/lib.rs:";
    assert!(note.starts_with(start) && note.contains("left out"), "{finished}");
    // The library's own panic message goes nowhere else.
    assert!(!finished.stderr().contains("thread '"), "{finished}");
}

fn fails() {
    let finished = passed(subject("scenario=demand pages=10", "act = \"fail\"").finish());
    let note = &finished.summary()["notes"][0];
    assert!(note.as_str().unwrap().contains("`subject` failed: virtual address 0x1000000000 is not mapped"), "{note}");
}

fn stops() {
    let finished = subject("scenario=demand", "act = \"stop\"").finish();
    let stop = &finished.summary()["stop"];
    assert_eq!((finished.status(), &stop["hook"], &stop["detail"]), (Some(5), &"subject".into(), &"fault 0".into()));
}

fn panics_elsewhere() {
    let words = ["hook `subject`", "it panicked: at creation, as the test wants it (tests/hooks/src/lib.rs:"];
    subject("scenario=demand", "act = \"panic-at-creation\"").finish().failed_with(2, &words);
    let finished = passed(subject("scenario=demand", "act = \"panic-at-the-end\"").finish());
    let note = &finished.summary()["notes"][0];
    assert!(note.as_str().unwrap().contains("at its end: at the end, as the test wants it (tests/hooks/src"), "{note}");
}
