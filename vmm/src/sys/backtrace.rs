//! Another thread's call stack, which that thread collects itself in a signal handler.
//!
//! The handler collects nothing but instruction pointers, into memory that exists already: the thread may have been
//! interrupted anywhere, even in the allocator. The thread that asked looks their names up afterwards.

use std::ffi::c_void;
use std::sync::atomic::{AtomicI32, AtomicUsize, Ordering};
use std::sync::{Mutex, Once};
use std::time::{Duration, Instant};

use libc::{c_int, siginfo_t};
use vmm_sys_util::signal::{SIGRTMIN, register_signal_handler};

use super::kick::{Kicker, signal};
use super::lock;

/// Largest number of callers that are reported.
const FRAMES: usize = 64;
/// How long a thread has to answer.
const PATIENCE: Duration = Duration::from_millis(500);

/// Index of the instruction pointer in a `ucontext_t`'s registers.
const RIP: usize = libc::REG_RIP.cast_unsigned() as usize;

/// [`STATE`]: no request is in progress.
const IDLE: i32 = 0;
/// [`STATE`]: a thread is writing its answer.
const ANSWERING: i32 = -1;
/// [`STATE`]: the answer is complete.
const ANSWERED: i32 = -2;
/// One of the constants above, or the ID of the thread that is asked.
static STATE: AtomicI32 = AtomicI32::new(IDLE);
/// The answer: instruction pointers, from the innermost call on. `ANSWER_LENGTH` says how many there are.
static ANSWER: [AtomicUsize; FRAMES] = [const { AtomicUsize::new(0) }; FRAMES];
static ANSWER_LENGTH: AtomicUsize = AtomicUsize::new(0);

/// Why there is no backtrace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NoBacktrace {
    #[error("its thread is gone")]
    NoThread,
    #[error("its thread did not answer a signal in {PATIENCE:?}")]
    NoAnswer,
    #[error("another thread has not answered yet")]
    Busy,
    #[error("the signal handler can't be installed")]
    NoHandler,
}

/// The call stack of a vCPU's thread, as instruction pointers, from the innermost call on.
pub(crate) fn capture(vcpu: &Kicker) -> Result<Vec<usize>, NoBacktrace> {
    static INSTALL: Once = Once::new();
    static TURN: Mutex<()> = Mutex::new(());
    let thread = vcpu.thread().ok_or(NoBacktrace::NoThread)?;
    let number = SIGRTMIN() + 1;
    let mut installed = Ok(());
    INSTALL.call_once(|| installed = register_signal_handler(number, on_request));
    installed.map_err(|_| NoBacktrace::NoHandler)?;

    let _turn = lock(&TURN);
    claim(IDLE, thread.get()).map_err(|_| NoBacktrace::Busy)?;
    signal(thread, number);
    let deadline = Instant::now() + PATIENCE;
    while STATE.load(Ordering::Acquire) != ANSWERED {
        if Instant::now() > deadline {
            // If an answer has begun by now, it keeps its place until it is complete.
            let _ = claim(thread.get(), IDLE);
            return Err(NoBacktrace::NoAnswer);
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    let length = ANSWER_LENGTH.load(Ordering::Relaxed);
    let frames = ANSWER.iter().take(length).map(|frame| frame.load(Ordering::Relaxed)).collect();
    STATE.store(IDLE, Ordering::Release);
    Ok(frames)
}

fn claim(from: i32, to: i32) -> Result<i32, i32> {
    STATE.compare_exchange(from, to, Ordering::AcqRel, Ordering::Acquire)
}

/// One line per call, from the innermost on: the function, and its place in the source if known. Slow, because it
/// reads debug information. `is_caller` recognises functions that are not part of what is asked for; such a function
/// and its callers are left out.
pub(crate) fn symbolise(frames: &[usize], is_caller: impl Fn(&str) -> bool) -> Vec<String> {
    let mut lines = Vec::new();
    for frame in frames {
        let (mut reached, before) = (false, lines.len());
        backtrace::resolve(std::ptr::without_provenance_mut(*frame), |symbol| {
            let name = symbol.name().map(|name| format!("{name:#}")).unwrap_or_else(|| format!("{frame:#x}"));
            reached |= is_caller(&name);
            if !reached {
                let file = symbol.filename().map(|file| file.display().to_string()).zip(symbol.lineno());
                lines.push(file.map_or(name.clone(), |(file, line)| format!("{name} ({file}:{line})")));
            }
        });
        if reached {
            break;
        }
        if lines.len() == before {
            lines.push(format!("{frame:#x}"));
        }
    }
    lines
}

extern "C" fn on_request(_: c_int, _: *mut siginfo_t, context: *mut c_void) {
    if claim(rustix::thread::gettid().as_raw_pid(), ANSWERING).is_err() {
        return;
    }
    // SAFETY: this is a handler with SA_SIGINFO, so the third argument is the ucontext_t of what it has interrupted.
    let registers = unsafe { &(*context.cast::<libc::ucontext_t>()).uc_mcontext.gregs };
    let interrupted = registers[RIP].cast_unsigned();
    let (mut length, mut within) = (0, false);
    let collect = |frame: &backtrace::Frame| {
        // The frames before it are the handler's own.
        within |= frame.ip().addr() as u64 == interrupted;
        let Some(slot) = ANSWER.get(length) else { return false };
        if within {
            slot.store(frame.ip().addr(), Ordering::Relaxed);
            length += 1;
        }
        true
    };
    // SAFETY:
    // 1. `trace_unsynchronized` leaves only the lookup of names unsynchronised, and none are looked up here. Walking
    //    the stack takes no lock of the crate's, and allocates nothing.
    // 2. The closure writes to atomics that exist already, and can't panic.
    unsafe { backtrace::trace_unsynchronized(collect) };
    ANSWER_LENGTH.store(length, Ordering::Relaxed);
    STATE.store(ANSWERED, Ordering::Release);
}
