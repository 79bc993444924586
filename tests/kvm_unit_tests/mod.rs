//! kvm-unit-tests: kernels that know nothing of vector14, in the folder that `VECTOR14_FLATS` names. With every engine
//! that this host has, each must print what it prints with interception off.
//!
//! # Layout
//! - [`cases`]: what to run, and how
//! - [`differences`]: compares the output of runs
//! - [`table`]: the results of all runs

mod cases;
mod differences;
mod table;

use std::path::Path;
use std::time::Duration;

use libtest_mimic::{Completion, Failed, Trial};
use tempfile::TempDir;
use vector14::config::{BootConfig, Config, EngineChoice, Kernel, Module, VmConfig};
use vector14::summary::Stop;

use self::cases::Case;
use self::differences::differences;
pub use self::table::print;
use self::table::{Row, ended};
use crate::harness::engine::engines;
use crate::harness::{Guest, Outcome, kvm_test, test};

/// Default of `VECTOR14_FLATS_TIMEOUT`: how long a flat may run. One that takes longer with interception off is not
/// compared.
const TIMEOUT: Duration = Duration::from_secs(120);

pub fn tests() -> Vec<Trial> {
    let mut tests = vec![
        test("flats::cases", cases::of_a_folder),
        test("flats::differences", differences::are_told_from_noise),
        kvm_test("flats::faults_are_compared_with_the_guests_own_count", own_count),
    ];
    if let Some(folder) = std::env::var_os("VECTOR14_FLATS") {
        let cases = cases::read(Path::new(&folder)).into_iter();
        let trial =
            |case: Case| Trial::ignorable_test(format!("kvm-unit-tests::{}", case.name), move || compare(&case));
        tests.extend(cases.map(trial));
    }
    tests
}

/// What a flat printed. `vmexit` ends its lines with the cycles that an operation took; those are removed.
fn said(case: &Case, outcome: &Outcome) -> String {
    if case.flat.file_stem().is_none_or(|stem| stem != "vmexit") {
        return outcome.console.clone();
    }
    let timeless = outcome.console.lines().map(|line| line.trim_end_matches(|last: char| last.is_ascii_digit()));
    timeless.map(|line| format!("{line}\n")).collect()
}

/// Runs a flat without interception and with each engine. The test is ignored if the flat does not end without
/// interception.
fn compare(case: &Case) -> Result<Completion, Failed> {
    let off = run(case, EngineChoice::Off);
    table::push(Row::new(&case.name, EngineChoice::Off, &off, &[]));
    if !matches!(off.summary.stop, Stop::Exit { .. }) {
        let reason = format!("with interception off: {}", ended(&off.summary.stop));
        return Ok(Completion::ignored_with(reason));
    }
    let again = run(case, EngineChoice::Off);
    let mut wrong = Vec::new();
    for engine in engines() {
        let on = run(case, engine);
        let found = faults_of_interception(case, [&off, &again], &on);
        table::push(Row::new(&case.name, engine, &on, &found));
        wrong.extend(found.into_iter().map(|found| format!("{}: {found}", engine.name())));
    }
    if wrong.is_empty() { Ok(Completion::Completed) } else { Err(wrong.join("\n").into()) }
}

/// What is wrong with a run with interception, compared with two runs without.
fn faults_of_interception(case: &Case, off: [&Outcome; 2], on: &Outcome) -> Vec<String> {
    let mut found = Vec::new();
    let summary = &on.summary;
    if off.iter().all(|off| off.summary.stop != summary.stop) {
        found.push(format!("ended differently: {}", ended(&summary.stop)));
    }
    let off = off.map(|off| said(case, off));
    found.extend(differences(off.each_ref().map(String::as_str), &said(case, on)));
    let (seen, settled) = (summary.faults.total, summary.verdicts.total());
    if (settled, summary.exits.fault) != (seen, seen) {
        found.push(format!("{seen} faults, {settled} verdicts, {} exits", summary.exits.fault));
    }
    if let Some(counted) = on.counted_by_guest().filter(|counted| *counted != summary.verdicts.reinject) {
        found.push(format!("the guest counted {counted} faults, and {} were reinjected", summary.verdicts.reinject));
    }
    found
}

fn run(case: &Case, engine: EngineChoice) -> Outcome {
    let folder = TempDir::new().unwrap();
    // The answers that the kernels would get from QEMU's firmware device; lib/x86/fwcfg.c takes these instead.
    let environment = format!("NR_CPUS={}\nMEMSIZE={}\nTEST_DEVICE=0\n", case.vcpus, case.memory_mib);
    let path = folder.path().join("environ");
    std::fs::write(&path, environment).unwrap();
    let modules = vec![Module { path, string: "environ".to_owned() }];
    let kernel = Kernel::Path(case.flat.clone());
    let boot = BootConfig { modules, cmdline: case.arguments.clone(), ..BootConfig::of(kernel) };
    let vm = VmConfig { memory: case.memory_mib << 20, vcpus: case.vcpus, ..VmConfig::default() };
    Guest::of(Config { boot, vm, ..Config::tiny("") }).engine(engine).timeout(timeout()).run()
}

fn timeout() -> Duration {
    let Ok(value) = std::env::var("VECTOR14_FLATS_TIMEOUT") else { return TIMEOUT };
    humantime::parse_duration(&value).unwrap_or_else(|error| panic!("VECTOR14_FLATS_TIMEOUT={value}: {error}"))
}

/// Runs the multiboot guest as a flat, because it prints its own count.
fn own_count() {
    let folder = TempDir::new().unwrap();
    std::fs::write(folder.path().join("own.flat"), vector14_guest::MULTIBOOT).unwrap();
    let [case] = <[Case; 1]>::try_from(cases::read(folder.path())).unwrap();
    let (off, mut on) = (run(&case, EngineChoice::Off), run(&case, crate::harness::engine()));
    assert_eq!(faults_of_interception(&case, [&off, &off], &on), [""; 0], "{on}");
    on.console = on.console.replace("faults=32", "faults=33");
    let lines = "has not said `multiboot: faults=32 ok`";
    let count = "the guest counted 33 faults, and 32 were reinjected";
    let found = faults_of_interception(&case, [&off, &off], &on);
    assert!(found.iter().any(|found| found == lines) && found.iter().any(|found| found == count), "{found:?}");
}
