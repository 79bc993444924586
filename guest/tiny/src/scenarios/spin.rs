//! `spin`: never ends, and makes no exit.

pub(super) fn run() -> ! {
    loop {
        core::hint::spin_loop();
    }
}
