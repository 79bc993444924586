//! The hook `pager` backs a range of the guest's memory with a file, and keeps a part of it in memory.

use libtest_mimic::Trial;
use vector14_guest_abi::paged::{RANGE, Random, SYNC_AT};
use vector14_guest_abi::window::{PAGE_SIZE, pattern};

use crate::harness::paged::{contents, sum_of, words};
use crate::harness::{Command, Finished, kvm_test};

pub fn tests() -> Vec<Trial> {
    vec![
        kvm_test("pager::reads_a_file_16_times_its_budget", reads),
        kvm_test("pager::reads_on_2_vcpus", || reads_together(2)),
        kvm_test("pager::reads_at_random", reads_at_random),
        kvm_test("pager::what_is_read_all_the_time_stays", reads_hot),
        kvm_test("pager::writes_reach_the_file", writes),
        kvm_test("pager::no_write_is_lost_to_an_eviction", counts),
        kvm_test("pager::no_write_is_lost_to_a_sync", syncs),
        kvm_test("pager::example", example),
        kvm_test("pager::write_faults_of_a_readonly_range_are_the_guests", readonly),
        kvm_test("pager::a_file_that_shrinks", shrinks),
    ]
}

/// `scenario=paged` on `pages` pages, with a pager that has `options`.
fn paged(vcpus: u32, pages: u64, cmdline: &str, options: &str) -> Command {
    let end = RANGE.start + pages * PAGE_SIZE;
    Command::run_config(&format!(
        "[vm]\nvcpus = {vcpus}\ntimeout = \"120s\"\n\
         [boot]\nkernel = \"tiny\"\ncmdline = \"scenario=paged pages={pages} {cmdline}\"\n\
         [[hook]]\nname = \"pager\"\nstart = {:#x}\nend = {end:#x}\nsync_at = {SYNC_AT:#x}\n{options}\n",
        RANGE.start
    ))
}

const FILE: &str = "file = \"pages\"\n";

fn ended_well(finished: Finished) -> Finished {
    assert_eq!(finished.status(), Some(0), "{finished}");
    let summary = finished.summary();
    assert_eq!(summary["verdicts"]["reinject"], 0, "{finished}");
    assert_eq!(summary["hooks"][0]["report"]["warnings"].as_array().unwrap().len(), 0, "{finished}");
    finished
}

/// A number in the hook's report.
fn reported(finished: &Finished, column: &str) -> u64 {
    let summary = finished.summary();
    let table = &summary["hooks"][0]["report"]["tables"][0];
    let columns = table["columns"].as_array().unwrap();
    let index = columns.iter().position(|known| known == column).unwrap();
    table["rows"][0][index].as_str().unwrap().parse().unwrap()
}

#[track_caller]
fn checksum_is(finished: &Finished, expected: u64) {
    assert!(finished.stdout().contains(&format!("checksum={expected:#x}")), "not {expected:#x}\n{finished}");
}

fn reads() {
    const PAGES: u64 = 65_536;
    let contents = contents(PAGES);
    let finished = ended_well(paged(1, PAGES, "", FILE).file("pages", &contents).finish());
    checksum_is(&finished, sum_of(&contents, 0..PAGES));
    let faults = finished.summary()["faults"]["total"].as_u64().unwrap();
    assert!(faults * 100 < PAGES * 105, "{faults} faults\n{finished}");
    assert_eq!(reported(&finished, "loaded"), PAGES, "{finished}");
    assert_eq!(reported(&finished, "resident peak"), 4096, "{finished}");
    assert_eq!(reported(&finished, "written back"), 0, "{finished}");
}

/// The vCPUs fault on the same pages, and on different ones.
fn reads_together(vcpus: u32) {
    const PAGES: u64 = 2048;
    let contents = contents(PAGES);
    for (kind, times) in [("read", 1), ("read-all", u64::from(vcpus))] {
        let options = format!("{FILE}resident = \"1M\"\n");
        let command = paged(vcpus, PAGES, &format!("kind={kind}"), &options).file("pages", &contents);
        let finished = ended_well(command.finish());
        checksum_is(&finished, sum_of(&contents, 0..PAGES).wrapping_mul(times));
        assert!(reported(&finished, "resident peak") <= 256, "{finished}");
    }
}

fn reads_at_random() {
    const PAGES: u64 = 2048;
    const READS: u64 = 8192;
    let contents = contents(PAGES);
    let options = format!("{FILE}resident = \"4M\"\n");
    let finished =
        ended_well(paged(1, PAGES, &format!("kind=random rounds={READS}"), &options).file("pages", &contents).finish());
    let mut random = Random::new(PAGES, 0);
    checksum_is(&finished, sum_of(&contents, (0..READS).map(|_| random.next_page())));
    // Half of the pages are in memory, so about half of the reads find their page there.
    let loaded = reported(&finished, "loaded");
    assert!((READS * 4 / 10..READS * 6 / 10).contains(&loaded), "{finished}");
}

