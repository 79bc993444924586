//! What a fault costs on this host, in units of what leaving the guest costs at all.
//!
//! The tiny guest goes round tight loops in ring 3, where most faults come from: one of port writes, one of faults, and so
//! on in turn, each between two writes to its mark port, of which the host notes the time. A ratio is that of two loops which
//! follow one another within milliseconds, so that a host that slows down for a while slows both sides of it down.
//! What asking the hooks costs by itself is in `dispatch`; `replay` takes the path of a fault without a guest.

mod dispatch;
pub mod replay;

use std::cmp::Ordering;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde::Serialize;
use vector14_guest_abi::MARK_PORT;
use vector14_hook::{Fault, Guest, Hook, Result as HookResult, Verdict};

pub use self::dispatch::{Asked, Dispatch, DispatchError, Scaling, dispatch};
use crate::chain::NamedHook;
use crate::config::{Config, EngineChoice};
use crate::device::Device;
use crate::progress::LOOP_LIMIT;
use crate::summary::{Stop, Summary};
use crate::sys::lock;
use crate::vm::{Surroundings, Vm, VmError};

/// Exits, or faults, that are timed as one.
const COUNT: u32 = 200;
/// Pairs of loops in one VM.
const ROUNDS: u32 = 11;
/// VMs for each kind of fault, which take turns.
const VMS: u32 = 3;
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
    /// The engine that was measured.
    pub engine: &'static str,
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

/// Costs over that of a bare exit in the same round, the median of all rounds.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Ratios {
    /// A fault whose instruction is skipped.
    pub skip: f64,
    /// A fault that is resolved.
    pub resolve: f64,
    /// A fault that the guest's own handler serves in the end.
    pub reinject: f64,
}

/// What becomes of the faults that are measured beside exits: port writes to nobody, and back, the least that leaving the
/// guest costs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Subject {
    /// The guest serves them itself, with interception off.
    Unhooked,
    Skip,
    Resolve,
    Reinject,
}

impl Subject {
    const ALL: [Self; 4] = [Self::Unhooked, Self::Skip, Self::Resolve, Self::Reinject];

