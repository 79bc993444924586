//! Pages at addresses that hooks on the host are told to look at. Each workload prints what it saw; without a hook,
//! nothing unusual.

use std::fs::File;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, ExitCode};

use crate::sys::{Mapping, PAGE, memory_file, transfer};
use crate::{Outcome, check, check_taint, taint};

/// Where nothing is mapped in a Linux process.
const WATCHED: usize = 0x15_0000_0000;
const GUARDED: usize = 0x15_1000_0000;
const CODE: usize = 0x15_2000_0000;
const COPIES: usize = 0x15_3000_0000;
const LENT: usize = 0x15_4000_0000;

/// A known number of accesses, by instructions of one byte each; the last one is locked.
pub(crate) fn watched() -> Outcome {
    const READS: u8 = 10;
    const WRITES: u8 = 6;
    let memory = Mapping::at(WATCHED, 1)?;
    for value in 1..=WRITES {
        memory.write(0, value);
    }
    for _ in 0..READS {
        check(memory.read(0) == WRITES, || "a write is lost".to_owned())?;
    }
    memory.add(0, 1);
    println!("watched: {WRITES} writes, {READS} reads, an addition");
    Ok(())
}

/// The argument that makes this program touch the guarded page, and end.
pub(crate) const TOUCH: &str = "--touch";
const UNHARMED: u8 = 15;

pub(crate) fn touch() -> ExitCode {
    let touched = Mapping::at(GUARDED, 1).map(|memory| memory.write(0, 1));
    touched.map_or(ExitCode::FAILURE, |()| ExitCode::from(UNHARMED))
}

/// A process that touches a page.
pub(crate) fn guarded() -> Outcome {
    let status = Command::new("/proc/self/exe").arg(TOUCH).status()?;
    match status.signal() {
        Some(signal) => println!("guarded: signal {signal}"),
        None => println!("guarded: status {}", status.code().unwrap_or_default()),
    }
    Ok(())
}

/// A system call that fetches a page which the process itself does not touch.
pub(crate) fn guarded_copy() -> Outcome {
    const LENGTH: usize = 10;
    let taint_before = taint()?;
    let memory = Mapping::at(GUARDED, 1)?;
    let read = transfer(libc::SYS_read, &File::open("/dev/zero")?, memory.address(0), LENGTH)?;
    println!("guarded-copy: {read} bytes");
    check_taint(&taint_before)
}

/// Code that is written, executed, written over and executed again.
pub(crate) fn written_code() -> Outcome {
    const ROUNDS: u8 = 5;
    let memory = Mapping::at(CODE, 1)?;
    memory.protect(0, 1, libc::PROT_READ | libc::PROT_WRITE | libc::PROT_EXEC)?;
    for round in 0..ROUNDS {
        check(memory.execute_returning(round) == round, || format!("round {round}: another round's code"))?;
    }
    println!("written-code: {ROUNDS} rounds");
    Ok(())
}

/// System calls that fetch fresh pages, to write to and to read from.
pub(crate) fn copies() -> Outcome {
    const PAGES: usize = 8;
    let memory = Mapping::at(COPIES, PAGES)?;
    let (zero, file) = (File::open("/dev/zero")?, memory_file(PAGES)?);
    for page in 0..PAGES {
        let (call, what, file) = if page < PAGES / 2 {
            (libc::SYS_read, "read into", &zero)
        } else {
            (libc::SYS_write, "write from", &file)
        };
        match transfer(call, file, memory.address(page), PAGE) {
            Ok(length) => println!("copies: {what} page {page}: {length}"),
            Err(error) => println!("copies: {what} page {page}: {error}"),
        }
    }
    Ok(())
}

/// A fresh page beside one that is populated, so that the two have a page table in common.
pub(crate) fn lent() -> Outcome {
    find(LENT, true)
}

/// A fresh page where there is no page table.
pub(crate) fn lent_far() -> Outcome {
    find(LENT, false)
}

/// Says what a fresh page holds, and what the kernel has to say when the page is given up.
fn find(address: usize, has_table: bool) -> Outcome {
    let before = taint()?;
    let memory = Mapping::at(address, 2)?;
    memory.advise(libc::MADV_NOHUGEPAGE)?;
    if has_table {
        memory.populate(0)?;
    }
    println!("lent: the page holds {:#x}", memory.read(1));
    drop(memory);
    let after = taint()?;
    println!("lent: the kernel {}", if after == before { "is well" } else { "is tainted" });
    Ok(())
}
