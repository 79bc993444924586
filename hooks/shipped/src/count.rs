//! `count`: counts faults by kind, by address range and by instruction, and reports tables at the end.
//!
//! Each fault increments four or five counters. Each vCPU has its own counters, a [`Shard`]; they are summed at the
//! end.
//!
//! - `count/options.rs`: the options
//! - `count/tables.rs`: makes tables from the counters

mod options;
mod tables;

use vector14_hook::{Fault, Guest, Hook, HookType, OptionDoc, Options, OptionsError, PerVcpu, Report, Result, Verdict};

use crate::counters::{Counters, Tally};
use options::{NamedRange, Settings};

pub(crate) const TYPE: HookType = HookType {
    name: "count",
    summary: "counts faults by kind, by address range and by instruction; reports tables at the end",
    options: &[
        OptionDoc {
            name: "top",
            value: "1..1000",
            default: Some("20"),
            help: "maximum rows in the tables of regions and of instructions",
        },
        OptionDoc {
            name: "ranges",
            value: "[{ name, start, end }]",
            default: Some("[]"),
            help: "address ranges to count by; the first match counts; if empty, regions of 2 MiB",
        },
    ],
    check: |options| Settings::new(options).map(drop),
    create: |options| Ok(Box::new(Count::new(options)?)),
};

/// log2 of a region's size: 2 MiB, which one page table covers.
const REGION_SHIFT: u32 = 21;
/// Distinct error codes per shard; CPUs produce about a dozen.
const KINDS: usize = 64;
/// Distinct regions, and distinct instructions, per shard: 64 KiB of counters each.
const PLACES: usize = 4096;

struct Count {
    settings: Settings,
    shards: PerVcpu<Shard>,
}

/// The counters of one vCPU.
struct Shard {
    kinds: Counters,
    /// Counts by index into the settings' ranges.
    ranges: Tally,
    /// Counts by address >> `REGION_SHIFT`.
    regions: Counters,
    instructions: Counters,
}

impl Count {
    fn new(options: &Options) -> std::result::Result<Self, OptionsError> {
        let settings = Settings::new(options)?;
        let shards = PerVcpu::new(|_| Shard::new(&settings));
        Ok(Self { settings, shards })
    }
}

impl Hook for Count {
    fn on_fault(&self, fault: &Fault, _guest: &mut dyn Guest) -> Result {
        let shard = self.shards.of(fault);
        shard.kinds.add(fault.error_code.bits().into());
        shard.instructions.add(fault.rip.0);
        if self.settings.ranges.is_empty() {
            shard.regions.add(fault.address.0 >> REGION_SHIFT);
        } else {
            shard.ranges.add(self.settings.ranges.iter().position(|range| range.addresses.contains(fault.address)));
        }
        Ok(Verdict::Pass)
    }

    fn on_end(&self, _guest: &mut dyn Guest) -> Report {
        tables::report(&self.settings, &self.shards)
    }
}

