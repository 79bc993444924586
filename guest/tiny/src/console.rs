//! Output: lines on the serial port, each prefixed with the scenario's name, and the exit status.

use core::arch::asm;
use core::fmt::{self, Write};
use core::sync::atomic::{AtomicPtr, AtomicU64, AtomicUsize, Ordering::Relaxed};

use vector14_guest_abi::{COM1, EXIT_PORT};

const FIFO_CONTROL: u16 = COM1 + 2;
const LINE_STATUS: u16 = COM1 + 5;
const DATA_READY: u8 = 1 << 0;
const TRANSMITTER_EMPTY: u8 = 1 << 5;
/// Bytes that a 16550 takes once its transmitter is empty.
const FIFO_SIZE: u64 = 16;

/// The status that is written to the exit port.
pub enum Status {
    Passed = 0,
    /// A check failed.
    Failed = 1,
    /// The command line is wrong.
    Usage = 2,
    /// This kernel has a bug.
    Bug = 3,
}

/// Prints a line.
#[macro_export]
macro_rules! say {
    ($($argument:tt)*) => { $crate::console::line(format_args!($($argument)*)) };
}

/// Ends the scenario as failed, unless the values are equal.
#[macro_export]
macro_rules! check {
    ($expected:expr, $seen:expr, $($what:tt)*) => {
        $crate::console::check($expected as u64, $seen as u64, format_args!($($what)*))
    };
}

/// Sets the prefix of the lines printed from now on.
pub fn set_prefix(prefix: &'static str) {
    PREFIX_LENGTH.store(prefix.len(), Relaxed);
    PREFIX.store(prefix.as_ptr().cast_mut(), Relaxed);
}

static PREFIX: AtomicPtr<u8> = AtomicPtr::new(core::ptr::null_mut());
static PREFIX_LENGTH: AtomicUsize = AtomicUsize::new(0);

fn prefix() -> &'static str {
    let (start, length) = (PREFIX.load(Relaxed), PREFIX_LENGTH.load(Relaxed));
    if start.is_null() {
        return "tiny";
    }
    // SAFETY: `set_prefix` took both from one `&'static str`.
    unsafe { core::str::from_utf8_unchecked(core::slice::from_raw_parts(start, length)) }
}

/// Prints a line; [`say!`] calls this.
pub fn line(arguments: fmt::Arguments) {
    // `Serial` has no errors of its own.
    let _ = writeln!(Serial, "{}: {arguments}", prefix());
}

/// Compares two values; [`check!`] calls this.
pub fn check(expected: u64, seen: u64, what: fmt::Arguments) {
    if expected != seen {
        say!("{what}: expected {expected:#x}, saw {seen:#x}");
        exit(Status::Failed)
    }
}

/// Ends the scenario as failed.
pub fn fail(what: fmt::Arguments) -> ! {
    say!("{what}");
    exit(Status::Failed)
}

/// Ends the scenario as passed, after `faults` page faults that the guest's handlers saw.
pub fn pass(faults: u64) -> ! {
    say!("faults={faults} ok");
    exit(Status::Passed)
}

/// Ends the VM.
pub fn exit(status: Status) -> ! {
    write_port(EXIT_PORT, status as u8);
    loop {
        core::hint::spin_loop();
    }
}

struct Serial;

impl Write for Serial {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for byte in text.bytes() {
            write_byte(byte);
        }
        Ok(())
    }
}

/// Asks the UART whether it has room only once per FIFO of bytes, because each question is an exit from the guest.
fn write_byte(byte: u8) {
    static SENT: AtomicU64 = AtomicU64::new(0);
    let sent = SENT.fetch_add(1, Relaxed);
    if sent == 0 {
        write_port(FIFO_CONTROL, 1);
    }
    if sent.is_multiple_of(FIFO_SIZE) {
        while read_port(LINE_STATUS) & TRANSMITTER_EMPTY == 0 {
            core::hint::spin_loop();
        }
    }
    write_port(COM1, byte);
}

/// Waits for a byte of input.
pub fn read_byte() -> u8 {
    while read_port(LINE_STATUS) & DATA_READY == 0 {
        core::hint::spin_loop();
    }
    read_port(COM1)
}

/// OUT.
pub fn write_port(port: u16, value: u8) {
    // SAFETY: ports reach the UART and the VM's end only.
    unsafe { asm!("out dx, al", in("dx") port, in("al") value, options(nomem, nostack, preserves_flags)) };
}

fn read_port(port: u16) -> u8 {
    let value;
    // SAFETY: as above.
    unsafe { asm!("in al, dx", in("dx") port, out("al") value, options(nomem, nostack, preserves_flags)) };
    value
}
