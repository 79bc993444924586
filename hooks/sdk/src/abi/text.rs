//! Text across the boundary: [`Text`] on its way in, [`Sink`] on its way out.

use std::ffi::c_void;
use std::fmt;

use super::types::{Sink, Text};

impl Text {
    /// No text.
    pub const NONE: Self = Self { bytes: std::ptr::null(), length: 0 };

    /// A static text.
    #[must_use]
    pub const fn of(text: &'static str) -> Self {
        Self::lent(text)
    }

    /// A text that is valid for one call.
    pub(super) const fn lent(text: &str) -> Self {
        Self { bytes: text.as_ptr().cast(), length: text.len() }
    }

    /// The bytes of the text; `None` if there is no text.
    ///
    /// # Safety
    /// `bytes` is null, or points to `length` bytes that stay valid and unchanged for `'a`.
    pub(super) unsafe fn bytes<'a>(self) -> Option<&'a [u8]> {
        // SAFETY: not null, and the rest is the caller's promise.
        (!self.bytes.is_null()).then(|| unsafe { std::slice::from_raw_parts(self.bytes.cast(), self.length) })
    }

    /// The text; invalid UTF-8 in it is replaced.
    ///
    /// # Safety
    /// As [`Text::bytes`].
    pub(super) unsafe fn to_string_lossy(self) -> String {
        // SAFETY: the caller's promise.
        String::from_utf8_lossy(unsafe { self.bytes() }.unwrap_or_default()).into_owned()
    }
}

/// A text that the other side writes.
#[derive(Debug, Default)]
pub(super) struct Written(Vec<u8>);

impl Written {
    /// The sink to write it through. It must not be used after `self` is moved, used or dropped.
    pub(super) fn sink(&mut self) -> Sink {
        Sink { write, context: (&raw mut *self).cast() }
    }

    /// What was written; invalid UTF-8 in it is replaced.
    pub(super) fn into_text(self) -> String {
        String::from_utf8(self.0).unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned())
    }
}

unsafe extern "C" fn write(context: *mut c_void, bytes: *const std::ffi::c_char, length: usize) {
    if bytes.is_null() {
        return;
    }
    // SAFETY: the holder of a `Written`'s sink passes that sink's context, and bytes that are valid for this call.
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
    // SAFETY: the sink was lent for this call; its function gets its own context, and bytes that are valid for the
    // call.
    unsafe {
        let Sink { write, context } = *sink;
        write(context, text.as_ptr().cast(), text.len());
    }
}
