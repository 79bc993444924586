//! Tests of the whole hook, with outputs that accept everything, nothing, or stop accepting.

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::Instant;

use serde_json::{Value, json};

use super::*;
use crate::tests::fault;
use vector14_hook::mock::{MockGuest, options};

const SHORT: Patience = Patience { full: Duration::from_millis(50), end: Duration::from_millis(200) };

fn trace(file: &Path, patience: Patience) -> Trace {
    limited_trace(file, None, patience)
}

fn limited_trace(file: &Path, limit: Option<u64>, patience: Patience) -> Trace {
    let settings = Settings { format: Format::Json, target: Target::File(file.to_owned()), limit };
    Trace::start(settings, patience).unwrap_or_else(|error| panic!("{error}"))
}

fn see(trace: &Trace, faults: std::ops::Range<u64>) {
    for sequence in faults {
        let verdict = trace.on_fault(&fault(sequence, sequence << 12), &mut MockGuest::new(0)).unwrap();
        assert_eq!(verdict, Verdict::Pass);
    }
}

fn json_lines(reader: impl std::io::Read) -> Vec<Value> {
    let lines = BufReader::new(reader).lines();
    lines.map(|line| serde_json::from_str(&line.unwrap()).unwrap()).collect()
}

fn make_fifo(folder: &tempfile::TempDir) -> PathBuf {
    let path = folder.path().join("fifo");
    assert!(Command::new("mkfifo").arg(&path).status().unwrap().success());
    path
}

/// Ends `trace` and returns its one warning.
fn only_warning(trace: &Trace) -> String {
    let report = trace.on_end(&mut MockGuest::new(0));
    assert_eq!(report.warnings.len(), 1);
    report.warnings[0].clone()
}

#[test]
fn one_vcpus_faults_are_lines_in_order() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("trace.jsonl");
    let trace = trace(&path, PATIENCE);
    see(&trace, 0..30_000);
    assert_eq!(trace.on_end(&mut MockGuest::new(0)), Report::default());
    let lines = json_lines(File::open(&path).unwrap());
    assert_eq!(lines.len(), 30_000);
    assert!((0_u64..).zip(&lines).all(|(sequence, line)| line["seq"] == sequence));
}

#[test]
fn several_vcpus_at_once_lose_no_line() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("trace.jsonl");
    let trace = trace(&path, PATIENCE);
    thread::scope(|scope| {
        for vcpu in 0..4 {
            let trace = &trace;
            scope.spawn(move || see(trace, vcpu * 10_000..(vcpu + 1) * 10_000));
        }
    });
    assert_eq!(trace.on_end(&mut MockGuest::new(0)), Report::default());
    let mut seen: Vec<_> =
        json_lines(File::open(&path).unwrap()).iter().map(|line| line["seq"].as_u64().unwrap()).collect();
    seen.sort_unstable();
    assert!(seen.into_iter().eq(0..40_000));
}

