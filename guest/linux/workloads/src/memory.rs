//! Memory of many kinds.

use std::fs;
use std::hint::black_box;

use crate::sys::{Mapping, PAGE, memory_file};
use crate::{Outcome, check};

/// Anonymous and file pages, private and shared; given back, moved, populated beforehand.
pub(crate) fn mmap() -> Outcome {
    const PAGES: usize = 128;
    let file = memory_file(PAGES)?;
    let shared = Mapping::with(PAGES, libc::MAP_SHARED, Some(&file))?;
    let private = Mapping::with(PAGES, libc::MAP_PRIVATE, Some(&file))?;
    (0..PAGES).for_each(|page| shared.write(page, 7));
    check((0..PAGES).all(|page| private.read(page) == 7), || "a private mapping does not show its file".to_owned())?;
    (0..PAGES).for_each(|page| private.write(page, 8));
    check((0..PAGES).all(|page| shared.read(page) == 7), || "a private mapping has written its file".to_owned())?;
    println!("mmap: {PAGES} pages of a file");

    let mut memory = Mapping::new(PAGES)?;
    for round in 1..=4 {
        (0..PAGES).for_each(|page| memory.write(page, round));
        memory.advise(libc::MADV_DONTNEED)?;
        check((0..PAGES).all(|page| memory.read(page) == 0), || format!("round {round}: old bytes in fresh pages"))?;
    }
    (0..PAGES).for_each(|page| memory.write(page, 9));
    memory.grow(4 * PAGES)?;
    let right = (0..memory.pages()).all(|page| memory.read(page) == if page < PAGES { 9 } else { 0 });
    check(right, || "a mapping that moved has other bytes".to_owned())?;
    println!("mmap: {PAGES} anonymous pages, moved to {}", memory.pages());

    let populated = Mapping::with(PAGES, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_POPULATE, None)?;
    check((0..PAGES).all(|page| populated.read(page) == 0), || "populated pages are not zero".to_owned())
}

/// A stack that grows page by page as it is used.
pub(crate) fn stack() -> Outcome {
    const DEPTH: usize = 1000;
    fn descend(depth: usize) -> usize {
        let mut frame = [0_u8; PAGE];
        black_box(&mut frame)[0] = 1;
        let below = if depth == 0 { 0 } else { descend(depth - 1) };
        below + usize::from(black_box(&frame)[0])
    }
    let frames = descend(DEPTH - 1);
    check(frames == DEPTH, || format!("{frames} frames instead of {DEPTH}"))?;
    println!("stack: {frames} frames of a page and more");
    Ok(())
}

/// Transparent huge pages, and pages of the pool for huge ones.
pub(crate) fn huge_pages() -> Outcome {
    const PAGES: usize = 4 * 512;
    let transparent = Mapping::new(PAGES)?;
    transparent.advise(libc::MADV_HUGEPAGE)?;
    (0..PAGES).for_each(|page| transparent.write(page, 3));
    // Taking rights from one page splits the huge page around it.
    transparent.protect(700, 1, libc::PROT_READ)?;
    check((0..PAGES).all(|page| transparent.read(page) == 3), || "a huge page has lost bytes".to_owned())?;
    println!("huge-pages: {PAGES} pages, transparently");

    fs::write("/proc/sys/vm/nr_hugepages", "4")?;
    let pool = Mapping::with(2 * 512, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_HUGETLB, None)?;
    (0..pool.pages()).for_each(|page| pool.write(page, 4));
    check((0..pool.pages()).all(|page| pool.read(page) == 4), || "a page of the pool has lost bytes".to_owned())?;
    drop(pool);
    fs::write("/proc/sys/vm/nr_hugepages", "0")?;
    println!("huge-pages: 2 of the pool");
    Ok(())
}

/// Rights that come and go.
pub(crate) fn mprotect() -> Outcome {
    const PAGES: usize = 32;
    const ROUNDS: u8 = 50;
    let memory = Mapping::new(PAGES)?;
    for round in 0..ROUNDS {
        memory.protect(0, PAGES, libc::PROT_READ | libc::PROT_WRITE)?;
        (0..PAGES).for_each(|page| memory.write(page, round));
        memory.protect(0, PAGES, libc::PROT_READ)?;
        check((0..PAGES).all(|page| memory.read(page) == round), || format!("round {round}: other bytes"))?;
        memory.protect(0, PAGES, libc::PROT_NONE)?;
    }
    println!("mprotect: {ROUNDS} rounds, {PAGES} pages");
    Ok(())
}

/// Pages that the kernel takes away: to swap where there is some (`v14.modules`), and they come back as they were.
pub(crate) fn pressure() -> Outcome {
    const PAGES: usize = 1024;
    const ROUNDS: usize = 3;
    let memory = Mapping::new(PAGES)?;
    let content = |page: usize, round: usize| (page % 200 + round).to_le_bytes()[0];
    for round in 0..ROUNDS {
        (0..PAGES).for_each(|page| memory.write(page, content(page, round)));
        memory.advise(libc::MADV_PAGEOUT)?;
        let right = (0..PAGES).all(|page| memory.read(page) == content(page, round));
        check(right, || format!("round {round}: a page has come back with other bytes"))?;
    }
    let swap = fs::read_to_string("/proc/swaps")?.lines().count() > 1;
    println!("pressure: {PAGES} pages, {ROUNDS} rounds, {}", if swap { "to swap" } else { "without swap" });
    Ok(())
}
