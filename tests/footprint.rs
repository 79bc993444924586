//! The memory that the VMM takes besides the guest's has a limit.

use libtest_mimic::Trial;

use crate::harness::{Command, kvm_test};

pub fn tests() -> Vec<Trial> {
    vec![kvm_test("footprint", footprint)]
}

const CONFIG: &str = "[boot]\nkernel = \"tiny\"\ncmdline = \"scenario=spin\"\n[vm]\ntimeout = \"60s\"\nmemory = \"48M\"\n\
                      [[hook]]\nname = \"trace\"\nfile = \"trace.txt\"\n[[hook]]\nname = \"count\"\n";
/// Guest RAM as configured above, in KiB; and the same with the pool of host-owned pages. The host may make one mapping
/// of both.
const RAM: u64 = 48 << 10;
const RAM_AND_POOL: u64 = RAM + (256 << 10);
const LIMIT: u64 = 16 << 10;

fn footprint() {
    let mut smaps = String::new();
    Command::run_config(CONFIG).finish_once_running(|process| {
        smaps = std::fs::read_to_string(format!("/proc/{}/smaps", process.id())).unwrap();
        process.kill().unwrap();
    });

    let (guest, own): (Vec<_>, Vec<_>) = mappings(&smaps).into_iter().partition(|(size, _)| *size >= RAM);
    let guest: u64 = guest.iter().map(|(size, _)| size).sum();
    assert!(guest >= RAM_AND_POOL, "the guest's memory is not among these mappings\n{smaps}");
    let own: u64 = own.iter().map(|(_, resident)| resident).sum();
    assert!(own > 0 && own < LIMIT, "{own} KiB are resident besides the guest's memory\n{smaps}");
}

/// Size and resident part of each mapping, in KiB.
fn mappings(smaps: &str) -> Vec<(u64, u64)> {
    let field = |line: &str, name: &str| line.strip_prefix(name)?.trim().strip_suffix(" kB")?.trim().parse().ok();
    let mut mappings: Vec<(u64, u64)> = Vec::new();
    for line in smaps.lines() {
        if let Some(size) = field(line, "Size:") {
            mappings.push((size, 0));
        } else if let (Some(resident), Some(last)) = (field(line, "Rss:"), mappings.last_mut()) {
            last.1 = resident;
        }
    }
    mappings
}