/// A page that is read all the time stays in memory. If pages were evicted in the order of loading, it would be loaded
/// eight times.
fn reads_hot() {
    const PAGES: u64 = 2048;
    let contents = contents(PAGES);
    let options = format!("{FILE}resident = \"1M\"\n");
    let finished = ended_well(paged(1, PAGES, "kind=read-hot", &options).file("pages", &contents).finish());
    checksum_is(&finished, sum_of(&contents, 0..PAGES));
    assert!(reported(&finished, "loaded") <= PAGES + 2, "{finished}");
}

/// Every other page is written. Some of these are evicted, and some are still in memory at the end. The file keeps its
/// length, which is not a whole number of pages.
fn writes() {
    const PAGES: u64 = 1024;
    let mut contents = contents(PAGES);
    contents.truncate(contents.len() - 1000);
    for (vcpus, syncs) in [(1, 1), (2, 0)] {
        let options = format!("{FILE}resident = \"1M\"\n");
        let command = paged(vcpus, PAGES, &format!("kind=write syncs={syncs}"), &options).file("pages", &contents);
        let finished = ended_well(command.finish());
        assert_eq!(reported(&finished, "written back"), PAGES / 2, "{finished}");
        let mut expected = contents.clone();
        for page in (1..PAGES).step_by(2) {
            let start = usize::try_from(page * PAGE_SIZE).unwrap();
            let fill = pattern(RANGE.start + page * PAGE_SIZE).to_le_bytes();
            let bytes = expected[start..].iter_mut().take(4096);
            bytes.zip(fill.iter().cycle()).for_each(|(byte, fill)| *byte = *fill);
        }
        assert!(finished.bytes("pages") == expected, "the file is wrong\n{finished}");
    }
}

/// Two vCPUs write to the same pages while these are evicted and loaded again.
fn counts() {
    const PAGES: u64 = 512;
    const ROUNDS: u64 = 4;
    let options = format!("{FILE}resident = \"256K\"\n");
    let command = paged(2, PAGES, &format!("kind=count rounds={ROUNDS}"), &options);
    let finished = ended_well(command.file("pages", &vec![0; 4096 * 512]).finish());
    let contents = finished.bytes("pages");
    for page in 0..PAGES {
        let counts: Vec<u64> = words(&contents, page).take(3).collect();
        assert_eq!(counts, [ROUNDS, ROUNDS, 0], "page {page}\n{finished}");
    }
    assert!(reported(&finished, "evicted") > PAGES, "{finished}");
}

/// One vCPU writes to the same few pages all the time while another has them written back.
fn syncs() {
    const PAGES: u64 = 16;
    const ROUNDS: u64 = 2_000_000;
    let command = paged(2, PAGES, &format!("kind=sync rounds={ROUNDS}"), FILE);
    let finished = ended_well(command.file("pages", &vec![0; 16 * 4096]).finish());
    let contents = finished.bytes("pages");
    for page in 0..PAGES {
        assert_eq!(words(&contents, page).nth(1), Some(ROUNDS), "page {page}\n{finished}");
    }
    assert!(finished.summary()["verdicts"]["skip"].as_u64().unwrap() > 5, "{finished}");
    assert!(reported(&finished, "written back") > PAGES, "{finished}");
}

/// Without a file, evicted pages still come back as they were written.
fn example() {
    let finished = ended_well(Command::run_config(include_str!("../hooks/examples/pager.toml")).finish());
    assert!(reported(&finished, "evicted") > 2048, "{finished}");
    assert!(reported(&finished, "faults") * 100 < reported(&finished, "loaded") * 105, "{finished}");
}

fn readonly() {
    let options = format!("{FILE}readonly = true\n");
    let contents = contents(8);
    let finished = paged(1, 8, "kind=write", &options).file("pages", &contents).finish();
    assert_ne!(finished.status(), Some(0), "{finished}");
    assert_eq!(finished.summary()["verdicts"]["reinject"], 1, "{finished}");
    assert_eq!(finished.summary()["faults"]["present"], 1, "{finished}");
    assert!(finished.stdout().contains("fatal #PF"), "{finished}");
    assert!(finished.bytes("pages") == contents, "{finished}");
}

/// If the file shrinks, the guest takes a fault on a page that is lost, and the file is not extended again.
fn shrinks() {
    const PAGES: u64 = 512;
    let options = format!("{FILE}resident = \"256K\"\n[[hook]]\nname = \"trace\"\nfile = \"trace\"\n");
    let command = paged(1, PAGES, "kind=count rounds=1000000", &options).file("pages", &vec![0; 4096 * 512]);
    let file = command.path("pages");
    let finished = command.finish_after("paged:", |_| {
        std::fs::File::options().write(true).open(&file).unwrap().set_len(100 * PAGE_SIZE).unwrap();
    });
    assert!(finished.stdout().contains("fatal #PF"), "{finished}");
    assert_eq!(finished.bytes("pages").len(), 100 * 4096, "{finished}");
    let warnings = finished.summary()["hooks"][0]["report"]["warnings"].to_string();
    assert!(warnings.contains("truncated below 2097152 bytes"), "{finished}");
}
