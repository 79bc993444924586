//! Kicks a vCPU's thread out of KVM_RUN from another thread, without a window in which the kick is lost.
//!
//! The signal interrupts KVM_RUN. If it arrives before the ioctl is entered, its handler has already set
//! `immediate_exit` in the vCPU's own `kvm_run`, so that the entry returns at once (KVM API 5, `immediate_exit`).

use std::cell::Cell;
use std::num::NonZeroI32;
use std::ptr;
use std::sync::Once;
use std::sync::atomic::{AtomicI32, Ordering};

use kvm_ioctls::VcpuFd;
use libc::{c_int, c_void, siginfo_t};
use vmm_sys_util::signal::{SIGRTMIN, register_signal_handler};

thread_local! {
    /// `immediate_exit` of the vCPU that this thread runs; null on every other thread.
    static IMMEDIATE_EXIT: Cell<*mut u8> = const { Cell::new(ptr::null_mut()) };
}

/// The handle by which other threads kick one vCPU's thread.
#[derive(Debug, Default)]
pub(crate) struct Kicker {
    /// Thread ID of the vCPU's thread; 0 while there is none to kick.
    thread: AtomicI32,
}

impl Kicker {
    /// Makes KVM_RUN on this vCPU return soon, or the next KVM_RUN return at once. Does nothing if no thread runs the
    /// vCPU.
    pub(crate) fn kick(&self) {
        if let Some(thread) = self.thread() {
            signal(thread, SIGRTMIN());
        }
    }

    /// The thread that runs the vCPU, if there is one.
    pub(super) fn thread(&self) -> Option<NonZeroI32> {
        NonZeroI32::new(self.thread.load(Ordering::Acquire))
    }
}

/// Sends one of our own real-time signals, whose handlers are installed, to a thread of this process.
pub(super) fn signal(thread: NonZeroI32, number: c_int) {
    // SAFETY: tgkill touches no memory of ours. A thread that has ended meanwhile is refused with ESRCH. A thread
    // that has reused its number belongs to this process, and takes the signal as a no-op.
    unsafe { libc::syscall(libc::SYS_tgkill, libc::getpid(), thread.get(), number) };
}

/// While this lives, kicks for its vCPU go to the current thread.
pub(crate) struct Kickable<'a>(&'a Kicker);

/// Registers the current thread as the one that runs `vcpu`. The vCPU must not be dropped before the guard; the guard
/// stays on its thread.
///
/// # Errors
/// The signal handler can't be installed.
pub(crate) fn register<'a>(kicker: &'a Kicker, vcpu: &mut VcpuFd) -> Result<Kickable<'a>, vmm_sys_util::errno::Error> {
    static INSTALL: Once = Once::new();
    let mut installed = Ok(());
    INSTALL.call_once(|| installed = register_signal_handler(SIGRTMIN(), on_kick));
    installed?;
    IMMEDIATE_EXIT.set(&raw mut vcpu.get_kvm_run().immediate_exit);
    kicker.thread.store(rustix::thread::gettid().as_raw_pid(), Ordering::Release);
    Ok(Kickable(kicker))
}

impl Drop for Kickable<'_> {
    fn drop(&mut self) {
        self.0.thread.store(0, Ordering::Release);
        IMMEDIATE_EXIT.set(ptr::null_mut());
    }
}

extern "C" fn on_kick(_: c_int, _: *mut siginfo_t, _: *mut c_void) {
    let immediate_exit = IMMEDIATE_EXIT.get();
    if !immediate_exit.is_null() {
        // SAFETY:
        // 1. The pointer is into this thread's vCPU's `kvm_run` mapping, which is there as long as the guard is.
        // 2. A volatile byte store is async-signal-safe; a thread-local without destructor needs no initialisation.
        unsafe { immediate_exit.write_volatile(1) };
    }
}
