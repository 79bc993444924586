//! The hook `pager` backs memory of a Linux process with a file: the kernel is unmodified, and does not notice.

use libtest_mimic::Trial;
use vector14_guest_abi::paged::WORDS;
use vector14_guest_abi::window::PAGE_SIZE;

use crate::harness::kvm_test;
use crate::harness::paged::{contents, sum_of, words};
use crate::linux::{guests, linux, well};

pub fn tests() -> Vec<Trial> {
    if guests().is_none() {
        return Vec::new();
    }
    vec![
        kvm_test("linux::pager_6_1_with_pti_on_2_vcpus", || pager("linux-6.1-cloud", 2, "pti=on")),
        kvm_test("linux::pager_6_12", || pager("linux-6.12-cloud", 1, "")),
    ]
}

/// A process works on a file 16 times as large as the part that the pager keeps in memory. The kernel finds nothing
/// wrong with its page tables, and the file has what the process wrote.
fn pager(kernel: &str, vcpus: u32, cmdline: &str) {
    const START: u64 = 0x15_0000_0000;
    const PAGES: u64 = 4096;
    const SYNC_AT: u64 = 0x15_4000_0000;
    let hook = format!(
        "[[hook]]\nname = \"pager\"\nfile = \"pages\"\nresident = \"1M\"\n\
         start = {START:#x}\nend = {:#x}\nsync_at = {SYNC_AT:#x}\n",
        START + PAGES * PAGE_SIZE
    );
    let before = contents(PAGES);
    let command = linux(kernel, vcpus, &format!("{cmdline} v14=workload:pager"), &hook).file("pages", &before);
    let finished = well(command.finish(), "reset");
    let stdout = finished.stdout();
    assert!(stdout.contains(&format!("pager: checksum={:#x}", sum_of(&before, 0..PAGES))), "{finished}");
    for word in ["workload pager: ok", "guest: status 0"] {
        assert!(stdout.contains(word), "no `{word}`\n{finished}");
    }
    for word in ["BUG", "WARNING", "Bad page"] {
        assert!(!stdout.contains(word), "{finished}");
    }
    let after = finished.bytes("pages");
    for page in 0..PAGES {
        let right = match page {
            3 => words(&after, page).all(|word| word == 0),
            page if page.is_multiple_of(2) => words(&after, page).eq((0..WORDS).map(|word| page << 32 | word)),
            page => words(&after, page).eq(words(&before, page)),
        };
        assert!(right, "page {page} of the file is wrong\n{finished}");
    }
    let report = &finished.summary()["hooks"][0]["report"];
    assert_eq!(report["warnings"].as_array().unwrap().len(), 0, "{finished}");
    assert_eq!(finished.summary()["verdicts"]["skip"], 1, "{finished}");
}
