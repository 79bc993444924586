//! Makes the user's tables from the shards' counters, the most frequent first.

use std::cmp::Reverse;
use std::collections::HashMap;

use vector14_hook::{ErrorCode, PerVcpu, Report, Table, Va};

use super::{NamedRange, REGION_SHIFT, Settings, Shard};
use crate::counters::Counters;

/// The report over all shards.
pub(super) fn report(settings: &Settings, shards: &PerVcpu<Shard>) -> Report {
    let kinds = Sums::of(shards, |shard| &shard.kinds);
    let instructions = Sums::of(shards, |shard| &shard.instructions);
    let mut report = Report::default();
    report.tables.push(kind_table(&kinds));
    if settings.ranges.is_empty() {
        let regions = Sums::of(shards, |shard| &shard.regions);
        report.tables.push(place_table("2 MiB region", &regions, settings.top, |key| Va(key << REGION_SHIFT)));
        report.warnings.extend(overflow("2 MiB region", &regions));
    } else {
        report.tables.push(range_table(&settings.ranges, shards));
    }
    report.tables.push(place_table("instruction", &instructions, settings.top, Va));
    report.warnings.extend(overflow("instruction", &instructions));
    report
}

/// The sums of one kind of counter over all shards.
struct Sums {
    /// Keys and their counts, the most frequent first, then by key.
    sorted: Vec<(u64, u64)>,
    /// Faults counted without a key, because there was no room for it.
    others: u64,
}

impl Sums {
    fn of(shards: &PerVcpu<Shard>, counters: impl Fn(&Shard) -> &Counters) -> Self {
        let mut sums = HashMap::<u64, u64>::new();
        for (key, count) in shards.iter().flat_map(|shard| counters(shard).iter()) {
            *sums.entry(key).or_default() += count;
        }
        let mut sorted: Vec<_> = sums.into_iter().collect();
        sorted.sort_by_key(|&(key, count)| (Reverse(count), key));
        Self { sorted, others: shards.iter().map(|shard| counters(shard).others()).sum() }
    }

    fn total(&self) -> u64 {
        self.sorted.iter().map(|(_, count)| count).sum::<u64>() + self.others
    }
}

fn kind_table(kinds: &Sums) -> Table {
    let mut table = table("faults by kind", &["kind", "error code", "faults", "share"]);
    let total = kinds.total();
    for &(key, count) in &kinds.sorted {
        let code = ErrorCode::from_bits_retain(u32::try_from(key).unwrap_or(u32::MAX));
        table.rows.push(vec![code.to_string(), format!("{key:#x}"), count.to_string(), share(count, total)]);
    }
    if kinds.others > 0 {
        table.rows.push(vec!["others".into(), String::new(), kinds.others.to_string(), share(kinds.others, total)]);
    }
    table
}

/// The `top` most frequent places, and one row for the rest.
fn place_table(what: &str, places: &Sums, top: usize, address: impl Fn(u64) -> Va) -> Table {
    let mut table = table(&format!("faults by {what}"), &[what, "faults", "share"]);
    let total = places.total();
    let (shown, rest) = places.sorted.split_at(top.min(places.sorted.len()));
    for &(key, count) in shown {
        table.rows.push(vec![address(key).to_string(), count.to_string(), share(count, total)]);
    }
    let remaining = rest.iter().map(|(_, count)| count).sum::<u64>() + places.others;
    if remaining > 0 {
        let more = if places.others > 0 { "more than " } else { "" };
        table.rows.push(vec![format!("{more}{} others", rest.len()), remaining.to_string(), share(remaining, total)]);
    }
    table
}

/// All ranges, including those without faults, and the faults outside all ranges.
fn range_table(ranges: &[NamedRange], shards: &PerVcpu<Shard>) -> Table {
    let mut table = table("faults by address range", &["range", "addresses", "faults", "share"]);
    let sum = |place| shards.iter().map(|shard| shard.ranges.get(place)).sum::<u64>();
    let elsewhere = sum(None);
    let mut counts: Vec<_> = ranges.iter().enumerate().map(|(index, range)| (range, sum(Some(index)))).collect();
    let total = counts.iter().map(|(_, count)| count).sum::<u64>() + elsewhere;
    counts.sort_by_key(|&(_, count)| Reverse(count));
    for (NamedRange { name, addresses }, count) in counts {
        table.rows.push(vec![name.clone(), addresses.to_string(), count.to_string(), share(count, total)]);
    }
    if elsewhere > 0 {
        table.rows.push(vec!["elsewhere".into(), String::new(), elsewhere.to_string(), share(elsewhere, total)]);
    }
    table
}

/// A warning about faults that found no counter, if there are any.
fn overflow(what: &str, places: &Sums) -> Option<String> {
    (places.others > 0).then(|| {
        format!(
            "faults by {what}: {} of {} faults found no free counter, because there are too many places; they are \
             counted as others, and the counts of places can be too low",
            places.others,
            places.total()
        )
    })
}

fn table(title: &str, columns: &[&str]) -> Table {
    let columns = columns.iter().map(|&column| column.to_owned()).collect();
    Table { title: title.to_owned(), columns, rows: Vec::new() }
}

/// `count` as a percentage of `total`, such as `12.3%`.
fn share(count: u64, total: u64) -> String {
    let permille = u128::from(count) * 1000 / u128::from(total.max(1));
    format!("{}.{}%", permille / 10, permille % 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_percentages_with_one_digit() {
        assert_eq!([share(1, 3), share(3, 3), share(0, 0)], ["33.3%", "100.0%", "0.0%"]);
    }
}
