//! What a fault costs on this host, in units of what leaving the guest costs at all.
//!
//! The tiny guest goes round a tight loop in ring 3, where most faults come from, between two writes to its mark port; the
//! host notes the time of both. The rows take turns, round after round, so that a host that slows down slows all of them
//! down.

use std::io;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde::Serialize;
use vector14_guest_abi::MARK_PORT;
use vector14_hook::{Fault, Guest, Hook, Result as HookResult, Verdict};

use crate::config::{Config, EngineChoice};
use crate::device::Device;
use crate::progress::LOOP_LIMIT;
use crate::summary::{Stop, Summary};
use crate::sys::lock;
use crate::vm::{Surroundings, Vm, VmError};

/// Times round the guest's loop for one measurement.
const COUNT: u32 = 4000;
/// Measurements of each row; the median counts. Odd.
const ROUNDS: usize = 7;
/// A measurement takes some hundred milliseconds at the most.
const DEADLINE: Duration = Duration::from_secs(30);

/// What a measurement can fail of.
#[derive(Debug, thiserror::Error)]
pub enum BenchError {
    /// There is no VM to be had.
    #[error(transparent)]
    Vm(#[from] VmError),
    /// The guest did not do what was to be timed.
    #[error("the measurement of `{row}` failed: {why}")]
    Guest {
        /// What was measured.
        row: &'static str,
        /// What was seen.
        why: String,
    },
}

/// The results.
#[derive(Clone, Debug, Serialize)]
pub struct Bench {
    /// One a row of the table.
    pub rows: Vec<Row>,
    /// How many times a bare exit each verdict costs.
    pub ratios: Ratios,
}

/// What one thing costs.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// What was measured.
    pub name: &'static str,
    /// Median of several rounds, in nanoseconds for one of them.
    pub median_ns: u64,
}

/// Costs over that of a bare exit, in the same run.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Ratios {
    /// A fault whose instruction is skipped.
    pub skip: f64,
    /// A fault that is resolved.
    pub resolve: f64,
    /// A fault that the guest's own handler serves in the end.
    pub reinject: f64,
}

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Subject {
    /// A port write to nobody, and back: the least that leaving the guest costs.
    Exit,
    /// A fault that the guest serves itself, with interception off.
    Unhooked,
    Skip,
    Resolve,
    Reinject,
}

impl Subject {
    const ALL: [Self; 5] = [Self::Exit, Self::Unhooked, Self::Skip, Self::Resolve, Self::Reinject];

    fn name(self) -> &'static str {
        match self {
            Self::Exit => "exit",
            Self::Unhooked => "unhooked",
            Self::Skip => "skip",
            Self::Resolve => "resolve",
            Self::Reinject => "reinject",
        }
    }

    fn engine(self) -> EngineChoice {
        match self {
            Self::Exit | Self::Unhooked => EngineChoice::Off,
            Self::Skip | Self::Resolve | Self::Reinject => EngineChoice::Auto,
        }
    }

    fn hook(self) -> Option<Box<dyn Hook>> {
        match self {
            Self::Exit | Self::Unhooked => None,
            Self::Skip => Some(Box::new(Always(Verdict::Skip))),
            Self::Resolve => Some(Box::new(Retry)),
            Self::Reinject => Some(Box::new(Always(Verdict::Reinject))),
        }
    }

    /// How often the guest goes round the loop for [`COUNT`] of what is measured.
    fn loops(self) -> u32 {
        match self {
            Self::Resolve => COUNT / RETRIES,
            Self::Exit | Self::Unhooked | Self::Skip | Self::Reinject => COUNT,
        }
    }
}

/// A hook with nothing in it.
struct Always(Verdict);

impl Hook for Always {
    fn on_fault(&self, _fault: &Fault, _guest: &mut dyn Guest) -> HookResult {
        Ok(self.0.clone())
    }
}

/// Resolves with nothing done, so that the instruction faults again, and skips it when it has done so often enough.
struct Retry;

