//! The kernel's own count of its page faults, over a window that a hook on the host can see.
//!
//! The window begins with a fault at [`BEGIN`] and ends with one at [`END`]. The kernel's count is of its tracepoints
//! `exceptions:page_fault_user` and `page_fault_kernel` on all CPUs, which it passes at every #PF; both markers are
//! counted.

use std::fs::{self, File};
use std::io::Read;
use std::thread;
use std::time::Duration;

use crate::sys::{Mapping, PAGE, in_child, open};
use crate::{Failure, Outcome, check};

/// Where nothing is mapped in a Linux process.
const BEGIN: usize = 0x14_0000_0000;
const END: usize = 0x14_0010_0000;

const TRACEPOINTS: [&str; 2] = ["page_fault_user", "page_fault_kernel"];

/// Counts a window with faults of several kinds.
pub(crate) fn counters() -> Outcome {
    let (begin, end) = (Mapping::at(BEGIN, 1)?, Mapping::at(END, 1)?);
    let mut counters = Vec::new();
    for tracepoint in TRACEPOINTS {
        for cpu in 0..thread::available_parallelism()?.get() {
            counters.push(Counter::open(tracepoint, cpu)?);
        }
    }
    settle(&mut counters)?;
    let spare = Mapping::new(2)?;
    // Once without a result before each marker, so that nothing but the marker faults here: no page of code, and none
    // that a fork has made read-only.
    let mut mark = |at: &Mapping, page| -> Result<u64, Failure> {
        let count = total(&mut counters)?;
        at.write(page, 1);
        Ok(count)
    };
    mark(&spare, 0)?;
    let before = mark(&begin, 0)?;
    work()?;
    mark(&spare, 1)?;
    let faults = mark(&end, 0)? - before + 1;
    println!("counters: faults={faults} from {BEGIN:#x} to {END:#x}");
    check(faults > PAGES as u64, || format!("the kernel counted {faults} faults, and {PAGES} pages were touched"))
}

const PAGES: usize = 200;

fn work() -> Outcome {
    let memory = Mapping::new(PAGES)?;
    (0..PAGES).for_each(|page| memory.write(page, 1));
    let status = in_child(|| {
        (0..PAGES).for_each(|page| memory.write(page, 2));
        0
    })?;
    let mut fresh = vec![0; 16 * PAGE];
    File::open("/dev/zero")?.read_exact(&mut fresh)?;
    check(status == 0, || format!("the child's status is {status}"))
}

/// A counter of one tracepoint on one CPU, for all processes.
struct Counter(File);

impl Counter {
    fn open(tracepoint: &str, cpu: usize) -> Result<Self, Failure> {
        let path = format!("/sys/kernel/tracing/events/exceptions/{tracepoint}/id");
        let id = fs::read_to_string(&path).map_err(|error| format!("{path}: {error}"))?;
        let attributes = Attributes { kind: TYPE_TRACEPOINT, size: SIZE, config: id.trim().parse()?, rest: [0; 6] };
        let everybody = usize::MAX;
        let address = (&raw const attributes).addr();
        Ok(Self(open(libc::SYS_perf_event_open, [address, everybody, cpu, usize::MAX, 0])?))
    }

    fn read(&mut self) -> Result<u64, Failure> {
        let mut count = [0; 8];
        self.0.read_exact(&mut count)?;
        Ok(u64::from_ne_bytes(count))
    }
}

/// Waits until no other process faults: the parent still has to copy the pages that it shared with this one.
fn settle(counters: &mut [Counter]) -> Outcome {
    let mut count = total(counters)?;
    loop {
        thread::sleep(Duration::from_millis(50));
        let last = std::mem::replace(&mut count, total(counters)?);
        if count == last {
            return Ok(());
        }
    }
}

fn total(counters: &mut [Counter]) -> Result<u64, Failure> {
    counters.iter_mut().map(Counter::read).sum()
}

/// struct perf_event_attr, as far as its first version goes.
#[repr(C)]
struct Attributes {
    kind: u32,
    size: u32,
    config: u64,
    rest: [u64; 6],
}

const TYPE_TRACEPOINT: u32 = 2;
const SIZE: u32 = 64;
const _: () = assert!(size_of::<Attributes>() == SIZE as usize);
