//! The library's side of the descriptor: a [`HookType`] behind functions with the C ABI. A panic is returned as text.

use std::ffi::c_void;

use super::handle::Handle;
use super::text::say;
use super::types;
use super::types::{Descriptor, Guest, Prefix, Sink, Status, Text};
use crate::panics::{describe_panic, guarded, report_panics_of_hooks_here};
use crate::{Hook, HookType, OptionDoc, Options, OptionsError, Verdict};

/// An exported kind of hook. Implemented by [`export!`](crate::export).
pub trait Export {
    /// The exported kind of hook.
    const TYPE: HookType;
}

/// Exports a [`HookType`], so that `[[hook]] path = "..."` can load this crate, a `cdylib`. Use it once per crate.
///
/// ```
/// use vector14_hook::{Fault, Guest, Hook, HookType, Result, Verdict};
///
/// #[derive(Default)]
/// struct Mine;
///
/// impl Hook for Mine {
///     fn on_fault(&self, _fault: &Fault, _guest: &mut dyn Guest) -> Result {
///         Ok(Verdict::Pass)
///     }
/// }
///
/// vector14_hook::export!(HookType::without_options::<Mine>("mine", "passes"));
/// ```
#[macro_export]
macro_rules! export {
    ($kind:expr) => {
        #[cfg(panic = "abort")]
        ::core::compile_error!("a hook that panics must unwind: remove `panic = \"abort\"` from the profile");
        const _: () = {
            struct Exported;
            impl $crate::abi::Export for Exported {
                const TYPE: $crate::HookType = $kind;
            }
            static OPTIONS: [$crate::abi::OptionDoc; <Exported as $crate::abi::Export>::TYPE.options.len()] =
                $crate::abi::option_docs(<Exported as $crate::abi::Export>::TYPE.options);
            #[allow(unsafe_code)]
            #[unsafe(export_name = "vector14_hook")]
            static DESCRIPTOR: $crate::abi::Descriptor = $crate::abi::Descriptor::of::<Exported>(&OPTIONS);
        };
    };
}

// SAFETY: the pointers of a descriptor and of its options point to constants.
unsafe impl Sync for Descriptor {}
// SAFETY: as above.
unsafe impl Sync for types::OptionDoc {}

/// Converts the first `N` of `docs` to the types that cross the boundary. For [`export!`](crate::export).
#[must_use]
pub const fn option_docs<const N: usize>(docs: &'static [OptionDoc]) -> [types::OptionDoc; N] {
    let none = types::OptionDoc { name: Text::NONE, value: Text::NONE, default_value: Text::NONE, help: Text::NONE };
    let mut raw = [none; N];
    let mut index = 0;
    while index < N {
        raw[index] = types::OptionDoc::of(&docs[index]);
        index += 1;
    }
    raw
}

impl types::OptionDoc {
    pub(super) const fn of(doc: &OptionDoc) -> Self {
        let default_value = match doc.default {
            Some(default) => Text::of(default),
            None => Text::NONE,
        };
        Self { name: Text::of(doc.name), value: Text::of(doc.value), default_value, help: Text::of(doc.help) }
    }
}

impl Descriptor {
    /// The descriptor of an exported kind of hook, whose options are `options`.
    #[must_use]
    pub const fn of<E: Export>(options: &'static [types::OptionDoc]) -> Self {
        Self {
            prefix: Prefix::OURS,
            name: Text::of(E::TYPE.name),
            summary: Text::of(E::TYPE.summary),
            options: options.as_ptr(),
            option_count: options.len(),
            check: Some(check::<E>),
            create: Some(create::<E>),
            on_fault: Some(on_fault),
            on_end: Some(on_end),
            destroy: Some(destroy),
        }
    }
}

// The functions below rest on this, called "the contract": the host calls them as the header says. Pointers are valid
// for the call, and `hook` came from `create` and has not been passed to `destroy`.

unsafe extern "C" fn check<E: Export>(options: *const types::Options, error: *mut types::OptionsError) -> Status {
    // SAFETY: the contract.
    match unsafe { with_options(options, error, E::TYPE.check) } {
        Ok(()) => Status::OK,
        Err(status) => status,
    }
}

