//! `chatter`: prints as fast as the console takes it.

use crate::cmdline::Cmdline;
use crate::say;

pub(super) fn run(cmdline: &Cmdline) {
    for line in 0..cmdline.number("lines") {
        say!("line {line} of what nobody may lose");
    }
}