impl Shard {
    fn new(settings: &Settings) -> Self {
        let regions = if settings.ranges.is_empty() { PLACES } else { 0 };
        Self {
            kinds: Counters::new(KINDS),
            ranges: Tally::new(settings.ranges.len()),
            regions: Counters::new(regions),
            instructions: Counters::new(PLACES),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::fault;
    use serde_json::{Value, json};
    use std::thread;
    use vector14_hook::mock::{MockGuest, options};
    use vector14_hook::{ErrorCode, Table, Va};

    fn hook(settings: Value) -> Count {
        Count::new(&options(settings)).unwrap_or_else(|error| panic!("{error}"))
    }

    fn see(hook: &Count, fault: &Fault) {
        assert_eq!(hook.on_fault(fault, &mut MockGuest::new(0)).unwrap(), Verdict::Pass);
    }

    /// First and count cells of the table whose title has `title` in it.
    fn rows(report: &Report, title: &str) -> Vec<(String, u64)> {
        let table = report.tables.iter().find(|table| table.title.contains(title)).unwrap();
        let count = table.columns.iter().position(|column| column == "faults").unwrap();
        table.rows.iter().map(|row| (row[0].clone(), row[count].parse().unwrap())).collect()
    }

    fn row(name: &str, count: u64) -> (String, u64) {
        (name.to_owned(), count)
    }

    #[test]
    fn faults_are_counted_by_kind_place_and_instruction() {
        let hook = hook(json!({}));
        for sequence in 0..5 {
            let mut fault = fault(sequence, 0x1000_0000 + sequence * 0x10_0000);
            fault.rip = Va(if sequence < 4 { 0x40_1000 } else { u64::MAX });
            fault.error_code.set(ErrorCode::WRITE, sequence != 1);
            see(&hook, &fault);
        }
        let report = hook.on_end(&mut MockGuest::new(0));
        assert_eq!(rows(&report, "kind"), [row("write, user, not present", 4), row("read, user, not present", 1)]);
        assert_eq!(rows(&report, "2 MiB region"), [row("0x10000000", 2), row("0x10200000", 2), row("0x10400000", 1)]);
        assert_eq!(rows(&report, "instruction"), [row("0x401000", 4), row("0xffffffffffffffff", 1)]);
        assert_eq!(report.warnings, Vec::<String>::new());
        let square = |table: &Table| table.rows.iter().all(|row| row.len() == table.columns.len());
        assert!(report.tables.iter().all(square));
    }

    #[test]
    fn named_ranges_take_the_place_of_regions() {
        let hook = hook(json!({"ranges": [
            {"name": "heap", "start": "0x10000000", "end": "0x20000000"},
            {"name": "user", "start": 0, "end": "0x800000000000"},
            {"name": "kernel", "start": "0xffff800000000000", "end": "0x10000000000000000"},
        ]}));
        for address in [0x1000_0000, 0x1fff_ffff, 0x2000_0000, u64::MAX, 1 << 47] {
            see(&hook, &fault(0, address));
        }
        let report = hook.on_end(&mut MockGuest::new(0));
        let expected = [row("heap", 2), row("user", 1), row("kernel", 1), row("elsewhere", 1)];
        assert_eq!(rows(&report, "range"), expected);
        assert!(report.tables.iter().all(|table| !table.title.contains("region")));
    }

    #[test]
    fn what_the_top_rows_leave_out_is_in_the_last_row() {
        let hook = hook(json!({"top": 2}));
        for (rip, count) in [(1, 5), (2, 9), (3, 2), (4, 1)] {
            for sequence in 0..count {
                see(&hook, &Fault { rip: Va(rip), ..fault(sequence, 0) });
            }
        }
        assert_eq!(
            rows(&hook.on_end(&mut MockGuest::new(0)), "instruction"),
            [row("0x2", 9), row("0x1", 5), row("2 others", 3)]
        );
    }

    #[test]
    fn counts_of_vcpus_that_fault_together_add_up() {
        const EACH: u64 = 20_000;
        let hook = hook(json!({}));
        thread::scope(|scope| {
            // Vcpus 0 and 8 share a shard.
            for vcpu in [0, 1, 2, 8] {
                let hook = &hook;
                scope.spawn(move || {
                    for sequence in 0..EACH {
                        see(hook, &Fault { vcpu, rip: Va(sequence % 100), ..fault(sequence, 0) });
                    }
                });
            }
        });
        let report = hook.on_end(&mut MockGuest::new(0));
        assert_eq!(rows(&report, "kind"), [row("write, user, not present", 4 * EACH)]);
        let total: u64 = rows(&report, "instruction").iter().map(|(_, count)| count).sum();
        assert_eq!(total, 4 * EACH);
        assert!(rows(&report, "instruction")[..20].iter().all(|(_, count)| *count == 4 * EACH / 100));
    }

    #[test]
    fn more_places_than_there_is_room_for_are_counted_and_said() {
        const PAGES: u64 = 3 * PLACES as u64;
        let hook = hook(json!({}));
        for sequence in 0..PAGES {
            see(&hook, &fault(sequence, sequence << REGION_SHIFT));
        }
        let report = hook.on_end(&mut MockGuest::new(0));
        let total: u64 = rows(&report, "region").iter().map(|(_, count)| count).sum();
        assert_eq!(total, PAGES);
        assert!(report.warnings[0].contains("2 MiB region"), "{:?}", report.warnings);
        assert_eq!(report.warnings.len(), 1);
    }

    #[test]
    fn a_vm_without_faults_has_empty_tables() {
        let report = hook(json!({})).on_end(&mut MockGuest::new(0));
        assert!(report.tables.iter().all(|table| table.rows.is_empty()));
    }
}
