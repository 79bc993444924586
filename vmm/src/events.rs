//! What the main thread waits for while the vCPUs run: the beat that keeps the interception in place, the deadline,
//! signals, and input for the guest's console.

use std::io::{self, IsTerminal, Read};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use event_manager::{EventOps, EventSet, Events, MutEventSubscriber};
use vmm_sys_util::eventfd::EventFd;
use vmm_sys_util::timerfd::TimerFd;

use crate::device::Com1;
use crate::engine::Engine;
use crate::run::Shared;
use crate::summary::Stop;

/// While faults are not intercepted yet, the vCPUs are stopped so often to look whether they can be:
const EAGER_BEAT: Duration = Duration::from_millis(5);
/// for so many beats, and then
const EAGER_BEATS: u32 = 200;
/// so often, since a guest that takes long to boot has exits of its own.
const PATIENT_BEAT: Duration = Duration::from_millis(20);
/// From then on, so often to look whether the guest has moved its IDT away without any other exit.
const SLOW_BEAT: Duration = Duration::from_millis(100);

/// Ends the VM; Ctrl-A comes before it, as in QEMU.
const ESCAPE: u8 = 0x01;
const QUIT: u8 = b'x';

/// Anything that the main thread waits for.
pub(crate) type Subscriber = Box<dyn MutEventSubscriber>;

/// Registers `source` with the event loop.
pub(crate) fn watch<F: AsRawFd>(ops: &mut EventOps, source: &F) {
    if let Err(error) = ops.add(Events::new(source, EventSet::IN)) {
        tracing::warn!("descriptor {} can't be waited for: {error}", source.as_raw_fd());
    }
}

/// Stops the vCPUs at intervals so that each looks after its gate.
pub(crate) struct Beat {
    timer: TimerFd,
    interval: Duration,
    beats: u32,
    engine: Engine,
    vm: Arc<Shared>,
}

impl Beat {
    pub(crate) fn new(engine: Engine, vm: Arc<Shared>) -> Result<Self, vmm_sys_util::errno::Error> {
        let mut timer = TimerFd::new()?;
        timer.reset(EAGER_BEAT, Some(EAGER_BEAT))?;
        Ok(Self { timer, interval: EAGER_BEAT, beats: 0, engine, vm })
    }
}

impl MutEventSubscriber for Beat {
    fn init(&mut self, ops: &mut EventOps) {
        watch(ops, &self.timer);
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
        self.vm.control.kick_all();
    }
}

