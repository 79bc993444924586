//! Calls into hooks that may panic. For whoever calls hooks: the VM, and the glue of a loaded one inside of its library.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::panic::{self, AssertUnwindSafe};
use std::thread;

thread_local! {
    /// Whether this thread is inside of a hook.
    static IN_HOOK: Cell<bool> = const { Cell::new(false) };
    /// Where the panic that is being unwound on this thread began, `file:line`.
    static PANICKED_AT: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Calls into a hook; a panic does not come out.
///
/// # Errors
/// What the hook panicked with, for [`describe_panic`].
#[inline]
pub fn guarded<R>(call: impl FnOnce() -> R) -> thread::Result<R> {
    let outside = IN_HOOK.replace(true);
    let result = panic::catch_unwind(AssertUnwindSafe(call));
    IN_HOOK.set(outside);
    result
}

/// Has panics inside of hooks noted instead of printed: whoever calls the hook reports them in words of its own.
pub fn report_panics_of_hooks_here() {
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
#[must_use]
pub fn describe_panic(payload: &(dyn Any + Send)) -> String {
    let text = payload.downcast_ref::<&str>().copied().or_else(|| payload.downcast_ref::<String>().map(String::as_str));
    let place = PANICKED_AT.take().map(|place| format!(" ({place})")).unwrap_or_default();
    format!("{}{place}", text.unwrap_or("without a message"))
}

/// Goes on with a panic that was caught elsewhere and is described already.
pub(crate) fn resume_panic(description: String) -> ! {
    PANICKED_AT.take();
    panic::resume_unwind(Box::new(description))
}
