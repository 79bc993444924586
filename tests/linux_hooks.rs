//! The hooks that ship, on an unmodified Debian kernel: they report what its processes did, and the kernel takes no
//! harm. They run in the lab, as the tests in `linux` do.

use std::ops::Range;
use std::sync::{Arc, Mutex, OnceLock};

use libtest_mimic::Trial;
use vector14::summary::Stop;
use vector14_hook::{Access, ErrorCode, Fault, Guest, GuestError, Hook, PAGE_SIZE, Va, Verdict};

use crate::harness::{Finished, Outcome, kvm_test};
use crate::linux::{guests, linux, linux_here, well};

pub fn tests() -> Vec<Trial> {
    if guests().is_none() {
        return Vec::new();
    }
    vec![
        kvm_test("linux-hooks::watch", || watch("linux-6.1-cloud", "pti=on")),
        kvm_test("linux-hooks::watch_6_12", || watch("linux-6.12-cloud", "")),
        kvm_test("linux-hooks::guard", guard),
        kvm_test("linux-hooks::guard_leaves_the_kernel_alone", guard_of_user_mode),
        kvm_test("linux-hooks::wx", wx),
        kvm_test("linux-hooks::swapped_under_watch", || swapped("[[hook]]\nname = \"watch\"\n", RANGES)),
        kvm_test("linux-hooks::swapped_under_guard", || {
            swapped("[[hook]]\nname = \"guard\"\naction = \"report\"\n", RANGES)
        }),
        kvm_test("linux-hooks::swapped_under_wx", || swapped("[[hook]]\nname = \"wx\"\n", WX_RANGE)),
        kvm_test("linux-hooks::chaos_efault", || efault("linux-6.1-cloud")),
        kvm_test("linux-hooks::chaos_efault_6_12", || efault("linux-6.12-cloud")),
        kvm_test("linux-hooks::chaos_spurious", spurious),
        kvm_test("linux-hooks::pool_left_alone_by_zero_fill", zero_fill),
        kvm_test("linux-hooks::pool_page", || lent(512 << 20)),
        kvm_test("linux-hooks::pool_page_below_other_memory", || lent(4 << 30)),
        kvm_test("linux-hooks::pool_page_without_a_table", lent_without_a_table),
    ]
}

/// Runs workloads with a hook. Checks that the guest resets, that the hook did not fail, and that the kernel has no
/// complaint.
#[track_caller]
fn run(kernel: &str, vcpus: u32, cmdline: &str, workloads: &str, hook: &str) -> Finished {
    let finished = well(linux(kernel, vcpus, &format!("{cmdline} v14=workload:{workloads}"), hook).finish(), "reset");
    assert_eq!(finished.summary()["hooks"][0]["failures"], 0, "{finished}");
    has_no_complaint(&finished);
    finished
}

/// Checks that the kernel has found nothing wrong with itself.
#[track_caller]
fn has_no_complaint(finished: &Finished) {
    for complaint in ["BUG:", "WARNING:", "Oops", "Bad page", "Bad rss", "Bad swap", "Unused swap"] {
        assert!(!finished.stdout().contains(complaint), "{complaint}\n{finished}");
    }
}

#[track_caller]
fn says(finished: &Finished, line: &str) {
    let stdout = finished.stdout();
    assert!(stdout.lines().any(|said| said.trim_end() == line), "no `{line}`\n{finished}");
}

/// The rows, as text, of a table in the hook's report.
#[track_caller]
fn rows(finished: &Finished, table: usize) -> Vec<Vec<String>> {
    let summary = finished.summary();
    serde_json::from_value(summary["hooks"][0]["report"]["tables"][table]["rows"].clone()).unwrap()
}

/// Every access of the process is reported, with its instruction. The workloads before and after it are not affected.
fn watch(kernel: &str, cmdline: &str) {
    let hook =
        "[[hook]]\nname = \"watch\"\nranges = [{ start = \"0x1500000000\", end = \"0x1500001000\" }]\nshow = 40\n";
    let finished = run(kernel, 2, cmdline, "copy-on-write,watched,mmap", hook);
    for line in ["watched: 6 writes, 10 reads, an addition", "workload mmap: ok", "guest: status 0"] {
        says(&finished, line);
    }
    assert_eq!(rows(&finished, 0), [["0x1500000000", "11", "7", "0", "1"]], "{finished}");
    let accesses = rows(&finished, 1);
    assert_eq!(accesses.len(), 17, "{finished}");
    assert!(accesses.iter().all(|access| access[3] == "user"), "{finished}");
    assert!(accesses[5][2] == "0x06" && accesses[6][2] == "0x06", "the last write, and the first read\n{finished}");
    assert!(accesses[16][7].starts_with("lock "), "{finished}");
}