    fn name(self) -> &'static str {
        match self {
            Self::Unhooked => "unhooked",
            Self::Skip => "skip",
            Self::Resolve => "resolve",
            Self::Reinject => "reinject",
        }
    }

    fn engine(self, measured: EngineChoice) -> EngineChoice {
        match self {
            Self::Unhooked => EngineChoice::Off,
            Self::Skip | Self::Resolve | Self::Reinject => measured,
        }
    }

    fn hook(self) -> Option<Box<dyn Hook>> {
        match self {
            Self::Unhooked => None,
            Self::Skip => Some(Box::new(Always(Verdict::Skip))),
            Self::Resolve => Some(Box::new(Retry)),
            Self::Reinject => Some(Box::new(Always(Verdict::Reinject))),
        }
    }

    /// How often the guest goes round the loop for [`COUNT`] faults.
    fn loops(self) -> u32 {
        match self {
            Self::Resolve => COUNT / RETRIES,
            Self::Unhooked | Self::Skip | Self::Reinject => COUNT,
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

/// Measures `engine`. `progress` is told of every VM that is done, and of how many there are.
///
/// # Errors
/// [`BenchError`].
pub fn run(
    engine: EngineChoice,
    surroundings: impl Fn() -> Surroundings,
    mut progress: impl FnMut(u32, u32),
) -> Result<Bench, BenchError> {
    let mut measured = engine.name();
    let mut pairs = Subject::ALL.map(|_| Vec::new());
    let total = VMS * u32::try_from(Subject::ALL.len()).unwrap_or(u32::MAX);
    let mut done = 0;
    for _ in 0..VMS {
        for (subject, pairs) in Subject::ALL.into_iter().zip(&mut pairs) {
            progress(done, total);
            let (name, more) = measure(subject, engine, surroundings())?;
            pairs.extend(more);
            if subject != Subject::Unhooked {
                measured = name;
            }
            done += 1;
        }
    }
    progress(total, total);
    let [_, skip, resolve, reinject] = &pairs;
    let ratios = Ratios { skip: ratio(skip), resolve: ratio(resolve), reinject: ratio(reinject) };
    let mut rows = vec![Row { name: "exit", median_ns: nanoseconds(pairs.iter().flatten().map(|pair| pair.exits)) }];
    rows.extend(Subject::ALL.into_iter().zip(&pairs).map(|(subject, pairs)| Row {
        name: subject.name(),
        median_ns: nanoseconds(pairs.iter().map(|pair| pair.faults)),
    }));
    Ok(Bench { engine: measured, rows, ratios })
}

/// Two loops that followed one another: the time of [`COUNT`] exits, and that of as many faults.
#[derive(Clone, Copy)]
struct Pair {
    exits: Duration,
    faults: Duration,
}

/// The median of what a fault costs in exits, to three places.
fn ratio(pairs: &[Pair]) -> f64 {
    let ratios = pairs.iter().map(|pair| pair.faults.as_secs_f64() / pair.exits.as_secs_f64());
    (median(ratios.collect(), f64::total_cmp) * 1000.0).round() / 1000.0
}

/// The median time of one, of loops of [`COUNT`].
fn nanoseconds(loops: impl Iterator<Item = Duration>) -> u64 {
    let median = median(loops.collect(), Ord::cmp);
    u64::try_from(median.as_nanos() / u128::from(COUNT)).unwrap_or(u64::MAX)
}

fn median<T: Copy>(mut samples: Vec<T>, order: impl Fn(&T, &T) -> Ordering) -> T {
    samples.sort_by(order);
    samples[samples.len() / 2]
}

/// [`ROUNDS`] pairs, in one VM, and the engine that it had.
fn measure(
    subject: Subject,
    engine: EngineChoice,
    mut surroundings: Surroundings,
) -> Result<(&'static str, Vec<Pair>), BenchError> {
    let loops = subject.loops();
    let mut config =
        Config::tiny(format!("scenario=storm kind=both count={COUNT} faults={loops} rounds={ROUNDS} ring=3"));
    config.vm.timeout = Some(DEADLINE);
    config.intercept.engine = subject.engine(engine);
    let marks = Marks::default();
    surroundings.ports.push((MARK_PORT, Box::new(marks.clone())));
    let hooks = subject.hook().into_iter().map(|hook| NamedHook::boxed("empty", hook)).collect();
    let summary = Vm::new(&config, hooks, surroundings)?.run().map_err(|error| error.source)?;

    let failed = |why: String| BenchError::Guest { row: subject.name(), why };
    let faults = if config.intercept.engine == EngineChoice::Off { 0 } else { u64::from(ROUNDS * COUNT) };
    match &summary {
        Summary { stop: Stop::Exit { status: 1 }, faults: seen, .. } if seen.total == faults => {}
        other => {
            return Err(failed(format!("the guest stopped with {:?} after {} faults", other.stop, other.faults.total)));
        }
    }
    let marks = lock(&marks.0);
    let (pairs, rest) = marks.as_chunks::<4>();
    if pairs.len() != ROUNDS as usize || !rest.is_empty() {
        return Err(failed(format!("the guest gave {} marks instead of {}", marks.len(), 4 * ROUNDS)));
    }
    let pair = |[a, b, c, d]: &[Instant; 4]| Pair { exits: *b - *a, faults: *d - *c };
    Ok((summary.engine, pairs.iter().map(pair).collect()))
}

/// The mark port: when it was written to.
#[derive(Clone, Default)]
struct Marks(Arc<Mutex<Vec<Instant>>>);

impl Device for Marks {
    fn read(&mut self, _offset: u64, _data: &mut [u8]) {}

    fn write(&mut self, _offset: u64, _data: &[u8]) -> Option<Stop> {
        let mut marks = lock(&self.0);
        // A guest that gives more than are asked for does not fill the host's memory.
        if marks.len() <= 4 * ROUNDS as usize {
            marks.push(Instant::now());
        }
        None
    }
}
