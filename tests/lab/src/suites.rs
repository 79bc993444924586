//! The integration tests on every KVM and with every engine that runs there: two machines each, as many at a time as there
//! are CPUs.

use std::fs;
use std::num::NonZero;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use crate::NO_VERDICT;
use crate::cache::Cache;
use crate::job::Job;
use crate::modules::Kvm;
use crate::run::{self, Machine, Show};

/// Stock KVM with the only engine that it can run; the changed KVM with the engine that it is for; and the changed KVM where
/// nobody asks for the change.
const SUITES: [(Kvm, &str); 3] =
    [(Kvm::Stock, "gate"), (Kvm::ExceptionExit, "exception-bitmap"), (Kvm::ExceptionExit, "gate")];

/// How often it is said how far the suites are.
const REPORTED_EVERY: Duration = Duration::from_secs(30);

/// Each suite's two machines: the name of the part, and the filter by which the tests choose it. Linux takes longer, and comes
/// first.
const PARTS: [(&str, &[&str]); 2] = [("linux", &["linux"]), ("tiny", &["--skip", "linux"])];

/// The jobs of every suite: a suite in parts, or, where `arguments` choose among its tests, each as one.
pub(crate) fn jobs(arguments: &[String]) -> Vec<Job> {
    let job = |(kvm, engine): (Kvm, &str), part: &str, arguments: &[String]| {
        Job::tests(kvm, Some(engine), arguments).named(format!("{}-{engine}{part}", kvm.name()))
    };
    if !arguments.is_empty() {
        return SUITES.into_iter().map(|suite| job(suite, "", arguments)).collect();
    }
    let part = |(name, filter): (&str, &[&str])| {
        let filter: Vec<_> = filter.iter().map(|word| (*word).to_owned()).collect();
        SUITES.map(|suite| job(suite, &format!("-{name}"), &filter))
    };
    PARTS.into_iter().flat_map(part).collect()
}

/// The tests on one KVM, with `engine`, or else with the best that it has. Stock KVM has one: tests of the other are not among
/// them.
pub(crate) fn on(kvm: Kvm, engine: Option<String>, arguments: &[String]) -> Job {
    let only = match kvm {
        Kvm::Stock => Some("gate"),
        Kvm::ExceptionExit => None,
    };
    Job::tests(kvm, engine.as_deref().or(only), arguments)
}

/// Runs the machines, and returns the status of the first whose job did not end well, in their order.
pub(crate) fn run(cache: &Cache, machines: &[Machine]) -> Result<u8, run::RunError> {
    let next = AtomicUsize::new(0);
    let ended = AtomicBool::new(false);
    let at_once = thread::available_parallelism().map_or(1, NonZero::get).min(machines.len());
    let work = || {
        let mut results = Vec::new();
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            let Some(machine) = machines.get(index) else { return results };
            results.push((index, run::run(cache, machine, Show::AtItsEnd)));
        }
    };
    let mut results = thread::scope(|scope| {
        let workers: Vec<_> = (0..at_once).map(|_| scope.spawn(work)).collect();
        scope.spawn(|| report(cache, machines, &ended));
        let results: Vec<_> = workers.into_iter().flat_map(|worker| worker.join().unwrap_or_default()).collect();
        ended.store(true, Ordering::Relaxed);
        results
    });
    results.sort_by_key(|(index, _)| *index);
    if results.len() < machines.len() {
        return Ok(NO_VERDICT);
    }
    for (_, result) in results {
        match result? {
            0 => {}
            status => return Ok(status),
        }
    }
    Ok(0)
}

/// Says from time to time how many tests each suite has behind it.
fn report(cache: &Cache, machines: &[Machine], ended: &AtomicBool) {
    const BEAT: Duration = Duration::from_millis(200);
    for beat in 1_u32.. {
        thread::sleep(BEAT);
        if ended.load(Ordering::Relaxed) {
            return;
        }
        if (BEAT * beat).as_millis().is_multiple_of(REPORTED_EVERY.as_millis()) {
            let done: Vec<_> = machines.iter().map(|machine| done(cache, machine)).collect();
            eprintln!("lab: {}", done.join(", "));
        }
    }
}

fn done(cache: &Cache, machine: &Machine) -> String {
    let name = machine.job.name();
    let output = fs::read_to_string(cache.root().join(name).join(run::OUTPUT)).unwrap_or_default();
    let lines = output.lines().filter(|line| line.starts_with("test ")).count();
    format!("{name}: {lines} tests")
}
