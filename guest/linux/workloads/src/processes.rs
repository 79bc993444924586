//! Processes: many of them, and pages that they share until one writes.

use std::process::Command;

use crate::sys::{Mapping, in_child};
use crate::{Outcome, check};

/// The argument that makes this program a child that ends at once.
pub(crate) const CHILD: &str = "--child";
/// And its status.
pub(crate) const CHILD_STATUS: u8 = 14;

/// Fork and exec, again and again.
pub(crate) fn storm() -> Outcome {
    const PROCESSES: usize = 60;
    for number in 0..PROCESSES {
        let status = Command::new("/proc/self/exe").arg(CHILD).status()?;
        check(status.code() == Some(CHILD_STATUS.into()), || format!("process {number}: {status}"))?;
    }
    println!("process-storm: {PROCESSES} processes");
    Ok(())
}

/// A child writes every other page of its parent's memory; the parent must not see it, nor the child less.
pub(crate) fn copy_on_write() -> Outcome {
    const PAGES: usize = 256;
    const GENERATIONS: u8 = 8;
    let memory = Mapping::new(PAGES)?;
    (0..PAGES).for_each(|page| memory.write(page, 1));
    for generation in 0..GENERATIONS {
        let status = in_child(|| {
            (0..PAGES).step_by(2).for_each(|page| memory.write(page, 2));
            let right = (0..PAGES).all(|page| memory.read(page) == if page % 2 == 0 { 2 } else { 1 });
            u8::from(right) + generation
        })?;
        check(status == i32::from(generation) + 1, || format!("child {generation} saw other bytes than it wrote"))?;
        check((0..PAGES).all(|page| memory.read(page) == 1), || {
            format!("child {generation} wrote its parent's pages")
        })?;
        (0..PAGES).step_by(3).for_each(|page| memory.write(page, 1));
    }
    println!("copy-on-write: {GENERATIONS} children, {PAGES} pages");
    Ok(())
}
