//! Unmodified distribution kernels: the host sees every page fault, and the guest does not notice. The tests need the
//! folder that `VECTOR14_GUESTS` names, where the lab has put kernels and an initramfs.

use std::io::Write;
use std::path::PathBuf;
use std::process::Child;
use std::time::Duration;

use libtest_mimic::Trial;

use vector14::config::{BootConfig, Config, Kernel, VmConfig};
use vector14::summary::Stop;
use vector14_hook::Verdict;

use crate::harness::{Act, Command, Finished, Guest, Oracle, engine, exception_bitmap_test, kvm_test};

pub fn tests() -> Vec<Trial> {
    if guests().is_none() {
        return Vec::new();
    }
    let mut tests = vec![
        kvm_test("linux::cloud_6_1_with_pti_on_2_vcpus", || boots("linux-6.1-cloud", 2, "pti=on")),
        kvm_test("linux::cloud_6_12_with_pti_on_2_vcpus", || boots("linux-6.12-cloud", 2, "pti=on")),
        kvm_test("linux::generic_6_1_with_4_levels", || boots("linux-6.1", 1, "no5lvl")),
        kvm_test("linux::generic_6_12", || boots("linux-6.12", 1, "")),
        kvm_test("linux::workloads_6_1", || workloads("linux-6.1-cloud", "")),
        kvm_test("linux::workloads_6_12_with_pti_on", || workloads("linux-6.12-cloud", "pti=on")),
        kvm_test("linux::every_fault_that_the_kernel_counts", counters),
        kvm_test("linux::detach_and_attach", detach_and_attach),
        kvm_test("linux::console_input_and_power_off", console),
        kvm_test("linux::disk", disk),
    ];
    tests.push(kvm_test("linux::a_process_with_segments_of_its_own", segments));
    tests.push(kvm_test("linux::error_codes_as_the_tables_have_them", error_codes));
    tests.extend(exception_bitmap_test("linux::faults_in_the_decompressor", decompressor));
    tests
}

pub fn guests() -> Option<PathBuf> {
    std::env::var_os("VECTOR14_GUESTS").map(PathBuf::from)
}

/// The command line of all kernels, before what a test adds. There is no PCI, and generic kernels would probe for it at
/// length.
const CMDLINE: &str =
    "console=ttyS0 panic=-1 reboot=k pci=off mitigations=auto cryptomgr.notests random.trust_cpu=on quiet";

/// `vector14 run` of a Debian kernel.
pub fn linux(kernel: &str, vcpus: u32, cmdline: &str, further: &str) -> Command {
    let guests = guests().unwrap();
    Command::run_config(&format!(
        "[vm]\nmemory = \"512M\"\nvcpus = {vcpus}\ntimeout = \"300s\"\n\
         [boot]\nkernel = \"{0}/{kernel}\"\ninitrd = \"{0}/initramfs.cpio.gz\"\ncmdline = \"{CMDLINE} {cmdline}\"\n{further}",
        guests.display()
    ))
}

/// Debian's 6.1 with `memory` bytes of RAM, to be run in this process with the test's own hooks.
pub fn linux_here(cmdline: &str, memory: u64) -> Guest {
    let guests = guests().unwrap();
    let boot = BootConfig {
        initrd: Some(guests.join("initramfs.cpio.gz")),
        cmdline: format!("{CMDLINE} {cmdline}"),
        ..BootConfig::of(Kernel::Path(guests.join("linux-6.1-cloud")))
    };
    let vm = VmConfig { memory, ..VmConfig::default() };
    Guest::of(Config { vm, boot, ..Config::tiny("") }).timeout(Duration::from_secs(300))
}

/// Checks that the run ended well, for this reason, and that the ledger adds up.
#[track_caller]
pub fn well(finished: Finished, reason: &str) -> Finished {
    assert_eq!(finished.status(), Some(0), "{finished}");
    let summary = finished.summary();
    assert_eq!(summary["stop"]["reason"], reason, "{finished}");
    let verdicts: u64 = summary["verdicts"].as_object().unwrap().values().filter_map(serde_json::Value::as_u64).sum();
    assert_eq!(summary["faults"]["total"], verdicts, "{finished}");
    assert_eq!(summary["exits"]["fault"], verdicts, "{finished}");
    finished
}

/// The kernel boots, reaches /init and resets. It is intercepted, and makes fewer than 20,000 exits besides faults.
fn boots(kernel: &str, vcpus: u32, cmdline: &str) {
    let finished = well(linux(kernel, vcpus, cmdline, "").finish(), "reset");
    let summary = finished.summary();
    assert!(finished.stdout().contains("guest: init"), "{finished}");
    assert!(summary["faults"]["user"].as_u64().unwrap() > 100, "{finished}");
    assert_eq!(summary["notes"].as_array().unwrap().len(), 0, "{finished}");
    let exits = |kind: &str| summary["exits"][kind].as_u64().unwrap();
    assert!(exits("total") - exits("fault") < 20_000, "{finished}");
}