/// The process gets a #GP in place of the page fault and is killed; nothing else happens.
fn guard() {
    let hook = "[[hook]]\nname = \"guard\"\nranges = [{ start = \"0x1510000000\", end = \"0x1510001000\" }]\n";
    let finished = run("linux-6.1-cloud", 2, "", "guarded,mmap", hook);
    for line in ["guarded: signal 11", "workload mmap: ok"] {
        says(&finished, line);
    }
    // The handler of SIGSEGV in Rust's runtime removes itself and has the instruction retried.
    assert_eq!(finished.summary()["verdicts"]["raise"], 2, "{finished}");
    assert_eq!(rows(&finished, 0)[0][..2], ["write", "0x1510000000"], "{finished}");
}

/// With `catch = "user"`, the default, a copy by the kernel is not a touch: it raises nothing in the kernel.
fn guard_of_user_mode() {
    let hook = "[[hook]]\nname = \"guard\"\nranges = [{ start = \"0x1510000000\", end = \"0x1510001000\" }]\n";
    let finished = run("linux-6.1-cloud", 1, "", "guarded-copy", hook);
    for line in ["guarded-copy: 10 bytes", "workload guarded-copy: ok"] {
        says(&finished, line);
    }
    assert_eq!(finished.summary()["verdicts"]["raise"], 0, "{finished}");
}

/// The pages of the workload `swapped`.
const RANGES: &str = "ranges = [{ start = \"0x1550000000\", end = \"0x1550040000\" }]\n";
const WX_RANGE: &str = "start = \"0x1550000000\"\nend = \"0x1550040000\"\n";

/// Pages that the guest swaps out, moves and inherits have the same contents with a hook as without.
fn swapped(hook: &str, pages: &str) {
    static WITHOUT_HOOKS: OnceLock<Vec<String>> = OnceLock::new();
    let cmdline = "v14.modules v14=workload:swapped";
    let said = |finished: &Finished| -> Vec<String> {
        let stdout = finished.stdout();
        stdout.lines().map(str::trim_end).filter(|line| line.contains("swapped: ")).map(str::to_owned).collect()
    };
    let without = WITHOUT_HOOKS.get_or_init(|| {
        let finished = well(linux("linux-6.1-cloud", 2, cmdline, "").finish(), "reset");
        has_no_complaint(&finished);
        let said = said(&finished);
        assert!(said.len() == 2 && said[0].ends_with("to swap") && said[1].ends_with("ok"), "{finished}");
        said
    });
    let with = run("linux-6.1-cloud", 2, "v14.modules", "swapped", &format!("{hook}{pages}"));
    assert_eq!(said(&with), *without, "{with}");
    assert!(with.summary()["verdicts"]["resolve"].as_u64().unwrap() > 64, "the hook was at work\n{with}");
}

/// Each of the five rounds is reported.
fn wx() {
    let hook = "[[hook]]\nname = \"wx\"\nstart = \"0x1520000000\"\nend = \"0x1530000000\"\n";
    let finished = run("linux-6.1-cloud", 2, "", "written-code,copy-on-write", hook);
    for line in ["written-code: 5 rounds", "workload copy-on-write: ok"] {
        says(&finished, line);
    }
    let pages = rows(&finished, 0);
    assert_eq!((pages.len(), &pages[0][0][..], &pages[0][2][..]), (1, "0x1520000000", "5"), "{finished}");
}

/// The third and the sixth copy that fault end in EFAULT, by the kernel's exception table; the others succeed.
fn efault(kernel: &str) {
    let hook = "[[hook]]\nname = \"chaos\"\nefault = [3, 6]\nstart = \"0x1530000000\"\nend = \"0x1530008000\"\n";
    // Copies are counted on each vCPU.
    let finished = run(kernel, 1, "", "copies,efault", hook);
    for page in 0..8 {
        let what = if page < 4 { "read into" } else { "write from" };
        let result = if page == 2 || page == 5 { "Bad address (os error 14)" } else { "4096" };
        says(&finished, &format!("copies: {what} page {page}: {result}"));
    }
    says(&finished, "workload efault: ok");
    assert_eq!(rows(&finished, 0)[0][4], "2", "{finished}");
}

