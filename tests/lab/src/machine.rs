//! The machine: QEMU's command line, and what QEMU can tell about a machine that hangs.

use std::ffi::OsString;
use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::job::Attendance;

pub(crate) const QEMU: &str = "qemu-system-x86_64";
/// The oldest major version of QEMU that is known to run nested guests with XSAVE. Version 7.2 does not intercept XSETBV,
/// so that KVM does not know a guest's XCR0: AVX raises #UD there. With AVX masked, Linux 5.10 dies in its first
/// rt_sigreturn and 7.3 in fpstate_reset.
pub(crate) const OLDEST_QEMU: u64 = 10;

/// The machine apart from its files.
///
/// - One CPU. With two, each a thread of QEMU's (`thread=multi`), the tests take 57 s instead of 71 s, but a machine
///   that runs nested guests has been seen to hang in its own kernel. A guest in it has as many vCPUs as it likes.
/// - `max` is all that QEMU can emulate; it leaves SVM out unless asked.
/// - 4 GiB that the host only gives as they are touched.
const MACHINE: &[&str] =
    &["-accel", "tcg", "-cpu", "max,+svm", "-M", "q35", "-m", "4096", "-nodefaults", "-display", "none", "-no-reboot"];

/// The first serial port is the job's, the second the kernel's. A panic ends QEMU (`panic=-1` with `-no-reboot`).
///
/// - `no_timer_check`: a busy host can take QEMU's CPU away while the kernel counts timer interrupts. The kernel then panics
///   ("IO-APIC + timer doesn't work!").
/// - `highres=off nohz=off`, a periodic tick: QEMU up to 10.0 can lose an interrupt that one of its own threads raises while
///   the CPU leaves a nested guest. It clears a bit of `interrupt_request` there, and not atomically. One-shot timers, which
///   Linux uses otherwise, never come again then, and the lab stands still with the timer's vector in the APIC's IRR.
const KERNEL_COMMAND_LINE: &str = "console=ttyS1 panic=-1 mitigations=off quiet no_timer_check highres=off nohz=off";

/// What the machine's clock follows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Clock {
    /// The host's clock.
    #[default]
    Host,
    /// The instructions that its CPU executes, one per nanosecond. Emulation is slower than that, so the machine's time passes more
    /// slowly than the host's, and a guest gets more done between two timer interrupts.
    Instructions,
}

/// The files of a machine.
#[derive(Debug)]
pub(crate) struct Files<'a> {
    pub(crate) kernel: &'a Path,
    pub(crate) initrd: &'a Path,
    /// Where the kernel's log goes.
    pub(crate) console: &'a Path,
    /// Where the job's exit status goes, as one byte.
    pub(crate) status: &'a Path,
    /// The socket of QEMU's monitor.
    pub(crate) monitor: &'a Path,
}

/// QEMU, ready to be started. Its standard output is the first serial port.
pub(crate) fn qemu(files: &Files<'_>, attendance: Attendance, clock: Clock) -> Command {
    let mut qemu = Command::new(QEMU);
    if clock == Clock::Instructions {
        qemu.args(["-icount", "shift=0"]);
    }
    qemu.args(MACHINE).arg("-kernel").arg(files.kernel).arg("-initrd").arg(files.initrd);
    qemu.args(["-append", KERNEL_COMMAND_LINE]);
    match attendance {
        Attendance::Attended => {
            qemu.args(["-chardev", "stdio,id=job,mux=on,signal=off", "-mon", "chardev=job,mode=readline"])
        }
        Attendance::Unattended => qemu.args(["-chardev", "stdio,id=job"]),
    };
    qemu.arg("-chardev").arg(with_path("file,id=console", files.console));
    qemu.arg("-chardev").arg(with_path("file,id=status", files.status));
    qemu.arg("-chardev").arg(with_path("socket,id=monitor,server=on,wait=off", files.monitor));
    qemu.args(["-serial", "chardev:job", "-serial", "chardev:console"]);
    // The job's status leaves through a port of its own, so that no output can be mistaken for it.
    qemu.args(["-device", "isa-debugcon,iobase=0x501,chardev=status"]);
    qemu.args(["-mon", "chardev=monitor,mode=readline"]);
    qemu
}

/// An option that ends with a path. A comma in it would begin the next option.
fn with_path(option: &str, path: &Path) -> OsString {
    format!("{option},path={}", path.display().to_string().replace(',', ",,")).into()
}

/// Asks QEMU what its CPUs are doing, and ends it.
pub(crate) fn interrogate(monitor: &Path) -> io::Result<Vec<u8>> {
    const QUESTIONS: &[u8] = b"info status\ninfo cpus\ninfo registers -a\ninfo pic\ninfo irq\ninfo jit\nquit\n";
    let mut stream = UnixStream::connect(monitor)?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    stream.write_all(QUESTIONS)?;
    let mut answers = Vec::new();
    match stream.read_to_end(&mut answers) {
        // What has come until QEMU fell silent is worth having.
        Ok(_) => Ok(answers),
        Err(error) if answers.is_empty() => Err(error),
        Err(_) => Ok(answers),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_comma_in_a_path_stays_in_the_path() {
        assert_eq!(with_path("file,id=a", Path::new("/x,y/z")), "file,id=a,path=/x,,y/z");
    }
}