/// The workloads print the same with interception off and on.
fn workloads(kernel: &str, cmdline: &str) {
    let run = |engine: &str| {
        let cmdline = format!("{cmdline} v14=workload:all v14.modules");
        let further = format!("[intercept]\nengine = \"{engine}\"\n");
        well(linux(kernel, 2, &cmdline, &further).finish(), "reset")
    };
    let said = |finished: &Finished| -> Vec<String> {
        let stdout = finished.stdout();
        let lines = stdout
            .lines()
            .map(str::trim_end)
            .filter(|line| line.starts_with("workload ") || line.starts_with("guest: status"));
        lines.map(str::to_owned).collect()
    };
    let (off, on) = (run("off"), run(engine().name()));
    assert!(said(&off).contains(&"guest: status 0".to_owned()), "{off}");
    assert!(said(&off).len() > 10, "{off}");
    assert_eq!(said(&on), said(&off), "{on}");
    assert_eq!(off.summary()["faults"]["total"], 0, "{off}");
    assert!(on.summary()["faults"]["total"].as_u64().unwrap() > 1000, "{on}");
}

/// The kernel counts its page faults by tracepoints on all CPUs, over a window that begins and ends with a fault at a
/// known address. The host's trace has exactly as many faults in that window.
fn counters() {
    const BEGIN: &str = "0x1400000000";
    const END: &str = "0x1400100000";
    for (kernel, vcpus, cmdline) in
        [("linux-6.1-cloud", 1, ""), ("linux-6.1-cloud", 2, "pti=on "), ("linux-6.12-cloud", 2, "pti=on ")]
    {
        let trace = "[[hook]]\nname = \"trace\"\nformat = \"json\"\nfile = \"faults.jsonl\"\n";
        let finished = well(linux(kernel, vcpus, &format!("{cmdline}v14=workload:counters"), trace).finish(), "reset");
        let stdout = finished.stdout();
        let count =
            stdout.lines().find_map(|line| line.strip_prefix("counters: faults=")?.split(' ').next()?.parse().ok());
        let of_guest: usize = count.unwrap_or_else(|| panic!("the guest gave no count\n{finished}"));

        let lines = finished.read("faults.jsonl");
        let mut faults: Vec<(u64, String)> = lines
            .lines()
            .map(|line| {
                let fault: serde_json::Value = serde_json::from_str(line).unwrap();
                (fault["seq"].as_u64().unwrap(), fault["address"].as_str().unwrap().to_owned())
            })
            .collect();
        faults.sort();
        let at = |address: &str| faults.iter().position(|(_, fault)| fault == address);
        let (Some(begin), Some(end)) = (at(BEGIN), at(END)) else {
            panic!("the window is not in the trace\n{finished}")
        };
        assert_eq!(end - begin + 1, of_guest, "{kernel} {cmdline}with {vcpus} vCPUs\n{finished}");
    }
}

/// Interception is detached and attached again and again while the guest works, and the guest does not notice.
fn detach_and_attach() {
    let command = linux("linux-6.1-cloud", 2, "v14=workload:process-storm,copy-on-write,mmap,threads", "");
    let finished = command.finish_after("guest: init", |child| {
        for _ in 0..8 {
            std::thread::sleep(Duration::from_millis(250));
            let toggled = std::process::Command::new("kill").args(["-USR1", &child.id().to_string()]).status();
            assert!(toggled.unwrap().success());
        }
    });
    let finished = well(finished, "reset");
    assert!(finished.stdout().contains("guest: status 0"), "{finished}");
}

/// The shell's prompt.
const PROMPT: &str = "/ # ";

/// Types on the guest's console.
fn enter(child: &mut Child, script: &str) {
    child.stdin.take().unwrap().write_all(script.as_bytes()).unwrap();
}

/// A shell on the console takes what is typed, and powers the machine off.
fn console() {
    let command = linux("linux-6.1-cloud", 1, "v14=shell", "");
    let script = "echo the answer is $((6 * 7))\npoweroff -f\n";
    let finished = well(command.finish_after(PROMPT, |child| enter(child, script)), "power-off");
    assert!(finished.stdout().contains("the answer is 42"), "{finished}");
}

