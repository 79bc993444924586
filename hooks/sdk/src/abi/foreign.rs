//! The host's side of the descriptor: makes an ordinary [`Hook`] of a hook that a library implements.

use std::ffi::c_void;
use std::ptr;
use std::sync::Arc;

use super::calls::Lent;
use super::export::Export;
use super::text::Written;
use super::types;
use super::types::{Descriptor, Prefix, Status, Text};
use super::version::Mismatch;
use crate::panics::resume_panic;
use crate::{Error, Fault, Guest, Hook, OptionDoc, Options, OptionsError, Report, Result as HookResult, Verdict};

/// A kind of hook on the other side of the boundary.
#[derive(Clone, Debug)]
pub struct Foreign {
    descriptor: &'static Descriptor,
    name: &'static str,
    summary: &'static str,
    options: Arc<[OptionDoc]>,
}

impl Foreign {
    /// Reads the kind of hook from a descriptor.
    ///
    /// # Errors
    /// [`Mismatch`]. If the prefix does not match ours, nothing after it is read.
    ///
    /// # Safety
    /// 1. `descriptor` points to a readable [`Prefix`], and to a whole [`Descriptor`] if the prefix matches ours. The
    ///    descriptor and everything that it points to stay valid and unchanged forever.
    /// 2. Its functions behave as the header requires.
    pub unsafe fn new(descriptor: *const Descriptor) -> Result<Self, Mismatch> {
        // SAFETY: the caller's promise.
        unsafe { descriptor.cast::<Prefix>().read() }.check()?;
        // SAFETY: the caller's promise; the prefix matches ours.
        let descriptor = unsafe { &*descriptor };
        if descriptor.on_fault.is_none() {
            return Err(Mismatch::NoOnFault);
        }
        let raw: &[types::OptionDoc] = if descriptor.options.is_null() || descriptor.option_count == 0 {
            &[]
        } else {
            // SAFETY: the caller's promise.
            unsafe { std::slice::from_raw_parts(descriptor.options, descriptor.option_count) }
        };
        // SAFETY: the caller's promise.
        let read = |text, what| unsafe { read(text, what) };
        let option = |doc: &types::OptionDoc| {
            Ok(OptionDoc {
                name: read(doc.name, "name of an option")?,
                value: read(doc.value, "value of an option")?,
                default: Some(doc.default_value)
                    .filter(|text| !text.bytes.is_null())
                    .map(|text| read(text, "default of an option"))
                    .transpose()?,
                help: read(doc.help, "help on an option")?,
            })
        };
        Ok(Self {
            descriptor,
            name: read(descriptor.name, "name")?,
            summary: read(descriptor.summary, "summary")?,
            options: raw.iter().map(option).collect::<Result<_, _>>()?,
        })
    }

    /// Takes a kind of hook that this program itself exports through the boundary, to test the boundary and measure its
    /// cost.
    #[must_use]
    pub fn local<E: Export>() -> Self {
        let docs: Vec<_> = E::TYPE.options.iter().map(types::OptionDoc::of).collect();
        let descriptor = Box::leak(Box::new(Descriptor::of::<E>(docs.leak())));
        Self {
            descriptor,
            name: E::TYPE.name,
            summary: E::TYPE.summary,
            options: E::TYPE.options.iter().cloned().collect(),
        }
    }

    /// The hook's name.
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// One line that describes the hook.
    #[must_use]
    pub fn summary(&self) -> &'static str {
        self.summary
    }

    /// The options that the hook understands.
    #[must_use]
    pub fn options(&self) -> &[OptionDoc] {
        &self.options
    }

    /// As [`HookType::check`](crate::HookType).
    ///
    /// # Errors
    /// The error that the hook reports.
    pub fn check(&self, options: &Options) -> Result<(), OptionsError> {
        let Some(check) = self.descriptor.check else { return Ok(()) };
        // SAFETY: the promise to `new`: the function does what the header says. The pointers are valid for the call.
        with_options(options, |options, error| unsafe { check(options, error) })
    }

    /// As [`HookType::create`](crate::HookType).
    ///
    /// # Errors
    /// The error that the hook reports.
    pub fn create(&self, options: &Options) -> Result<Box<dyn Hook>, OptionsError> {
        let mut hook = ptr::null_mut();
        if let Some(create) = self.descriptor.create {
            // SAFETY: as in `check`.
            with_options(options, |options, error| unsafe { create(options, &raw mut hook, error) })?;
        }
        Ok(Box::new(ForeignHook { descriptor: self.descriptor, hook }))
    }
}

