//! userfaultfd: page faults that a thread of the process answers itself.

use std::fs::File;
use std::io::Read;

use crate::sys::{Mapping, PAGE, ioctl, open};
use crate::{Failure, Outcome, check};

/// linux/userfaultfd.h
const API: u64 = 0xaa;
const UFFDIO_API: libc::c_ulong = 0xc018_aa3f;
const UFFDIO_REGISTER: libc::c_ulong = 0xc020_aa00;
const UFFDIO_COPY: libc::c_ulong = 0xc028_aa03;
const REGISTER_MODE_MISSING: u64 = 1;
const EVENT_PAGEFAULT: u8 = 0x12;

#[repr(C)]
struct Api {
    api: u64,
    features: u64,
    ioctls: u64,
}

#[repr(C)]
struct Register {
    start: u64,
    len: u64,
    mode: u64,
    ioctls: u64,
}

#[repr(C)]
struct Copy {
    dst: u64,
    src: u64,
    len: u64,
    mode: u64,
    copy: i64,
}

/// Every page that is touched is filled by another thread.
pub(crate) fn userfaultfd() -> Outcome {
    const PAGES: usize = 64;
    let file = open(libc::SYS_userfaultfd, [0; 5])?;
    ioctl(&file, UFFDIO_API, &mut Api { api: API, features: 0, ioctls: 0 })?;
    let memory = Mapping::new(PAGES)?;
    let (start, len) = (memory.address(0) as u64, (PAGES * PAGE) as u64);
    ioctl(&file, UFFDIO_REGISTER, &mut Register { start, len, mode: REGISTER_MODE_MISSING, ioctls: 0 })?;

    std::thread::scope(|scope| {
        let answerer = scope.spawn(|| answer(&file, PAGES).map_err(|failure| failure.to_string()));
        let right = (0..PAGES).all(|page| memory.read(page) == 6);
        answerer.join().map_err(|_| "the answering thread has panicked")??;
        check(right, || "a page has other bytes than it was filled with".to_owned())
    })?;
    println!("userfaultfd: {PAGES} pages filled by another thread");
    Ok(())
}

/// Answers this many faults.
fn answer(mut file: &File, faults: usize) -> Result<(), Failure> {
    let content = Mapping::new(1)?;
    content.write(0, 6);
    for _ in 0..faults {
        // struct uffd_msg: the event is its first byte, the address is at 16.
        let mut message = [0_u8; 32];
        file.read_exact(&mut message)?;
        let [event, _, _, _, _, _, _, _, _, _, _, _, _, _, _, _, address @ .., _, _, _, _, _, _, _, _] = message;
        check(event == EVENT_PAGEFAULT, || format!("event {event:#x}"))?;
        let dst = u64::from_ne_bytes(address) & !(PAGE as u64 - 1);
        let mut copy = Copy { dst, src: content.address(0) as u64, len: PAGE as u64, mode: 0, copy: 0 };
        ioctl(file, UFFDIO_COPY, &mut copy)?;
    }
    Ok(())
}