/// Faults of one instruction until it is skipped; fewer than would be taken for a loop.
const RETRIES: u32 = 100;
const _: () = assert!(RETRIES < LOOP_LIMIT);

impl Hook for Retry {
    fn on_fault(&self, fault: &Fault, _guest: &mut dyn Guest) -> HookResult {
        let last = fault.sequence % u64::from(RETRIES) == u64::from(RETRIES) - 1;
        Ok(if last { Verdict::Skip } else { Verdict::Resolve })
    }
}

/// Measures. `progress` is told of every measurement that is done, and of how many there are.
///
/// # Errors
/// [`BenchError`].
pub fn run(
    surroundings: impl Fn() -> Surroundings,
    mut progress: impl FnMut(usize, usize),
) -> Result<Bench, BenchError> {
    let mut samples = vec![Vec::with_capacity(ROUNDS); Subject::ALL.len()];
    let total = ROUNDS * Subject::ALL.len();
    for round in 0..ROUNDS {
        for (index, (subject, samples)) in Subject::ALL.into_iter().zip(&mut samples).enumerate() {
            progress(round * Subject::ALL.len() + index, total);
            samples.push(measure(subject, surroundings())?);
        }
    }
    progress(total, total);
    let medians = samples.into_iter().map(|mut samples| {
        samples.sort_unstable();
        samples[ROUNDS / 2]
    });
    let nanoseconds = |time: Duration| u64::try_from(time.as_nanos() / u128::from(COUNT)).unwrap_or(u64::MAX);
    let medians: Vec<Duration> = medians.collect();
    let ratio = |subject: usize| (medians[subject].as_secs_f64() / medians[0].as_secs_f64() * 1000.0).round() / 1000.0;
    let rows = Subject::ALL.iter().zip(&medians);
    Ok(Bench {
        rows: rows.map(|(subject, median)| Row { name: subject.name(), median_ns: nanoseconds(*median) }).collect(),
        ratios: Ratios { skip: ratio(2), resolve: ratio(3), reinject: ratio(4) },
    })
}

/// The time that [`COUNT`] of `subject` take.
fn measure(subject: Subject, mut surroundings: Surroundings) -> Result<Duration, BenchError> {
    let kind = if subject == Subject::Exit { "exit" } else { "fault" };
    let mut config = Config::tiny(format!("scenario=storm kind={kind} count={} ring=3", subject.loops()));
    config.vm.timeout = Some(DEADLINE);
    config.intercept.engine = subject.engine();
    let marks = Marks::default();
    surroundings.ports.push((MARK_PORT, Box::new(marks.clone())));
    surroundings.output = Box::new(io::sink());
    let hooks = subject.hook().into_iter().map(|hook| ("empty".to_owned(), hook)).collect();
    let summary = Vm::new(&config, hooks, surroundings)?.run()?;

    let failed = |why: String| BenchError::Guest { row: subject.name(), why };
    let faults = if subject.engine() == EngineChoice::Off { 0 } else { u64::from(COUNT) };
    match &summary {
        Summary { stop: Stop::Exit { status: 1 }, faults: seen, .. } if seen.total == faults => {}
        other => {
            return Err(failed(format!("the guest stopped with {:?} after {} faults", other.stop, other.faults.total)));
        }
    }
    match lock(&marks.0)[..] {
        [begin, end] => Ok(end.duration_since(begin)),
        ref marks => Err(failed(format!("the guest gave {} marks instead of 2", marks.len()))),
    }
}

/// The mark port: when it was written to.
#[derive(Clone, Default)]
struct Marks(Arc<Mutex<Vec<Instant>>>);

impl Device for Marks {
    fn read(&mut self, _offset: u64, _data: &mut [u8]) {}

    fn write(&mut self, _offset: u64, _data: &[u8]) -> Option<Stop> {
        let mut marks = lock(&self.0);
        // Two are asked for; a guest that gives many does not fill the host's memory.
        if marks.len() < 3 {
            marks.push(Instant::now());
        }
        None
    }
}
