//! Stopping a VM, and holding all of its vCPUs: for a moment, or until they are resumed.
//!
//! Each pass through the run loop crosses one safe point, where the vCPU loads one word that is 0 as long as nobody
//! wants anything. Everything else here is off the path of a fault.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::machine::stop::Stop;
use crate::sys::kick::Kicker;
use crate::sys::lock;

/// Holds that the threads of one VM share to stop and hold it.
pub(crate) struct Vcpus {
    /// Whether vCPUs must look at `state` at their safe point.
    attention: AtomicBool,
    state: Mutex<Holds>,
    changed: Condvar,
    cpus: Vec<CpuSlot>,
}

/// What other threads know of one vCPU.
#[derive(Default)]
pub(crate) struct CpuSlot {
    pub(crate) kicker: Kicker,
    /// RIP at the safe point where it was last held.
    held_rip: AtomicU64,
}

#[derive(Default)]
struct Holds {
    stop: Option<Stop>,
    /// A vCPU needs the others to stand still.
    exclusive: bool,
    /// Console output is full: nobody reads what the guest prints.
    console_full: bool,
    /// When the current pause began; `None` if the VM is not paused.
    paused: Option<Instant>,
    /// Total length of earlier pauses.
    paused_before: Duration,
    /// Number of times a vCPU has been held.
    holds: u64,
    /// vCPUs in the run loop.
    running: usize,
    /// Those of the running vCPUs that stand still.
    held: usize,
}

impl Holds {
    /// Whether vCPUs must do something at their safe point.
    fn wants_attention(&self) -> bool {
        self.stop.is_some() || self.must_hold()
    }

    fn must_hold(&self) -> bool {
        self.stop.is_none() && (self.exclusive || self.console_full || self.paused.is_some())
    }
}

/// How many vCPUs stand still, and how many run the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Standing {
    /// vCPUs that stand still.
    pub held: usize,
    /// vCPUs that run the guest.
    pub running: usize,
}

/// What a vCPU does after its safe point.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Go {
    /// Enter the guest.
    On,
    /// Leave the run loop: the VM has stopped.
    Stop,
}

impl Vcpus {
    pub(crate) fn new(vcpus: u32) -> Self {
        Self {
            attention: AtomicBool::new(false),
            state: Mutex::default(),
            changed: Condvar::new(),
            cpus: (0..vcpus).map(|_| CpuSlot::default()).collect(),
        }
    }

    /// The slots of all vCPUs, in order.
    pub(crate) fn cpus(&self) -> &[CpuSlot] {
        &self.cpus
    }

    /// Ends the VM; the first reason given is the one that counts.
    pub(crate) fn stop(&self, reason: Stop) {
        let mut state = lock(&self.state);
        state.stop.get_or_insert(reason);
        self.publish(&state);
        drop(state);
        self.kick_all();
    }

    /// Pauses the VM: each vCPU stands still at its next safe point, until [`Vcpus::resume`].
    pub(crate) fn pause(&self) {
        let mut state = lock(&self.state);
        state.paused.get_or_insert_with(Instant::now);
        self.publish(&state);
        drop(state);
        self.kick_all();
    }

    /// Resumes paused vCPUs.
    pub(crate) fn resume(&self) {
        let mut state = lock(&self.state);
        let paused = state.paused.take().map_or(Duration::ZERO, |since| since.elapsed());
        state.paused_before += paused;
        self.publish(&state);
    }

    /// While `full` is true, holds each vCPU at its next safe point, because its output has nowhere to go. No vCPU is
    /// kicked for this; one that does not print may go on until it exits.
    pub(crate) fn hold_while_console_is_full(&self, full: bool) {
        let mut state = lock(&self.state);
        state.console_full = full;
        self.publish(&state);
    }

    /// Whether the VM is paused.
    pub(crate) fn is_paused(&self) -> bool {
        lock(&self.state).paused.is_some()
    }

