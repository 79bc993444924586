//! Faults that the kernel takes itself, in system calls.

use std::fs::File;
use std::io;

use crate::sys::{Mapping, PAGE, memory_file, transfer};
use crate::{Outcome, check};

/// Bad pointers are refused, pages that are not there yet are fetched.
pub(crate) fn efault() -> Outcome {
    const ROUNDS: usize = 32;
    let memory = Mapping::new(ROUNDS)?;
    let closed = Mapping::new(1)?;
    closed.protect(0, 1, libc::PROT_NONE)?;
    let read_only = Mapping::new(1)?;
    read_only.protect(0, 1, libc::PROT_READ)?;
    let (zero, file) = (File::open("/dev/zero")?, memory_file(1)?);
    for round in 0..ROUNDS {
        let fetched = transfer(libc::SYS_read, &zero, memory.address(round), PAGE)?;
        check(fetched == PAGE, || format!("round {round}: {fetched} bytes read into a fresh page"))?;
        refused("read into a closed page", transfer(libc::SYS_read, &zero, closed.address(0), PAGE))?;
        refused("read into a page that is read-only", transfer(libc::SYS_read, &zero, read_only.address(0), PAGE))?;
        refused("write from a closed page", transfer(libc::SYS_write, &file, closed.address(0), PAGE))?;
        refused("write from no page", transfer(libc::SYS_write, &file, PAGE, PAGE))?;
    }
    println!("efault: {ROUNDS} rounds");
    Ok(())
}

fn refused(what: &str, result: io::Result<usize>) -> Outcome {
    match result {
        Err(error) if error.raw_os_error() == Some(libc::EFAULT) => Ok(()),
        Err(error) => Err(format!("{what}: {error} instead of EFAULT").into()),
        Ok(length) => Err(format!("{what}: {length} bytes").into()),
    }
}
