//! A process with segments of its own, in its local descriptor table (modify_ldt).

use std::os::unix::process::ExitStatusExt;
use std::process::{Command, ExitCode};
use std::thread;

use crate::sys::{Mapping, Segment, call_segment, load_on_stack_segment, set_segment};
use crate::{Outcome, check};

/// Where 32-bit code can have a segment begin, and name an address.
const CODE: usize = 0x2000_0000;
const ABSENT: usize = 0x2100_0000;
/// `mov eax, [ABSENT]`, the whole of the segment.
const LOAD: [u8; 5] = [0xa1, 0x00, 0x00, 0x00, 0x21];
const INDEX: u32 = 0;

/// The argument that makes this program run past the end of a code segment.
pub(crate) const RUN_PAST: &str = "--run-past-segment";
/// The argument that makes it use a stack segment that another thread takes away.
pub(crate) const TAKE_AWAY: &str = "--take-segment-away";

/// The first process executes the last instruction of its code segment, and then nothing is left to execute. The others end when
/// they load a stack segment that is gone, or when they are through.
pub(crate) fn segments() -> Outcome {
    const PROCESSES: usize = 32;
    let end = |argument: &str| Command::new("/proc/self/exe").arg(argument).status();
    println!("segments: past the end: signal {:?}", end(RUN_PAST)?.signal());
    for _ in 0..PROCESSES {
        let status = end(TAKE_AWAY)?;
        let ended = status.success() || status.signal() == Some(libc::SIGSEGV);
        check(ended, || format!("the process with a stack segment that comes and goes ended with {status}"))?;
    }
    println!("segments: {PROCESSES} processes had a stack segment that came and went");
    Ok(())
}

pub(crate) fn run_past() -> ExitCode {
    let memory = Mapping::at(CODE, 1).and_then(|code| Ok((code, Mapping::at(ABSENT, 1)?)));
    let Ok((code, _absent)) = memory else { return ExitCode::FAILURE };
    code.fill(&LOAD);
    let executable = code.protect(0, 1, libc::PROT_READ | libc::PROT_EXEC);
    let segment = Segment::Code { start: CODE, limit: LOAD.len() - 1 };
    if executable.and_then(|()| set_segment(INDEX, Some(segment))).is_err() {
        return ExitCode::FAILURE;
    }
    call_segment(INDEX)
}

pub(crate) fn take_away() -> ExitCode {
    const ROUNDS: usize = 2000;
    let Ok(_absent) = Mapping::at(ABSENT, 1) else { return ExitCode::FAILURE };
    let give = || set_segment(INDEX, Some(Segment::Stack));
    if give().is_err() {
        return ExitCode::FAILURE;
    }
    let user = thread::spawn(|| (0..ROUNDS).for_each(|_| load_on_stack_segment(INDEX, ABSENT)));
    while !user.is_finished() {
        let changed = set_segment(INDEX, None).and_then(|()| give());
        if changed.is_err() {
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}