#[test]
fn lines_are_there_before_the_end() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("trace.jsonl");
    let trace = trace(&path, PATIENCE);
    see(&trace, 0..3);
    let deadline = Instant::now() + Duration::from_secs(60);
    while json_lines(File::open(&path).unwrap()).len() < 3 {
        assert!(Instant::now() < deadline);
        thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn a_full_disk_costs_lines_and_not_the_run() {
    let trace = trace(Path::new("/dev/full"), PATIENCE);
    see(&trace, 0..50_000);
    let warning = only_warning(&trace);
    assert!(warning.starts_with("50000 of 50000 lines could not be written to /dev/full: No space left"), "{warning}");
    assert!(warning.contains("`file`"), "{warning}");
}

#[test]
fn a_file_does_not_exceed_its_limit() {
    for limit in [0, 1, 5000, 100_000] {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("trace.jsonl");
        let trace = limited_trace(&path, Some(limit), PATIENCE);
        see(&trace, 0..10_000);
        let warning = only_warning(&trace);
        let size = fs::metadata(&path).unwrap().len();
        assert!(size <= limit && limit - size < 300, "{size} of {limit}");
        let lines = json_lines(File::open(&path).unwrap());
        assert!(
            (0_u64..).zip(&lines).all(|(sequence, line)| line["seq"] == sequence),
            "no line is left out before the last"
        );
        let (written, beyond) = (lines.len(), 10_000 - lines.len());
        let said = format!("reached its `limit` after {written} lines: {beyond} of 10000 lines were not written");
        assert!(warning.contains(&said), "{warning}");
    }
}

#[test]
fn what_does_not_grow_has_no_limit() {
    let folder = tempfile::tempdir().unwrap();
    let path = make_fifo(&folder);
    let trace = limited_trace(&path, Some(5000), PATIENCE);
    see(&trace, 0..1000);
    let reader = thread::spawn(move || json_lines(File::open(path).unwrap()).len());
    assert_eq!(trace.on_end(&mut MockGuest::new(0)), Report::default());
    assert_eq!(reader.join().unwrap(), 1000);
}

#[test]
fn a_fifo_gets_every_line_once_it_is_read() {
    let folder = tempfile::tempdir().unwrap();
    let path = make_fifo(&folder);
    let trace = trace(&path, PATIENCE);
    see(&trace, 0..1000);
    let reader = thread::spawn(move || json_lines(File::open(path).unwrap()).len());
    assert_eq!(trace.on_end(&mut MockGuest::new(0)), Report::default());
    assert_eq!(reader.join().unwrap(), 1000);
}

#[test]
fn a_fifo_that_nobody_reads_costs_lines_and_not_the_run() {
    let folder = tempfile::tempdir().unwrap();
    let trace = trace(&make_fifo(&folder), SHORT);
    see(&trace, 0..50_000);
    let warning = only_warning(&trace);
    drop(trace);
    assert!(warning.starts_with("50000 of 50000 lines"), "{warning}");
    assert!(warning.contains("fifo") && warning.contains("nothing there takes"), "{warning}");
}

#[test]
fn a_reader_that_stops_reading_costs_only_what_it_does_not_take() {
    let folder = tempfile::tempdir().unwrap();
    let path = make_fifo(&folder);
    let trace = trace(&path, SHORT);
    let reader = thread::spawn(move || File::open(path).unwrap());
    see(&trace, 0..50_000);
    let open_but_idle = reader.join().unwrap();
    let warning = only_warning(&trace);
    let lost: u64 = warning.split(' ').next().unwrap().parse().unwrap();
    assert!((1..50_000).contains(&lost), "what is in the pipe counts as written: {warning}");
    drop(open_but_idle);
}

#[test]
fn a_reader_that_goes_away_is_an_error_like_any_other() {
    let folder = tempfile::tempdir().unwrap();
    let path = make_fifo(&folder);
    let trace = trace(&path, PATIENCE);
    let reader = thread::spawn(move || drop(File::open(path).unwrap()));
    see(&trace, 0..1);
    reader.join().unwrap();
    see(&trace, 1..50_000);
    let warning = only_warning(&trace);
    assert!(warning.contains("Broken pipe"), "{warning}");
}

#[test]
fn a_drop_without_an_end_writes_what_there_is() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("trace.jsonl");
    let trace = trace(&path, PATIENCE);
    see(&trace, 0..10);
    drop(trace);
    assert_eq!(json_lines(File::open(&path).unwrap()).len(), 10);
}

#[test]
fn the_file_is_relative_to_the_config_and_emptied() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("trace.txt");
    fs::write(&path, "old\n").unwrap();
    let table = json!({"file": "trace.txt"});
    let hook = (TYPE.create)(&Options::new(table.as_object().unwrap().clone(), folder.path()));
    let hook = hook.unwrap_or_else(|error| panic!("{error}"));
    hook.on_fault(&fault(0, 0), &mut MockGuest::new(0)).unwrap();
    assert_eq!(hook.on_end(&mut MockGuest::new(0)), Report::default());
    assert!(fs::read_to_string(&path).unwrap().starts_with("#0 "));
}

#[test]
fn bad_options_are_named() {
    for (bad, key, got) in [
        (json!({"format": "xml"}), "format", "expected `text` or `json`"),
        (json!({"file": 1}), "file", "integer `1`"),
        (json!({"file": "none/trace"}), "file", "/etc/v14/none/trace"),
        (json!({"limit": "much"}), "limit", "must be a size such as"),
        (json!({"limit": 1024}), "limit", "integer `1024`"),
        (json!({"path": "x"}), "path", "`format`, `file`, `limit`"),
    ] {
        for error in [(TYPE.check)(&options(bad.clone())).err(), (TYPE.create)(&options(bad.clone())).err()] {
            let error = error.unwrap();
            assert_eq!(error.key.as_deref(), Some(key));
            assert!(error.message.contains(got), "{error}");
        }
    }
}