    /// Total time that the VM has been paused so far.
    pub(crate) fn paused_for(&self) -> Duration {
        let state = lock(&self.state);
        state.paused_before + state.paused.map_or(Duration::ZERO, |since| since.elapsed())
    }

    /// Number of times a vCPU has been held so far.
    pub(crate) fn holds(&self) -> u64 {
        lock(&self.state).holds
    }

    /// Waits at most `limit` for all vCPUs of a paused VM to stand still.
    pub(crate) fn wait_until_held(&self, limit: Duration) -> Standing {
        let moving = |state: &mut Holds| state.paused.is_some() && state.stop.is_none() && state.held < state.running;
        let waited = self.changed.wait_timeout_while(lock(&self.state), limit, moving);
        let (state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        Standing { held: state.held, running: state.running }
    }

    /// Makes all threads look at the changed state.
    fn publish(&self, state: &MutexGuard<'_, Holds>) {
        self.attention.store(state.wants_attention(), Ordering::Release);
        self.changed.notify_all();
    }

    /// Why the VM ended, if it has.
    pub(crate) fn stopped(&self) -> Option<Stop> {
        lock(&self.state).stop.clone()
    }

    /// Makes every vCPU exit the guest soon.
    pub(crate) fn kick_all(&self) {
        self.cpus.iter().for_each(|cpu| cpu.kicker.kick());
    }

    fn kick_others(&self, than: u32) {
        let others = self.cpus.iter().enumerate().filter(|(index, _)| *index != than as usize);
        others.for_each(|(_, cpu)| cpu.kicker.kick());
    }

    /// Adds a vCPU to the run loop. Dropping the guard removes it.
    pub(crate) fn join(&self) -> Joined<'_> {
        lock(&self.state).running += 1;
        Joined(self)
    }

    /// The safe point, once per pass through the run loop: holds a vCPU at `rip` while another one needs it to stand
    /// still.
    pub(crate) fn safe_point(&self, cpu: u32, rip: impl FnOnce() -> u64) -> Go {
        if !self.attention.load(Ordering::Acquire) {
            return Go::On;
        }
        self.hold(cpu, rip())
    }

