//! Compares measured times with limits: `make bench-check`. Other work on the machine can make a time exceed its limit,
//! so these are benchmarks of the test binary (`--bench`), not tests.

use libtest_mimic::{Measurement, Trial};
use serde_json::Value;
use vector14::config::EngineChoice;

use crate::harness::{Command, emulated_by_qemu, engine, libraries};
use crate::linux;

pub fn benches() -> Vec<Trial> {
    let mut benches = vec![bench("limits::skipped_fault", skipped_fault)];
    // These limits are for a real CPU, not for an emulated one.
    if !emulated_by_qemu() {
        benches.push(bench("limits::demo", demo));
        benches.push(bench("limits::asking_a_hook", asking_a_hook));
    }
    benches.push(bench("limits::two_threads_in_one_hook", two_threads));
    if linux::guests().is_some() {
        benches.push(bench("limits::linux_boot", linux_boot));
    }
    benches
}

/// A benchmark; `body` returns its measurement, in nanoseconds.
fn bench(name: &str, body: fn() -> f64) -> Trial {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a time in nanoseconds")]
    Trial::bench(name, move |_| Ok(Some(Measurement { avg: body() as u64, variance: 0 })))
}

/// Runs `vector14 bench`, and returns its JSON.
fn measure(arguments: &[&str]) -> Value {
    let command = Command::new(&["bench", "--json"]);
    let finished = arguments.iter().fold(command, |command, argument| command.argument(argument)).finish();
    assert_eq!(finished.status(), Some(0), "{finished}");
    serde_json::from_str(&finished.stdout()).unwrap()
}

/// A skipped fault costs little more than an exit.
fn skipped_fault() -> f64 {
    // kvm-pvm emulates the guest's kernel one instruction at a time. On kvm-amd there is little to pay besides the exit
    // itself, and nothing of the guest's if the fault was not delivered.
    let limit = match (emulated_by_qemu(), engine()) {
        (false, _) => 1.5,
        (true, EngineChoice::ExceptionBitmap) => 1.15,
        (true, _) => 1.25,
    };
    let bench = measure(&["--engine", engine().name()]);
    let ratio = bench["ratios"]["skip"].as_f64().unwrap();
    assert!(ratio <= limit, "a skipped fault costs {ratio} exits; the limit is {limit}");
    bench["rows"].as_array().unwrap().iter().find(|row| row["name"] == "skip").unwrap()["median_ns"].as_f64().unwrap()
}

/// The limits are for a hook that does nothing, in the fastest of many rounds.
fn asking_a_hook() -> f64 {
    let library = libraries::in_rust();
    let bench = measure(&["--dispatch", "--hook", library.to_str().unwrap()]);
    let rows = bench["dispatch"]["rows"].as_array().unwrap();
    let over_none: Vec<f64> = rows.iter().map(|row| row["over_none_ns"].as_f64().unwrap()).collect();
    let [_, compiled_in, through_abi, loaded] = over_none[..] else { panic!("{bench}") };
    assert!(compiled_in < 50.0 && through_abi < 100.0 && loaded < 100.0, "limits: 50, 100 and 100 ns\n{bench:#}");
    loaded
}

/// A lock or a cache line that both threads need would make two of them slower than one.
fn two_threads() -> f64 {
    let bench = measure(&["--dispatch"]);
    let best = bench["dispatch"]["scaling"]["best"].as_f64().unwrap();
    assert!(best > 1.3, "two threads take {best} times as many faults as one; the limit is 1.3");
    bench["dispatch"]["rows"][1]["median_ns"].as_f64().unwrap()
}

/// The whole demo, which goes on after its first fault, takes less than 50 ms of user time.
fn demo() -> f64 {
    let finished = Command::new(&["demo"]).under(&["bash", "-c", "TIMEFORMAT='cpu %U'; time \"$0\" \"$@\""]).finish();
    assert_eq!(finished.status(), Some(0), "{finished}");
    let stderr = finished.stderr();
    let seconds = stderr.lines().find_map(|line| line.strip_prefix("cpu ")).and_then(|cpu| cpu.parse::<f64>().ok());
    let seconds = seconds.unwrap_or_else(|| panic!("no CPU time\n{finished}"));
    assert!(seconds < 0.05, "{seconds} s of user time; the limit is 0.05 s\n{finished}");
    seconds * 1e9
}

/// A boot to /init takes at most 1.10 times as long with interception on as with it off: the median of five pairs.
fn linux_boot() -> f64 {
    const PAIRS: usize = 5;
    const LIMIT: f64 = 1.10;
    let milliseconds = |engine: &str| {
        let further = format!("[intercept]\nengine = \"{engine}\"\n");
        let finished = linux::well(linux::linux("linux-6.1-cloud", 1, "", &further).finish(), "reset");
        finished.summary()["wall_ms"].as_f64().unwrap()
    };
    let mut pairs: Vec<[f64; 2]> = (0..PAIRS).map(|_| [engine().name(), "off"].map(milliseconds)).collect();
    pairs.sort_by(|[on, off], [other_on, other_off]| (on / off).total_cmp(&(other_on / other_off)));
    let [on, off] = pairs[PAIRS / 2];
    assert!(
        on / off <= LIMIT,
        "a boot takes {on} ms with interception and {off} without; the limit is {LIMIT} times\n{pairs:?}"
    );
    on * 1e6
}
