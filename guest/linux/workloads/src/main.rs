//! What Linux guests do while their page faults are intercepted.
//!
//! `workloads NAME[,NAME...]` or `workloads all`. Each workload makes the kernel take page faults of one kind, checks
//! what came of them, and ends with the line `workload NAME: ok`. What is printed is the same in every run, so that
//! runs with and without interception can be compared; except for the counts of `counters`.
//!
//! # Layout
//! - [`processes`]: process storm, copy-on-write; [`memory`]: mappings, stack, huge pages, protections, pressure
//! - [`signals`]: SIGSEGV handlers that repair their own faults, and vector registers across them
//! - [`swapped`]: memory that is swapped out, moved and inherited while a hook looks at it
//! - [`userfault`]: userfaultfd; [`threads`]: shared pages
//! - [`paged`]: memory that a hook on the host backs by a file
//! - [`kernel`]: faults that the kernel takes in system calls; [`counters`]: the kernel's own count of them
//! - [`chosen`]: faults at addresses that hooks on the host are told to look at
//! - [`segments`]: segments of a process's own
//! - [`sys`]: system calls, and all of the unsafe code

mod chosen;
mod counters;
mod kernel;
mod memory;
mod paged;
mod processes;
mod segments;
mod signals;
mod swapped;
mod sys;
mod threads;
mod userfault;

use std::process::ExitCode;

/// Why a workload has failed.
type Failure = Box<dyn std::error::Error>;
type Outcome = Result<(), Failure>;

type Workload = (&'static str, fn() -> Outcome);

const WORKLOADS: &[Workload] = &[
    ("process-storm", processes::storm),
    ("copy-on-write", processes::copy_on_write),
    ("mmap", memory::mmap),
    ("stack", memory::stack),
    ("huge-pages", memory::huge_pages),
    ("mprotect", memory::mprotect),
    ("pressure", memory::pressure),
    ("segv", signals::segv),
    ("vector-state", signals::vector_state),
    ("userfaultfd", userfault::userfaultfd),
    ("threads", threads::threads),
    ("efault", kernel::efault),
    ("watched", chosen::watched),
    ("guarded", chosen::guarded),
    ("guarded-copy", chosen::guarded_copy),
    ("written-code", chosen::written_code),
    ("copies", chosen::copies),
    ("segments", segments::segments),
    ("lent", chosen::lent),
    ("lent-far", chosen::lent_far),
    ("swapped", swapped::swapped),
    ("counters", counters::counters),
];

/// Those that pass only where the host has a hook for them: `all` leaves them out.
const WITH_A_HOOK: &[Workload] = &[("pager", paged::pager)];

fn main() -> ExitCode {
    let asked = std::env::args().nth(1).unwrap_or_default();
    if asked == processes::CHILD {
        return ExitCode::from(processes::CHILD_STATUS);
    }
    if asked == chosen::TOUCH {
        return chosen::touch();
    }
    if asked == segments::RUN_PAST {
        return segments::run_past();
    }
    if asked == segments::TAKE_AWAY {
        return segments::take_away();
    }
    let names: Vec<&str> =
        if asked == "all" { WORKLOADS.iter().map(|(name, _)| *name).collect() } else { asked.split(',').collect() };
    let mut status = ExitCode::SUCCESS;
    for name in names {
        if let Err(failure) = run(name) {
            println!("workload {name}: FAILED: {failure}");
            status = ExitCode::FAILURE;
        }
    }
    status
}

fn run(name: &str) -> Outcome {
    let workloads = || WORKLOADS.iter().chain(WITH_A_HOOK);
    let Some((_, workload)) = workloads().find(|(known, _)| *known == name) else {
        let known: Vec<&str> = workloads().map(|(name, _)| *name).collect();
        return Err(format!("there is no such workload, only all, {}", known.join(", ")).into());
    };
    workload()?;
    println!("workload {name}: ok");
    Ok(())
}

/// Fails with this message unless `right`.
fn check(right: bool, message: impl FnOnce() -> String) -> Outcome {
    if right { Ok(()) } else { Err(message().into()) }
}

/// The kernel's taint flags. It changes them where it finds something wrong, such as a page-table entry that can't be.
fn taint() -> Result<String, Failure> {
    Ok(std::fs::read_to_string("/proc/sys/kernel/tainted")?.trim().to_owned())
}

/// Fails if the kernel's taint flags are not what they were.
fn check_taint(before: &str) -> Outcome {
    let now = taint()?;
    check(now == before, || format!("the kernel has found something: taint {now}, was {before}"))
}
