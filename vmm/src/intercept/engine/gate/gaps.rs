//! Times at which faults may have been missed, because a vCPU's gate 14 was found without a stub.

use std::time::{Duration, Instant};

use vector14_hook::Va;

/// Number of gaps that are described one by one; the rest are summed up.
const TOLD: usize = 8;

/// The gaps of one VM.
#[derive(Default)]
pub(super) struct Gaps {
    first: Vec<Gap>,
    /// Number of gaps that are not in `first`.
    more: u64,
    more_time: Duration,
}

/// A time in which a vCPU may have taken unseen faults.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Gap {
    pub(super) vcpu: u32,
    /// When the vCPU looked at its gate before.
    pub(super) from: Instant,
    pub(super) to: Instant,
    /// Address of the gate that had no stub.
    pub(super) gate: Va,
}

impl Gaps {
    /// Adds a gap, or extends the vCPU's last one if `gap` begins at its end.
    pub(super) fn add(&mut self, gap: Gap) {
        let is_full = self.first.len() == TOLD;
        let last = self.first.iter_mut().rfind(|last| last.vcpu == gap.vcpu);
        match last {
            Some(last) if last.to == gap.from && last.gate == gap.gate => last.to = gap.to,
            _ if !is_full => self.first.push(gap),
            _ => {
                self.more += 1;
                self.more_time += gap.to - gap.from;
            }
        }
    }

    /// Describes the gaps, one sentence each, with times since `start`.
    pub(super) fn describe(&self, start: Instant) -> Vec<String> {
        let since = |at: Instant| at.saturating_duration_since(start).as_secs_f64() * 1e3;
        let sentence = |gap: &Gap| {
            format!(
                "faults may have been missed on vCPU {} from {:.1} to {:.1} ms: its gate 14, at {}, had no stub",
                gap.vcpu,
                since(gap.from),
                since(gap.to),
                gap.gate
            )
        };
        let mut sentences: Vec<String> = self.first.iter().map(sentence).collect();
        if self.more > 0 {
            let time = self.more_time.as_secs_f64() * 1e3;
            sentences.push(format!("faults may have been missed {} more times, for {time:.1} ms in all", self.more));
        }
        sentences
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gaps_that_touch_are_one_and_the_rest_is_summed_up() {
        let start = Instant::now();
        let ms = |count| start + Duration::from_millis(count);
        let gap = |vcpu, from, to| Gap { vcpu, from: ms(from), to: ms(to), gate: Va(0x10e0) };
        let mut gaps = Gaps::default();
        assert!(gaps.describe(start).is_empty());
        gaps.add(gap(0, 10, 12));
        gaps.add(gap(1, 11, 12));
        gaps.add(gap(0, 12, 20));
        let told = gaps.describe(start);
        assert_eq!(told.len(), 2);
        assert_eq!(
            told[0],
            "faults may have been missed on vCPU 0 from 10.0 to 20.0 ms: its gate 14, at 0x10e0, had no stub"
        );
        for index in 0..100 {
            gaps.add(gap(0, 100 + 10 * index, 105 + 10 * index));
        }
        let told = gaps.describe(start);
        assert_eq!(told.len(), TOLD + 1);
        assert_eq!(told[TOLD], "faults may have been missed 94 more times, for 470.0 ms in all");
    }
}