/// A disk can be read and written, and a read-only one only read.
fn disk() {
    let further = "[[disk]]\npath = \"disk.img\"\n[[disk]]\npath = \"fixed.img\"\nreadonly = true\n";
    let command = linux("linux-6.1-cloud", 1, "v14=shell v14.modules", further)
        .file("disk.img", &[b'a'; 8192])
        .file("fixed.img", &[b'b'; 8192]);
    let script = "dd if=/dev/vda bs=4 count=1 2>/dev/null; echo\n\
                  printf written | dd of=/dev/vda bs=512 seek=1 conv=fsync 2>/dev/null\n\
                  dd if=/dev/vdb bs=4 count=1 2>/dev/null; echo\n\
                  printf no | dd of=/dev/vdb conv=fsync 2>/dev/null || echo refused\n\
                  poweroff -f\n";
    let finished = well(command.finish_after(PROMPT, |child| enter(child, script)), "power-off");
    for word in ["aaaa", "bbbb", "refused"] {
        assert!(finished.stdout().contains(word), "no `{word}`\n{finished}");
    }
    assert_eq!(&finished.read("disk.img")[512..519], "written", "{finished}");
    assert!(finished.read("fixed.img").bytes().all(|byte| byte == b'b'), "{finished}");
}

/// A hook skips faults of processes that have segments of their own: the next instruction is past the end of the
/// segment, or another thread takes the segment away meanwhile. At worst that ends the process; the kernel takes no
/// harm.
fn segments() {
    let skip = Act { window: 0x2100_0000..0x2100_1000, verdict: Verdict::Skip };
    let guest = linux_here("v14=workload:segments", 512 << 20).vcpus(2);
    let outcome = guest.hook("skip", skip).run().balanced();
    assert_eq!(outcome.summary.stop, Stop::Reset, "{outcome}");
    for line in ["segments: past the end: signal Some(11)", "workload segments: ok", "guest: status 0"] {
        assert!(outcome.console.contains(line), "no `{line}`\n{outcome}");
    }
    for complaint in ["Oops", "BUG:", "[#1]"] {
        assert!(!outcome.console.contains(complaint), "{outcome}");
    }
    // A process that loads the segment while it is away ends, after a few faults.
    assert!(outcome.summary.verdicts.skip > 32, "{outcome}");
    assert_eq!(outcome.summary.hooks[0].failures, 0, "{outcome}");
}

/// From the first fault that is seen to the reset, through a boot and workloads, the guest's tables and instructions
/// explain each error code. Hooks can't read PKRU, so the guest has no protection keys.
fn error_codes() {
    let oracle = Oracle::default();
    let guest = linux_here("nopku v14=workload:copy-on-write,mmap,stack,mprotect,segv,efault", 512 << 20);
    let outcome = guest.hook("oracle", oracle.clone()).run().balanced();
    assert_eq!(outcome.summary.stop, Stop::Reset, "{outcome}");
    let findings = oracle.findings(&outcome);
    assert!(findings.agreed > 1000, "{findings:?}\n{outcome}");
    assert_eq!(findings.raced, 0, "there is one vCPU\n{findings:?}\n{outcome}");
}

/// The code that decompresses a bzImage has an IDT of its own, and takes page faults to extend its page tables. All of
/// this comes before the kernel proper, which runs in the upper half of the address space.
fn decompressor() {
    let further = "[intercept]\nengine = \"exception-bitmap\"\n\
                   [[hook]]\nname = \"trace\"\nformat = \"json\"\nfile = \"faults.jsonl\"\n";
    let finished = well(linux("linux-6.1-cloud", 1, "", further).finish(), "reset");
    assert!(finished.stdout().contains("guest: init"), "{finished}");

    // Linux, Documentation/arch/x86/boot.rst: pref_address and init_size.
    let image = std::fs::read(guests().unwrap().join("linux-6.1-cloud")).unwrap();
    let field =
        |at: usize, size: usize| image[at..at + size].iter().rev().fold(0, |sum, byte| sum << 8 | u64::from(*byte));
    let (start, size) = (field(0x258, 8), field(0x260, 4));
    let trace = finished.read("faults.jsonl");
    let rip = |line: &str| {
        let fault: serde_json::Value = serde_json::from_str(line).unwrap();
        u64::from_str_radix(fault["rip"].as_str().unwrap().trim_start_matches("0x"), 16).unwrap()
    };
    let early: Vec<u64> = trace.lines().map(rip).take_while(|rip| *rip < 1 << 32).collect();
    assert!(early.len() >= 5, "{early:#x?}\n{finished}");
    assert!(
        early.iter().all(|rip| (start..start + size).contains(rip)),
        "{early:#x?}, not in {size:#x} from {start:#x}"
    );
}
