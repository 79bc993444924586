//! Calls into hooks that may panic.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::panic::{self, AssertUnwindSafe};

thread_local! {
    /// Whether this thread is inside of a hook.
    static IN_HOOK: Cell<bool> = const { Cell::new(false) };
    /// Where the panic that is being unwound on this thread began, `file:line`.
    static PANICKED_AT: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Calls into a hook; a panic does not come out.
pub(crate) fn guarded<R>(call: impl FnOnce() -> R) -> std::thread::Result<R> {
    IN_HOOK.set(true);
    let result = panic::catch_unwind(AssertUnwindSafe(call));
    IN_HOOK.set(false);
    result
}

/// Has panics inside of hooks noted instead of printed: [`Chain`](super::Chain) reports them in its own words.
pub(crate) fn report_panics_of_hooks_here() {
    static INSTALL: std::sync::Once = std::sync::Once::new();
    INSTALL.call_once(|| {
        let others = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if IN_HOOK.get() {
                PANICKED_AT.set(info.location().map(ToString::to_string));
            } else {
                others(info);
            }
        }));
    });
}

/// What a panic said, and where.
pub(crate) fn describe_panic(payload: &(dyn Any + Send)) -> String {
    let text = payload.downcast_ref::<&str>().copied().or_else(|| payload.downcast_ref::<String>().map(String::as_str));
    let place = PANICKED_AT.take().map(|place| format!(" ({place})")).unwrap_or_default();
    format!("{}{place}", text.unwrap_or("without a message"))
}
