//! `echo`: reads the console, and prints what came in.

use crate::cmdline::Cmdline;
use crate::{console, say};

const BYTES_MAX: usize = 1024;

pub(super) fn run(cmdline: &Cmdline) {
    let mut buffer = [0; BYTES_MAX];
    let count = usize::try_from(cmdline.number("bytes")).map_or(BYTES_MAX, |bytes| bytes.min(BYTES_MAX));
    let bytes = &mut buffer[..count];
    for byte in &mut *bytes {
        *byte = console::read_byte();
    }
    say!("{}", core::str::from_utf8(bytes).unwrap_or("not UTF-8"));
}
