//! What the main thread waits for while the vCPUs run: the beat that keeps the interception in place, the deadline,
//! and signals. No event handler waits for a vCPU, a hook, or the other end of a pipe.

use std::io::{self, Read};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use event_manager::{EventOps, EventSet, Events, MutEventSubscriber};
use vmm_sys_util::eventfd::EventFd;
use vmm_sys_util::timerfd::TimerFd;

use crate::intercept::engine::Engine;
use crate::machine::stop::Stop;
use crate::vm::run::Shared;

/// Interval between arming attempts right after boot.
const EAGER_BEAT: Duration = Duration::from_millis(5);
/// Number of arming attempts at [`EAGER_BEAT`].
const EAGER_BEATS: u32 = 200;
/// Interval between arming attempts after that; longer, because a guest that boots slowly exits often enough by
/// itself.
const PATIENT_BEAT: Duration = Duration::from_millis(20);
/// Interval at which, once armed, vCPUs check whether the guest has moved its IDT without any other exit.
const SLOW_BEAT: Duration = Duration::from_millis(100);

/// Anything that the main thread waits for.
pub(crate) type Subscriber = Box<dyn MutEventSubscriber>;

/// Registers `source` with the event loop.
pub(crate) fn subscribe<F: AsRawFd>(ops: &mut EventOps, source: &F) {
    if let Err(error) = ops.add(Events::new(source, EventSet::IN)) {
        tracing::warn!("descriptor {} can't be waited for: {error}", source.as_raw_fd());
    }
}

/// Kicks the vCPUs at intervals, so that each checks its gate.
pub(crate) struct Beat {
    timer: TimerFd,
    interval: Duration,
    beats: u32,
    engine: Arc<dyn Engine>,
    vm: Arc<Shared>,
}

impl Beat {
    pub(crate) fn new(engine: Arc<dyn Engine>, vm: Arc<Shared>) -> Result<Self, vmm_sys_util::errno::Error> {
        let mut timer = TimerFd::new()?;
        timer.reset(EAGER_BEAT, Some(EAGER_BEAT))?;
        Ok(Self { timer, interval: EAGER_BEAT, beats: 0, engine, vm })
    }
}

impl MutEventSubscriber for Beat {
    fn init(&mut self, ops: &mut EventOps) {
        subscribe(ops, &self.timer);
    }

    fn process(&mut self, _events: Events, _ops: &mut EventOps) {
        let _ = self.timer.wait();
        self.beats = self.beats.saturating_add(1);
        let interval = match self.engine.armed_at() {
            Some(_) => SLOW_BEAT,
            None if self.beats > EAGER_BEATS => PATIENT_BEAT,
            None => EAGER_BEAT,
        };
        if interval != self.interval && self.timer.reset(interval, Some(interval)).is_ok() {
            self.interval = interval;
        }
        self.engine.beat();
        self.vm.vcpus.kick_all();
    }
}

/// Ends the VM when its run time is over; paused time does not count.
pub(crate) struct Deadline {
    timer: TimerFd,
    after: Duration,
    start: Instant,
    vm: Arc<Shared>,
}

impl Deadline {
    pub(crate) fn new(after: Duration, vm: Arc<Shared>) -> Result<Self, vmm_sys_util::errno::Error> {
        let mut timer = TimerFd::new()?;
        timer.reset(after, None)?;
        Ok(Self { timer, after, start: Instant::now(), vm })
    }
}

impl MutEventSubscriber for Deadline {
    fn init(&mut self, ops: &mut EventOps) {
        subscribe(ops, &self.timer);
    }

    fn process(&mut self, _events: Events, _ops: &mut EventOps) {
        /// Shortest interval between checks: matters for a VM that was paused right before its deadline.
        const STEP: Duration = Duration::from_millis(20);
        let _ = self.timer.wait();
        let run = self.start.elapsed().saturating_sub(self.vm.vcpus.paused_for());
        let left = self.after.saturating_sub(run);
        if left.is_zero() || self.timer.reset(left.max(STEP), None).is_err() {
            self.vm.vcpus.stop(Stop::Deadline);
        }
    }
}

/// What a signal does to the VM.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OnSignal {
    /// The VM ends.
    Stop,
    /// Interception is taken out of the guest, or put back.
    ToggleInterception,
}

/// The signals that a VM answers to.
pub(crate) const SIGNALS: [(i32, OnSignal); 5] = [
    (libc::SIGINT, OnSignal::Stop),
    (libc::SIGTERM, OnSignal::Stop),
    (libc::SIGHUP, OnSignal::Stop),
    (libc::SIGQUIT, OnSignal::Stop),
    (libc::SIGUSR1, OnSignal::ToggleInterception),
];

/// The signals that end a VM.
pub(crate) fn stop_signals() -> impl Iterator<Item = i32> {
    SIGNALS.into_iter().filter(|(_, action)| *action == OnSignal::Stop).map(|(number, _)| number)
}

/// Waits for one signal.
pub(crate) struct Signal {
    number: i32,
    action: OnSignal,
    arrived: UnixStream,
    registration: signal_hook::SigId,
    engine: Arc<dyn Engine>,
    vm: Arc<Shared>,
}

impl Signal {
    pub(crate) fn new(number: i32, action: OnSignal, engine: Arc<dyn Engine>, vm: Arc<Shared>) -> io::Result<Self> {
        let (arrived, notify) = UnixStream::pair()?;
        arrived.set_nonblocking(true)?;
        let registration = signal_hook::low_level::pipe::register(number, notify)?;
        Ok(Self { number, action, arrived, registration, engine, vm })
    }
}

impl MutEventSubscriber for Signal {
    fn init(&mut self, ops: &mut EventOps) {
        subscribe(ops, &self.arrived);
    }

    fn process(&mut self, _events: Events, _ops: &mut EventOps) {
        let mut count = [0; 64];
        while matches!(self.arrived.read(&mut count), Ok(1..)) {}
        match self.action {
            OnSignal::Stop => self.vm.vcpus.stop(Stop::Signal { signal: self.number }),
            OnSignal::ToggleInterception => {
                self.engine.want(!self.engine.is_wanted());
                self.vm.vcpus.kick_all();
            }
        }
    }
}

impl Drop for Signal {
    fn drop(&mut self) {
        signal_hook::low_level::unregister(self.registration);
    }
}

/// Wakes the main thread when a vCPU has left its loop.
pub(crate) struct VcpuEnded(pub(crate) EventFd);

impl MutEventSubscriber for VcpuEnded {
    fn init(&mut self, ops: &mut EventOps) {
        subscribe(ops, &self.0);
    }

    fn process(&mut self, _events: Events, _ops: &mut EventOps) {
        let _ = self.0.read();
    }
}