/// One user-mode fault in five becomes a spurious one, on a page that is present already. The kernel takes it as if a
/// CPU had raised it.
fn spurious() {
    let workloads = "process-storm,copy-on-write,mmap,mprotect,segv,threads";
    let finished = run("linux-6.1-cloud", 2, "", workloads, "[[hook]]\nname = \"chaos\"\nspurious = 5\n");
    for workload in workloads.split(',') {
        says(&finished, &format!("workload {workload}: ok"));
    }
    let spurious: u64 = rows(&finished, 0)[0][2].parse().unwrap();
    assert!(spurious > 100, "{finished}");
}

/// Linux would find pages of the pool in a process's page tables, so `zero-fill` maps none, and its report says so.
fn zero_fill() {
    let hook = "[[hook]]\nname = \"zero-fill\"\nstart = \"0x1500000000\"\nend = \"0x1600000000\"\nfill = 0x5a\n";
    let finished = run("linux-6.1-cloud", 2, "", "lent,lent-far,watched,copies", hook);
    for line in ["lent: the page holds 0x0", "lent: the kernel is well", "workload watched: ok", "workload copies: ok"]
    {
        says(&finished, line);
    }
    assert_eq!(rows(&finished, 0)[0][2], "0", "{finished}");
    let warnings = finished.summary()["hooks"][0]["report"]["warnings"].to_string();
    assert!(warnings.contains("Linux"), "{finished}");
}

/// The pages of the workload `lent`.
const LENT: Range<u64> = 0x15_4000_0000..0x15_4000_2000;

/// Maps a page of the pool at each fault in [`LENT`], and records the results.
#[derive(Clone, Default)]
struct Lender(Arc<Mutex<Vec<Result<(), GuestError>>>>);

impl Hook for Lender {
    fn on_fault(&self, fault: &Fault, guest: &mut dyn Guest) -> vector14_hook::Result {
        if !LENT.contains(&fault.address.0) || fault.error_code.contains(ErrorCode::PRESENT) {
            return Ok(Verdict::Pass);
        }
        let frame = guest.allocate_page()?;
        guest.write_physical(frame, &[0x5a; 4096])?;
        let mapped = guest.map(fault.address.page(), frame, Access::WRITE | Access::USER);
        self.0.lock().unwrap().push(mapped);
        Ok(if mapped.is_ok() { Verdict::Resolve } else { Verdict::Pass })
    }
}

/// Runs a workload with a [`Lender`], and returns the results of `Guest::map`.
fn lend(workload: &str, memory: u64) -> (Outcome, Vec<Result<(), GuestError>>) {
    let lender = Lender::default();
    let guest = linux_here(&format!("v14=workload:{workload},mmap"), memory);
    let outcome = guest.hook("lender", lender.clone()).run().balanced();
    assert_eq!(outcome.summary.stop, Stop::Reset, "{outcome}");
    assert!(outcome.console.contains("workload mmap: ok"), "{outcome}");
    let mapped = lender.0.lock().unwrap().clone();
    (outcome, mapped)
}

/// A process unmaps a page of the pool: the kernel says that the page is not its own, and goes on. The same holds if
/// RAM lies above the pool, which then is not above every `struct page`.
fn lent(memory: u64) {
    let (outcome, mapped) = lend("lent", memory);
    assert_eq!(mapped, [Ok(())], "{outcome}");
    for said in ["lent: the page holds 0x5a", "BUG: Bad page map in process workloads", "lent: the kernel is tainted"] {
        assert!(outcome.console.contains(said), "no `{said}`\n{outcome}");
    }
    assert!(!outcome.console.contains("Oops"), "{outcome}");
}

/// A page table in the pool would crash the kernel, so `Guest::map` refuses to add one, and the guest gets its fault.
fn lent_without_a_table() {
    let (outcome, mapped) = lend("lent-far", 512 << 20);
    for said in ["lent: the page holds 0x0", "lent: the kernel is well"] {
        assert!(outcome.console.contains(said), "no `{said}`\n{outcome}");
    }
    assert_eq!(mapped, [Err(GuestError::NoTable(Va(LENT.start + PAGE_SIZE)))], "{outcome}");
}
