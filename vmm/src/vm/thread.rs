//! vCPU threads: each joins the run loop, and reports how it left the loop.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::time::{Duration, Instant};

use vmm_sys_util::eventfd::EventFd;

use super::error::{VmError, call, host};
use crate::intercept::engine::{Engine, EngineCpu};
use crate::machine::stop::Stop;
use crate::machine::vcpu::Vcpu;
use crate::sys::kick;
use crate::vm::run::{self, Shared};

/// How long a stopped VM's vCPUs have to leave their loops; a hook may be running.
pub(super) const GRACE: Duration = Duration::from_secs(5);

/// How a vCPU's thread ended.
pub(super) type Outcome = Result<(), VmError>;

/// Starts a vCPU's thread.
pub(super) fn spawn(
    mut vcpu: Vcpu,
    shared: &Arc<Shared>,
    engine: &dyn Engine,
    outcome: Sender<Outcome>,
    left: EventFd,
) -> std::io::Result<()> {
    let (shared, mut engine) = (Arc::clone(shared), engine.for_cpu(&mut vcpu));
    let run = move || {
        let _leaving = Leaving { shared: &shared, left };
        let result = run_vcpu(&mut vcpu, &mut *engine, &shared);
        if let Err(error) = &result {
            shared.vcpus.stop(Stop::Crash { detail: error.to_string() });
        }
        // Fails only if the main thread has given up waiting.
        let _ = outcome.send(result);
    };
    std::thread::Builder::new().name("vcpu".to_owned()).spawn(run).map(drop)
}

/// Tells the main thread that a vCPU's thread is about to end, even if the thread panics.
struct Leaving<'a> {
    shared: &'a Shared,
    left: EventFd,
}

impl Drop for Leaving<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.shared
                .vcpus
                .stop(Stop::Crash { detail: "a vCPU's thread panicked: this is a bug in vector14".to_owned() });
        }
        // The counter can't overflow, so this can't fail.
        let _ = self.left.write(1);
    }
}

fn run_vcpu(vcpu: &mut Vcpu, engine: &mut dyn EngineCpu, shared: &Shared) -> Result<(), VmError> {
    let index = vcpu.index() as usize;
    let kicker = &shared.vcpus.cpus()[index].kicker;
    let _kickable = host("the kick signal", kick::register(kicker, vcpu.fd()))?;
    let _member = shared.vcpus.join();
    call("KVM_RUN", run::run(vcpu, engine, shared))
}

/// Waits at most [`GRACE`] for the outcomes of `vcpus` threads. Returns how many threads did not report in time, and
/// the first failure of the others.
pub(super) fn collect(outcomes: &Receiver<Outcome>, vcpus: usize) -> (usize, Outcome) {
    let deadline = Instant::now() + GRACE;
    let mut failure = Ok(());
    for missing in (1..=vcpus).rev() {
        match outcomes.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok(outcome) => failure = failure.and(outcome),
            Err(RecvTimeoutError::Timeout) => return (missing, failure),
            // The host could not create the remaining threads.
            Err(RecvTimeoutError::Disconnected) => break,
        }
    }
    (0, failure)
}