unsafe extern "C" fn create<E: Export>(
    options: *const types::Options,
    hook: *mut *mut c_void,
    error: *mut types::OptionsError,
) -> Status {
    // SAFETY: the contract.
    match unsafe { with_options(options, error, E::TYPE.create) } {
        Ok(made) => {
            // SAFETY: the contract.
            unsafe { hook.write(Box::into_raw(Box::new(made)).cast()) };
            Status::OK
        }
        Err(status) => status,
    }
}

/// Parses the options, passes them to `act`, and reports errors.
///
/// # Safety
/// The contract.
unsafe fn with_options<R>(
    options: *const types::Options,
    error: *mut types::OptionsError,
    act: fn(&Options) -> Result<R, OptionsError>,
) -> Result<R, Status> {
    report_panics_of_hooks_here();
    // SAFETY: the contract.
    let (json, folder, error) = unsafe {
        let types::Options { json, folder } = *options;
        (json.to_string_lossy(), folder.to_string_lossy(), *error)
    };
    match guarded(|| act(&Options::from_json(&json, folder)?)) {
        Ok(Ok(result)) => Ok(result),
        Ok(Err(OptionsError { key, message })) => {
            // SAFETY: the contract.
            unsafe {
                say(error.key, &key.unwrap_or_default());
                say(error.message, &message);
            }
            Err(Status::FAILED)
        }
        Err(payload) => {
            // SAFETY: the contract.
            unsafe { say(error.message, &describe_panic(payload.as_ref())) };
            Err(Status::PANICKED)
        }
    }
}

unsafe extern "C" fn on_fault(
    hook: *mut c_void,
    fault: *const types::Fault,
    guest: *mut Guest,
    verdict: *mut types::Verdict,
    text: *mut Sink,
) -> Status {
    // SAFETY: the contract.
    let (hook, fault, mut guest) =
        unsafe { (&*hook.cast::<Box<dyn Hook>>(), crate::Fault::from(&*fault), Handle::new(guest)) };
    // Formatting an error also runs the hook's code.
    let decided = guarded(|| hook.on_fault(&fault, &mut guest).map_err(|error| error.to_string()));
    match decided {
        Ok(Ok(decided)) => {
            // SAFETY: the contract.
            unsafe { verdict.write((&decided).into()) };
            if let Verdict::Stop(reason) = &decided {
                // SAFETY: the contract.
                unsafe { say(text, reason) };
            }
            Status::OK
        }
        Ok(Err(error)) => {
            // SAFETY: the contract.
            unsafe { say(text, &error) };
            Status::FAILED
        }
        Err(payload) => {
            // SAFETY: the contract.
            unsafe { say(text, &describe_panic(payload.as_ref())) };
            Status::PANICKED
        }
    }
}

unsafe extern "C" fn on_end(hook: *mut c_void, guest: *mut Guest, text: *mut Sink) -> Status {
    // SAFETY: the contract.
    let (hook, mut guest) = unsafe { (&*hook.cast::<Box<dyn Hook>>(), Handle::new(guest)) };
    match guarded(|| serde_json::to_string(&hook.on_end(&mut guest))) {
        Ok(Ok(report)) => {
            // SAFETY: the contract.
            unsafe { say(text, &report) };
            Status::OK
        }
        Ok(Err(error)) => {
            // SAFETY: the contract.
            unsafe { say(text, &error) };
            Status::FAILED
        }
        Err(payload) => {
            // SAFETY: the contract.
            unsafe { say(text, &describe_panic(payload.as_ref())) };
            Status::PANICKED
        }
    }
}

unsafe extern "C" fn destroy(hook: *mut c_void) {
    // SAFETY: the contract; `create` made the pointer from such a box.
    let hook = unsafe { Box::from_raw(hook.cast::<Box<dyn Hook>>()) };
    // A panic can't be reported here: the hook's report has already been made.
    let _ = guarded(|| drop(hook));
}