/// Ends the VM when it has run for a time; while it is paused it does not run.
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
        watch(ops, &self.timer);
    }

    fn process(&mut self, _events: Events, _ops: &mut EventOps) {
        /// A VM that is paused right before its deadline is looked at so often.
        const STEP: Duration = Duration::from_millis(20);
        let _ = self.timer.wait();
        let run = self.start.elapsed().saturating_sub(self.vm.control.paused_for());
        let left = self.after.saturating_sub(run);
        if left.is_zero() || self.timer.reset(left.max(STEP), None).is_err() {
            self.vm.control.stop(Stop::Deadline);
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

/// Waits for one signal.
pub(crate) struct Signal {
    number: i32,
    action: OnSignal,
    arrived: UnixStream,
    registration: signal_hook::SigId,
    engine: Engine,
    vm: Arc<Shared>,
}

impl Signal {
    pub(crate) fn new(number: i32, action: OnSignal, engine: Engine, vm: Arc<Shared>) -> io::Result<Self> {
        let (arrived, notify) = UnixStream::pair()?;
        arrived.set_nonblocking(true)?;
        let registration = signal_hook::low_level::pipe::register(number, notify)?;
        Ok(Self { number, action, arrived, registration, engine, vm })
    }
}

impl MutEventSubscriber for Signal {
    fn init(&mut self, ops: &mut EventOps) {
        watch(ops, &self.arrived);
    }

    fn process(&mut self, _events: Events, _ops: &mut EventOps) {
        let mut count = [0; 64];
        while matches!(self.arrived.read(&mut count), Ok(1..)) {}
        match self.action {
            OnSignal::Stop => self.vm.control.stop(Stop::Signal { signal: self.number }),
            OnSignal::ToggleInterception => {
                self.engine.want(!self.engine.is_wanted());
                self.vm.control.kick_all();
            }
        }
    }
}

impl Drop for Signal {
    fn drop(&mut self) {
        signal_hook::low_level::unregister(self.registration);
    }
}

/// Feeds standard input to the guest's UART, no faster than the guest takes it.
pub(crate) struct ConsoleInput {
    source: io::Stdin,
    com1: Com1,
    /// Signalled when the UART has become empty.
    room: EventFd,
    /// Whether the source is waited for now: not while the UART is full, nor where it can't be (a plain file).
    waiting: bool,
    ended: bool,
    escaped: bool,
    vm: Arc<Shared>,
}

impl ConsoleInput {
    pub(crate) fn new(com1: Com1, room: EventFd, vm: Arc<Shared>) -> Self {
        Self { source: io::stdin(), com1, room, waiting: false, ended: false, escaped: false, vm }
    }

    /// Moves what there is room for.
    fn pump(&mut self, ops: &mut EventOps) {
        let mut buffer = [0; 64];
        let room = self.com1.capacity().min(buffer.len());
        if self.ended || room == 0 {
            return self.rest(ops);
        }
        match self.source.lock().read(&mut buffer[..room]) {
            Ok(0) => self.ended = true,
            Ok(count) => {
                let typed = self.take_escapes(&buffer[..count]);
                if let Err(error) = self.com1.input(&typed) {
                    tracing::warn!("console input was lost: {error}");
                }
            }
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {}
            Err(_) => self.ended = true,
        }
        if self.ended || self.com1.capacity() == 0 {
            self.rest(ops);
        }
    }

    fn rest(&mut self, ops: &mut EventOps) {
        if self.waiting {
            let _ = ops.remove(Events::new(&self.source, EventSet::IN));
            self.waiting = false;
        }
    }

    /// What is meant for the guest: Ctrl-A x ends the VM, Ctrl-A Ctrl-A is one Ctrl-A. Only where a person types.
    fn take_escapes(&mut self, typed: &[u8]) -> Vec<u8> {
        if !self.source.is_terminal() {
            return typed.to_vec();
        }
        let mut passed = Vec::with_capacity(typed.len());
        for byte in typed {
            match (self.escaped, *byte) {
                (false, ESCAPE) => self.escaped = true,
                (true, QUIT) => self.vm.control.stop(Stop::Signal { signal: libc::SIGINT }),
                (_, byte) => {
                    self.escaped = false;
                    passed.push(byte);
                }
            }
        }
        passed
    }
}

impl MutEventSubscriber for ConsoleInput {
    fn init(&mut self, ops: &mut EventOps) {
        watch(ops, &self.room);
        // epoll refuses plain files and /dev/null: these never block, and are read whenever there is room.
        self.waiting = ops.add(Events::new(&self.source, EventSet::IN)).is_ok();
        if !self.waiting {
            self.pump(ops);
        }
    }

    fn process(&mut self, events: Events, ops: &mut EventOps) {
        if events.fd() == self.room.as_raw_fd() {
            let _ = self.room.read();
            if !self.waiting && !self.ended {
                self.waiting = ops.add(Events::new(&self.source, EventSet::IN)).is_ok();
            }
            if self.waiting {
                return;
            }
        }
        self.pump(ops);
    }
}

/// Wakes the main thread when a vCPU has left its loop.
pub(crate) struct Left(pub(crate) EventFd);

impl MutEventSubscriber for Left {
    fn init(&mut self, ops: &mut EventOps) {
        watch(ops, &self.0);
    }

    fn process(&mut self, _events: Events, _ops: &mut EventOps) {
        let _ = self.0.read();
    }
}
