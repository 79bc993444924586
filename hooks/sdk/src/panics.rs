//! Calls into hooks that may panic. Used by the VM, and by the glue code inside a hook's library.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::panic::{self, AssertUnwindSafe};
use std::thread;

thread_local! {
    /// Whether this thread is inside a hook.
    static IN_HOOK: Cell<bool> = const { Cell::new(false) };
    /// Location (`file:line:column`) of the panic that is unwinding on this thread.
    static PANICKED_AT: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Calls into a hook and catches a panic.
///
/// # Errors
/// The panic's payload, for [`describe_panic`].
#[inline]
pub fn guarded<R>(call: impl FnOnce() -> R) -> thread::Result<R> {
    let outside = IN_HOOK.replace(true);
    let result = panic::catch_unwind(AssertUnwindSafe(call));
    IN_HOOK.set(outside);
    result
}

/// Records panics inside hooks instead of printing them: the hook's caller reports them.
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

/// A panic's message and location.
#[must_use]
pub fn describe_panic(payload: &(dyn Any + Send)) -> String {
    let text = payload.downcast_ref::<&str>().copied().or_else(|| payload.downcast_ref::<String>().map(String::as_str));
    let place = PANICKED_AT.take().map(|place| format!(" ({place})")).unwrap_or_default();
    format!("{}{place}", text.unwrap_or("without a message"))
}

/// Resumes a panic that was caught elsewhere, with a description that is already complete.
pub(crate) fn resume_panic(description: String) -> ! {
    PANICKED_AT.take();
    panic::resume_unwind(Box::new(description))
}
