//! Measures the cost of asking a hook without a guest: a chain over plain memory, which needs no KVM.
//!
//! Each round measures all chains in turn, so a temporary slowdown of the host affects all of them.

use std::sync::Barrier;
use std::time::{Duration, Instant};

use serde::Serialize;
use vector14_hook::abi::{Export, Foreign};
use vector14_hook::{ErrorCode, Fault, Guest, Hook, HookType, Options, Result as HookResult, Va, Verdict};

use super::median;
use crate::intercept::chain::{Chain, NamedHook};
use crate::intercept::guest::{Context, FaultedGuest};
use crate::intercept::library::Library;
use crate::machine::memory::{Memory, MemoryError};

/// Faults per timed loop.
const COUNT: u32 = 20_000;
const ROUNDS: usize = 41;

/// Why a measurement of dispatch can fail.
#[derive(Debug, thiserror::Error)]
pub enum DispatchError {
    /// The host has no memory for the guest.
    #[error(transparent)]
    Memory(#[from] MemoryError),
    /// The library's hook can't be created.
    #[error("hook `{hook}` can't be created without options: {message}")]
    Hook {
        /// The hook's name.
        hook: &'static str,
        /// The hook's message.
        message: String,
    },
}

/// The cost of asking hooks.
#[derive(Clone, Debug, Serialize)]
pub struct Dispatch {
    /// One row per kind of hook; the first row is a chain without hooks.
    pub rows: Vec<Asked>,
    /// Throughput of two vCPUs' threads through one hook, as a multiple of the throughput of one thread.
    pub scaling: Scaling,
}

/// The cost per fault of a chain, in nanoseconds.
#[derive(Clone, Debug, Serialize)]
pub struct Asked {
    /// What the chain consists of.
    pub name: String,
    /// Median of all rounds.
    pub median_ns: f64,
    /// Minimum of all rounds: the cost when the host does nothing else.
    pub least_ns: f64,
    /// Additional minimum cost over a chain without hooks.
    pub over_none_ns: f64,
}

/// Throughput of two threads over that of one, in CPU time. Other work on the host does not count, but waiting for each
/// other's cache lines does.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Scaling {
    /// Median of all rounds.
    pub median: f64,
    /// The best round.
    pub best: f64,
}

/// A hook that does nothing.
#[derive(Default)]
struct Empty;

impl Hook for Empty {
    fn on_fault(&self, _fault: &Fault, _guest: &mut dyn Guest) -> HookResult {
        Ok(Verdict::Pass)
    }
}

impl Export for Empty {
    const TYPE: HookType = HookType::without_options::<Self>("empty", "passes");
}

/// Measures an empty hook that is compiled in, one that is called through the C ABI, and the hook of `library`.
///
/// # Errors
/// [`DispatchError`].
pub fn dispatch(library: Option<&Library>) -> Result<Dispatch, DispatchError> {
    let memory = Memory::new(2 << 20)?;
    let subjects = subjects(library)?;
    let mut rounds = vec![Vec::with_capacity(ROUNDS); subjects.len()];
    for _ in 0..ROUNDS {
        for ((_, chain), rounds) in subjects.iter().zip(&mut rounds) {
            let start = Instant::now();
            ask(chain, &memory, 0);
            rounds.push(nanoseconds(start.elapsed()));
        }
    }
    let none = least(&rounds[0]);
    let asked = |((name, _), rounds): (&(String, Chain), &Vec<f64>)| Asked {
        name: name.clone(),
        median_ns: tenths(median(rounds.clone(), f64::total_cmp)),
        least_ns: tenths(least(rounds)),
        over_none_ns: tenths(least(rounds) - none),
    };
    let rows = subjects.iter().zip(&rounds).map(asked).collect();
    Ok(Dispatch { rows, scaling: scale(&subjects[1].1, &memory) })
}

/// The chains to measure, each with its name.
fn subjects(library: Option<&Library>) -> Result<Vec<(String, Chain)>, DispatchError> {
    let with = |hook: Box<dyn Hook>| Chain::new(vec![NamedHook::boxed("empty", hook)]);
    let made = |name, made: Result<Box<dyn Hook>, vector14_hook::OptionsError>| {
        made.map_err(|error| DispatchError::Hook { hook: name, message: error.to_string() })
    };
    let behind = made("empty", Foreign::local::<Empty>().create(&Options::default()))?;
    let mut subjects = vec![
        ("no hook".to_owned(), Chain::new(Vec::new())),
        ("compiled in".to_owned(), with(Box::new(Empty))),
        ("through the C ABI".to_owned(), with(behind)),
    ];
    if let Some(library) = library {
        let hook = made(library.name(), library.create(&Options::default()))?;
        subjects.push((library.path().display().to_string(), with(hook)));
    }
    Ok(subjects)
}

/// Sends [`COUNT`] faults of one vCPU through a chain, as the run loop does.
fn ask(chain: &Chain, memory: &Memory, vcpu: u32) {
    let mut fault = Fault { vcpu, address: Va(0x1000), error_code: ErrorCode::USER, ..Fault::default() };
    let (context, start) = (Context::default(), Instant::now());
    let mut view = chain.view();
    for sequence in 0..COUNT {
        fault.sequence = sequence.into();
        chain.refresh(&mut view);
        let mut guest = FaultedGuest::new(memory, &context, start);
        std::hint::black_box(chain.dispatch(&view, std::hint::black_box(&fault), &mut guest));
    }
}

/// Compares the throughput of two threads with that of one.
fn scale(chain: &Chain, memory: &Memory) -> Scaling {
    let ratios: Vec<_> = (0..ROUNDS)
        .map(|_| {
            let [alone, ..] = together::<1>(chain, memory);
            let slower = together::<2>(chain, memory).into_iter().fold(0.0, f64::max);
            2.0 * alone / slower
        })
        .collect();
    let best = ratios.iter().copied().fold(0.0, f64::max);
    Scaling { median: hundredths(median(ratios, f64::total_cmp)), best: hundredths(best) }
}

/// Cost per fault for each of `N` threads that start together.
fn together<const N: usize>(chain: &Chain, memory: &Memory) -> [f64; N] {
    let begin = Barrier::new(N);
    let run = |vcpu| {
        begin.wait();
        let start = thread_time();
        ask(chain, memory, vcpu);
        nanoseconds(thread_time().saturating_sub(start))
    };
    std::thread::scope(|scope| {
        let mut vcpus = 0..;
        let threads = [(); N].map(|()| {
            let vcpu = vcpus.next().unwrap_or_default();
            scope.spawn(move || run(vcpu))
        });
        threads.map(|thread| thread.join().unwrap_or(f64::NAN))
    })
}

/// Cost per fault of a timed loop.
fn nanoseconds(loops: Duration) -> f64 {
    loops.as_secs_f64() * 1e9 / f64::from(COUNT)
}

fn least(rounds: &[f64]) -> f64 {
    rounds.iter().copied().fold(f64::INFINITY, f64::min)
}

fn tenths(value: f64) -> f64 {
    (value * 10.0).round() / 10.0
}

fn hundredths(value: f64) -> f64 {
    (value * 100.0).round() / 100.0
}

/// CPU time of the calling thread (clock_gettime(2), CLOCK_THREAD_CPUTIME_ID).
fn thread_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    time.try_into().unwrap_or_default()
}
