//! Text across the boundary: [`Text`] on its way in, [`Sink`] on its way out.

use std::ffi::c_void;
use std::fmt;

use super::types::{Sink, Text};

impl Text {
    /// No text.
    pub const NONE: Self = Self { bytes: std::ptr::null(), length: 0 };

    /// A text that lasts.
    #[must_use]
    pub const fn of(text: &'static str) -> Self {
        Self::lent(text)
    }

    /// A text that lasts for a call.
    pub(super) const fn lent(text: &str) -> Self {
        Self { bytes: text.as_ptr().cast(), length: text.len() }
    }

    /// The text; `None` where there is none.
    ///
    /// # Safety
    /// `bytes` is null or the first of `length` bytes that last, unchanged, as long as `'a`.
    pub(super) unsafe fn bytes<'a>(self) -> Option<&'a [u8]> {
        // SAFETY: not null, and the rest is the caller's promise.
        (!self.bytes.is_null()).then(|| unsafe { std::slice::from_raw_parts(self.bytes.cast(), self.length) })
    }

    /// The text; what is not UTF-8 in it is replaced.
    ///
    /// # Safety
    /// As [`Text::bytes`].
    pub(super) unsafe fn to_string_lossy(self) -> String {
        // SAFETY: the caller's promise.
        String::from_utf8_lossy(unsafe { self.bytes() }.unwrap_or_default()).into_owned()
    }
}

/// A text that somebody on the other side writes.
#[derive(Debug, Default)]
pub(super) struct Written(Vec<u8>);

impl Written {
    /// What it is written through. It must not be used when `self` is moved, used or gone.
    pub(super) fn sink(&mut self) -> Sink {
        Sink { write, context: (&raw mut *self).cast() }
    }

    /// What was written; what is not UTF-8 in it is replaced.
    pub(super) fn into_text(self) -> String {
        String::from_utf8(self.0).unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned())
    }
}

unsafe extern "C" fn write(context: *mut c_void, bytes: *const std::ffi::c_char, length: usize) {
    if bytes.is_null() {
        return;
    }
    // SAFETY: whoever has the sink of a `Written` passes its context, and bytes that are there for this call.
    let (written, bytes) =
        unsafe { (&mut *context.cast::<Written>(), std::slice::from_raw_parts(bytes.cast::<u8>(), length)) };
    written.0.extend_from_slice(bytes);
}

/// Writes a text to a sink, if there is one.
///
/// # Safety
/// `sink` is null or was lent for this call.
pub(super) unsafe fn say(sink: *mut Sink, text: &dyn fmt::Display) {
    if sink.is_null() {
        return;
    }
    let text = text.to_string();
    // SAFETY: it was lent for this call; its function gets its own context, and bytes that are there for the call.
    unsafe {
        let Sink { write, context } = *sink;
        write(context, text.as_ptr().cast(), text.len());
    }
}