/// Reads a text of a descriptor.
///
/// # Safety
/// The text is missing, or stays valid and unchanged forever.
unsafe fn read(text: Text, what: &'static str) -> Result<&'static str, Mismatch> {
    // SAFETY: the caller's promise.
    let bytes = unsafe { text.bytes() }.ok_or(Mismatch::Text(what))?;
    std::str::from_utf8(bytes).map_err(|_| Mismatch::Text(what))
}

/// Passes options to a call, and turns what the call reports into an error.
fn with_options(
    options: &Options,
    call: impl FnOnce(*const types::Options, *mut types::OptionsError) -> Status,
) -> Result<(), OptionsError> {
    let (json, folder) = (options.to_json(), options.folder().to_string_lossy());
    let (mut key, mut message) = (Written::default(), Written::default());
    let (mut key_sink, mut message_sink) = (key.sink(), message.sink());
    let status = call(
        &types::Options { json: Text::lent(&json), folder: Text::lent(&folder) },
        &mut types::OptionsError { key: &raw mut key_sink, message: &raw mut message_sink },
    );
    let message = message.into_text();
    let message = match status {
        Status::OK => return Ok(()),
        Status::PANICKED => format!("it panicked: {message}"),
        Status(_) if message.is_empty() => "it does not say what is wrong".to_owned(),
        Status(_) => message,
    };
    let key = Some(key.into_text()).filter(|key| !key.is_empty());
    Err(OptionsError { key, message })
}

/// A hook on the other side of the boundary.
struct ForeignHook {
    descriptor: &'static Descriptor,
    /// The pointer that `create` returned.
    hook: *mut c_void,
}

// SAFETY: the header requires that any thread may call a hook's functions, and several threads `on_fault` at once.
unsafe impl Send for ForeignHook {}
// SAFETY: as above.
unsafe impl Sync for ForeignHook {}

impl Hook for ForeignHook {
    fn on_fault(&self, fault: &Fault, mut guest: &mut dyn Guest) -> HookResult {
        let Some(on_fault) = self.descriptor.on_fault else { return Ok(Verdict::Pass) };
        let fault = types::Fault::from(fault);
        let mut lent = Lent::new(&mut guest);
        let mut verdict = types::Verdict::PASS;
        let mut text = Written::default();
        let mut sink = text.sink();
        // SAFETY: the promise to `Foreign::new`: the function does what the header says. `hook` is what `create` gave, and
        // the other pointers are valid for the call.
        let status = unsafe { on_fault(self.hook, &raw const fault, lent.as_raw(), &raw mut verdict, &raw mut sink) };
        match status {
            Status::OK => verdict.decode(|| text.into_text()).ok_or_else(|| unknown_verdict(verdict)),
            Status::PANICKED => resume_panic(text.into_text()),
            Status(_) => Err(failure(text)),
        }
    }

    fn on_end(&self, mut guest: &mut dyn Guest) -> Report {
        let Some(on_end) = self.descriptor.on_end else { return Report::default() };
        let mut lent = Lent::new(&mut guest);
        let mut text = Written::default();
        let mut sink = text.sink();
        // SAFETY: as in `on_fault`.
        match unsafe { on_end(self.hook, lent.as_raw(), &raw mut sink) } {
            Status::OK => Report::from_json(&text.into_text()),
            Status::PANICKED => resume_panic(text.into_text()),
            Status(_) => Report { warnings: vec![format!("no report: {}", failure(text))], ..Report::default() },
        }
    }
}

#[cold]
fn unknown_verdict(verdict: types::Verdict) -> Error {
    format!("its verdict is {}, which is not a verdict (vector14_hook.h lists them)", verdict.kind.0).into()
}

#[cold]
fn failure(text: Written) -> Error {
    let text = text.into_text();
    if text.is_empty() { "it does not say why".into() } else { text.into() }
}

impl Drop for ForeignHook {
    fn drop(&mut self) {
        if let Some(destroy) = self.descriptor.destroy {
            // SAFETY: as in `on_fault`, and no function is called with this hook after this.
            unsafe { destroy(self.hook) };
        }
    }
}