    #[cold]
    fn hold(&self, cpu: u32, rip: u64) -> Go {
        if let Some(slot) = self.cpus.get(cpu as usize) {
            slot.held_rip.store(rip, Ordering::Relaxed);
        }
        let mut state = lock(&self.state);
        state.holds += u64::from(state.must_hold());
        state.held += 1;
        self.changed.notify_all();
        while state.must_hold() {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.held -= 1;
        if state.stop.is_some() { Go::Stop } else { Go::On }
    }

    /// Runs `act` while every other vCPU stands still, and passes it their RIPs. Called on a vCPU's thread, whose own
    /// RIP is `rip`. Returns `None` if the VM has stopped meanwhile.
    pub(crate) fn while_quiesced<R>(&self, cpu: u32, rip: u64, act: impl FnOnce(&[u64]) -> R) -> Option<R> {
        let mut state = lock(&self.state);
        while state.exclusive {
            // Another vCPU was first: stand still for it, then take the turn.
            drop(state);
            if self.hold(cpu, rip) == Go::Stop {
                return None;
            }
            state = lock(&self.state);
        }
        state.exclusive = true;
        self.publish(&state);
        drop(state);
        self.kick_others(cpu);

        let mut state = lock(&self.state);
        while state.held + 1 < state.running && state.stop.is_none() {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        let result = state.stop.is_none().then(|| {
            let others = self.cpus.iter().enumerate().filter(|(index, _)| *index != cpu as usize);
            let rips: Vec<u64> = others.map(|(_, slot)| slot.held_rip.load(Ordering::Relaxed)).collect();
            act(&rips)
        });
        state.exclusive = false;
        self.publish(&state);
        result
    }
}

/// A vCPU's membership in the run loop.
pub(crate) struct Joined<'a>(&'a Vcpus);

impl Drop for Joined<'_> {
    fn drop(&mut self) {
        lock(&self.0.state).running -= 1;
        self.0.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU32;

    use super::*;

    #[test]
    fn nobody_moves_while_one_acts() {
        const CPUS: u32 = 4;
        let vcpus = Vcpus::new(CPUS);
        let moving = AtomicU32::new(0);
        let members: Vec<_> = (0..CPUS).map(|_| vcpus.join()).collect();
        std::thread::scope(|scope| {
            for (cpu, member) in (0..CPUS).zip(members) {
                let (vcpus, moving) = (&vcpus, &moving);
                scope.spawn(move || {
                    let _member = member;
                    for round in 0..500 {
                        assert_eq!(vcpus.safe_point(cpu, || u64::from(cpu)), Go::On);
                        moving.fetch_add(1, Ordering::SeqCst);
                        std::hint::spin_loop();
                        moving.fetch_sub(1, Ordering::SeqCst);
                        if round % 50 == cpu {
                            let seen = vcpus
                                .while_quiesced(cpu, 0, |_| {
                                    std::thread::yield_now();
                                    moving.load(Ordering::SeqCst)
                                })
                                .unwrap();
                            assert_eq!(seen, 0);
                        }
                    }
                });
            }
        });
        assert_eq!(lock(&vcpus.state).running, 0);
    }

    #[test]
    fn a_pause_holds_all_and_lets_one_act() {
        const CPUS: u32 = 3;
        const LONG: Duration = Duration::from_secs(60);
        let vcpus = Vcpus::new(CPUS);
        let acted = AtomicU32::new(0);
        let members: Vec<_> = (0..CPUS).map(|_| vcpus.join()).collect();
        std::thread::scope(|scope| {
            for (cpu, member) in (0..CPUS).zip(members) {
                let (vcpus, acted) = (&vcpus, &acted);
                scope.spawn(move || {
                    let _member = member;
                    while vcpus.safe_point(cpu, || 0) == Go::On {
                        if vcpus.while_quiesced(cpu, 0, |_| ()).is_some() {
                            acted.fetch_add(1, Ordering::SeqCst);
                        }
                    }
                });
            }
            for _ in 0..100 {
                vcpus.pause();
                assert_eq!(vcpus.wait_until_held(LONG), Standing { held: 3, running: 3 });
                let before = acted.load(Ordering::SeqCst);
                std::thread::yield_now();
                assert_eq!(acted.load(Ordering::SeqCst), before);
                vcpus.resume();
                while acted.load(Ordering::SeqCst) == before {
                    std::thread::yield_now();
                }
            }
            vcpus.pause();
            vcpus.stop(Stop::Deadline);
        });
        assert_eq!(lock(&vcpus.state).running, 0);
    }

    #[test]
    fn a_full_console_holds_vcpus_until_there_is_room_or_the_vm_stops() {
        let vcpus = Vcpus::new(1);
        let _member = vcpus.join();
        std::thread::scope(|scope| {
            vcpus.hold_while_console_is_full(true);
            let held = scope.spawn(|| vcpus.safe_point(0, || 0));
            while lock(&vcpus.state).held == 0 {
                std::thread::yield_now();
            }
            vcpus.hold_while_console_is_full(false);
            assert_eq!(held.join().unwrap(), Go::On);
            vcpus.hold_while_console_is_full(true);
            let held = scope.spawn(|| vcpus.safe_point(0, || 0));
            vcpus.stop(Stop::Deadline);
            assert_eq!(held.join().unwrap(), Go::Stop);
        });
    }

    #[test]
    fn the_first_reason_to_stop_holds_and_frees_those_who_wait() {
        let vcpus = Vcpus::new(2);
        let _members = [vcpus.join(), vcpus.join()];
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| vcpus.while_quiesced(0, 0, |_| ()));
            vcpus.stop(Stop::Deadline);
            vcpus.stop(Stop::Reset);
            assert_eq!(waiting.join().unwrap(), None);
        });
        assert_eq!(vcpus.stopped(), Some(Stop::Deadline));
        assert_eq!(vcpus.safe_point(1, || 0), Go::Stop);
    }
}
