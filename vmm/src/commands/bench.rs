//! Measures what a fault costs on this host, as a multiple of the cost of a bare exit from the guest.
//!
//! The tiny guest runs tight loops in ring 3, where most faults come from: one of port writes, one of faults, and so on
//! in turn. Each is between two writes to the guest's mark port, which the host timestamps. A ratio compares two loops
//! that follow one another within milliseconds, so a temporary slowdown of the host affects both. `dispatch` measures
//! the cost of asking hooks alone; `replay` takes the path of a fault without a guest.

mod dispatch;
pub mod replay;

use std::cmp::Ordering;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde::Serialize;
use vector14_guest_abi::MARK_PORT;
use vector14_hook::{Fault, Guest, Hook, Result as HookResult, Verdict};

pub use self::dispatch::{Asked, Dispatch, DispatchError, Scaling, dispatch};
use crate::commands::config::{Config, EngineChoice};
use crate::intercept::chain::NamedHook;
use crate::intercept::progress::LOOP_LIMIT;
use crate::machine::device::Device;
use crate::sys::lock;
use crate::vm::summary::{Stop, Summary};
use crate::vm::{Surroundings, Vm, VmError};

/// Exits or faults per timed loop.
const COUNT: u32 = 200;
/// Pairs of loops per VM.
const ROUNDS: u32 = 11;
/// VMs per kind of fault. The kinds take turns.
const VMS: u32 = 3;
/// Time limit for a measurement, which takes a few hundred milliseconds at most.
const DEADLINE: Duration = Duration::from_secs(30);

/// Why a measurement can fail.
#[derive(Debug, thiserror::Error)]
pub enum BenchError {
    /// The VM can't be created or run.
    #[error(transparent)]
    Vm(#[from] VmError),
    /// The guest did not do what was to be timed.
    #[error("the measurement of `{row}` failed: {why}")]
    Guest {
        /// The row that was being measured.
        row: &'static str,
        /// What was observed instead.
        why: String,
    },
}

/// The results.
#[derive(Clone, Debug, Serialize)]
pub struct Bench {
    /// The engine that was measured.
    pub engine: &'static str,
    /// The rows of the table.
    pub rows: Vec<Row>,
    /// The cost of each verdict, as a multiple of a bare exit.
    pub ratios: Ratios,
}

/// The cost of one exit, or of one kind of fault.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// What was measured.
    pub name: &'static str,
    /// Median of several rounds, in nanoseconds per exit or fault.
    pub median_ns: u64,
}

/// Costs as multiples of a bare exit in the same round; the median of all rounds.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Ratios {
    /// A fault whose instruction is skipped.
    pub skip: f64,
    /// A fault that is resolved.
    pub resolve: f64,
    /// A fault that the guest's own handler serves after all.
    pub reinject: f64,
}

/// What becomes of the faults that are compared with bare exits. A bare exit is a write to a port without a device, and
/// back: the least that leaving the guest costs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Subject {
    /// The guest serves the faults itself, with interception off.
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

    /// How many loop iterations cause [`COUNT`] faults.
    fn loops(self) -> u32 {
        match self {
            Self::Resolve => COUNT / RETRIES,
            Self::Unhooked | Self::Skip | Self::Reinject => COUNT,
        }
    }
}

/// A hook that always returns the same verdict.
struct Always(Verdict);

impl Hook for Always {
    fn on_fault(&self, _fault: &Fault, _guest: &mut dyn Guest) -> HookResult {
        Ok(self.0.clone())
    }
}

/// Resolves each fault without doing anything, so that the instruction faults again, and skips it at the last of
/// [`RETRIES`] faults.
struct Retry;

/// Faults per instruction until it is skipped; too few to be taken for a loop.
const RETRIES: u32 = 100;
const _: () = assert!(RETRIES < LOOP_LIMIT);

impl Hook for Retry {
    fn on_fault(&self, fault: &Fault, _guest: &mut dyn Guest) -> HookResult {
        let last = fault.sequence % u64::from(RETRIES) == u64::from(RETRIES) - 1;
        Ok(if last { Verdict::Skip } else { Verdict::Resolve })
    }
}

/// Measures `engine`. `progress` is called for every VM that is done, with the number done and the total.
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

/// Two successive loops: the time of [`COUNT`] exits, and that of the same number of faults.
#[derive(Clone, Copy)]
struct Pair {
    exits: Duration,
    faults: Duration,
}

/// The median cost of a fault in exits, to three decimal places.
fn ratio(pairs: &[Pair]) -> f64 {
    let ratios = pairs.iter().map(|pair| pair.faults.as_secs_f64() / pair.exits.as_secs_f64());
    (median(ratios.collect(), f64::total_cmp) * 1000.0).round() / 1000.0
}

/// The median time of one exit or fault, from loops of [`COUNT`].
fn nanoseconds(loops: impl Iterator<Item = Duration>) -> u64 {
    let median = median(loops.collect(), Ord::cmp);
    u64::try_from(median.as_nanos() / u128::from(COUNT)).unwrap_or(u64::MAX)
}

fn median<T: Copy>(mut samples: Vec<T>, order: impl Fn(&T, &T) -> Ordering) -> T {
    samples.sort_by(order);
    samples[samples.len() / 2]
}

/// Measures [`ROUNDS`] pairs in one VM. Also returns the engine that the VM used.
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

/// The mark port, with the times at which it was written to.
#[derive(Clone, Default)]
struct Marks(Arc<Mutex<Vec<Instant>>>);

impl Device for Marks {
    fn read(&mut self, _offset: u64, _data: &mut [u8]) {}

    fn write(&mut self, _offset: u64, _data: &[u8]) -> Option<Stop> {
        let mut marks = lock(&self.0);
        // A guest that writes more marks than expected must not fill the host's memory.
        if marks.len() <= 4 * ROUNDS as usize {
            marks.push(Instant::now());
        }
        None
    }
}
