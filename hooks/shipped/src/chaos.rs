//! `chaos`: injects faults and delays that a guest must cope with, at random. The same seed makes the same choices.
//!
//! - a *spurious* fault: instead of a fault of user code, the guest gets an earlier one that it has already served, at
//!   a page that is mapped. A CPU may do this at any time, and every kernel has to handle it: nothing is wrong, so the
//!   instruction is retried, and the replaced fault occurs again.
//! - *EFAULT*: a fault of the kernel at a user-mode address, as `copy_from_user` and similar functions take, is
//!   reported as a fault at page 0, where nothing is mapped. Linux then ends the copy through its exception table, and
//!   the system call returns EFAULT or the number of bytes copied. If Linux then retries byte by byte, that fails as
//!   well. Only copies that fault are seen and counted.
//! - a *delay*: the vCPU sleeps before the next hook is called.
//!
//! Each choice depends only on the seed, the vCPU and the number of its faults, not on a clock or another vCPU. So a
//! guest that takes the same faults gets the same chaos.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::thread;
use std::time::Duration;

use serde::Deserialize;
use vector14_hook::{
    Counter, Cr3, ErrorCode, Fault, Guest, Hook, HookType, OptionDoc, Options, OptionsError, PerVcpu, Report, Result,
    Table, Va, Verdict,
};

use crate::address::{AddressRange, Number};

pub(crate) const TYPE: HookType = HookType {
    name: "chaos",
    summary: "injects spurious faults, EFAULT in system calls, and delays",
    options: &[
        OptionDoc { name: "seed", value: "0..2^64", default: Some("14"), help: "the same seed makes the same choices" },
        OptionDoc {
            name: "spurious",
            value: "one in N",
            default: Some("0 (none)"),
            help: "share of user-code faults that are replaced by spurious faults at a mapped page",
        },
        OptionDoc {
            name: "efault",
            value: "[n, ...]",
            default: Some("[]"),
            help: "which of the faulting copies from or to user memory fail, counted from 1 on each vCPU",
        },
        OptionDoc {
            name: "delayed",
            value: "one in N",
            default: Some("0 (none)"),
            help: "share of faults that are delayed",
        },
        OptionDoc {
            name: "start",
            value: "address",
            default: Some("0"),
            help: "faults at lower addresses are left alone and not counted",
        },
        OptionDoc {
            name: "end",
            value: "address",
            default: Some("0x100000000000000"),
            help: "so are faults at this address and above",
        },
        OptionDoc { name: "delay", value: "0..10000 ms", default: Some("1"), help: "length of a delay, in ms" },
    ],
    check: |options| Chaos::new(options).map(drop),
    create: |options| Ok(Box::new(Chaos::new(options)?)),
};

const LONGEST_DELAY: u128 = 10_000;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Settings {
    seed: Option<Number>,
    spurious: Option<Number>,
    #[serde(default)]
    efault: Vec<Number>,
    delayed: Option<Number>,
    delay: Option<Number>,
    start: Option<Number>,
    end: Option<Number>,
}

struct Chaos {
    seed: u64,
    range: AddressRange,
    spurious: OneIn,
    efault: Vec<u64>,
    delayed: OneIn,
    delay: Duration,
    cpus: PerVcpu<Cpu>,
}

/// A share of one in n; 0 means none.
#[derive(Clone, Copy)]
struct OneIn(u64);

#[derive(Default)]
struct Cpu {
    faults: Counter,
    copies: Counter,
    /// The last fault of user code that was left to the guest's own handler: address, error code and page tables.
    served: [AtomicU64; 3],
    /// The last copy that failed, if no other has faulted since: its page, instruction and stack pointer.
    failed: [AtomicU64; 3],
    spurious: Counter,
    efault: Counter,
    delays: Counter,
}

impl Chaos {
    fn new(options: &Options) -> std::result::Result<Self, OptionsError> {
        let Settings { seed, spurious, efault, delayed, delay, start, end } = options.parse()?;
        let range = AddressRange::new(start.unwrap_or(Number(0)), end.unwrap_or(Number(1 << 56)))
            .map_err(|error| OptionsError::new(error.key(), error.to_string()))?;
        let Number(milliseconds) = delay.unwrap_or(Number(1));
        let delay = u64::try_from(milliseconds).ok().filter(|_| milliseconds <= LONGEST_DELAY);
        let delay = delay.ok_or_else(|| {
            OptionsError::new(
                "delay",
                format!("delay = {milliseconds}: must be from 0 to {LONGEST_DELAY} milliseconds"),
            )
        })?;
        let efault = efault.into_iter().map(|Number(n)| whole("efault", n)).collect::<std::result::Result<_, _>>()?;
        Ok(Self {
            seed: seed.map_or(Ok(14), |Number(seed)| whole("seed", seed))?,
            range,
            spurious: OneIn(spurious.map_or(Ok(0), |Number(many)| whole("spurious", many))?),
            efault,
            delayed: OneIn(delayed.map_or(Ok(0), |Number(many)| whole("delayed", many))?),
            delay: Duration::from_millis(delay),
            cpus: PerVcpu::default(),
        })
    }
}

fn whole(key: &str, number: u128) -> std::result::Result<u64, OptionsError> {
    u64::try_from(number).map_err(|_| OptionsError::new(key, format!("{key} = {number:#x}: must be below 2^64")))
}

impl Hook for Chaos {
    fn on_fault(&self, fault: &Fault, guest: &mut dyn Guest) -> Result {
        if !self.range.contains(fault.address) {
            return Ok(Verdict::Pass);
        }
        let cpu = self.cpus.of(fault);
        cpu.faults.add(1);
        let throw = |what| Throw::new(self.seed, fault.vcpu, cpu.faults.get(), what);
        if throw(What::Delay).is(self.delayed) {
            cpu.delays.add(1);
            thread::sleep(self.delay);
        }
        if !fault.from_user() {
            return Ok(self.copy(fault, cpu));
        }
        if throw(What::Spurious).is(self.spurious)
            && let Some((address, error_code)) = cpu.last_served(fault, guest)
        {
            cpu.spurious.add(1);
            return Ok(Verdict::ReinjectAs { address, error_code });
        }
        cpu.serve(fault);
        Ok(Verdict::Pass)
    }

    fn on_end(&self, _guest: &mut dyn Guest) -> Report {
        let sum = |count: fn(&Cpu) -> &Counter| self.cpus.iter().map(|cpu| count(cpu).get()).sum::<u64>().to_string();
        let columns = ["seed", "faults", "spurious", "copies", "EFAULT", "delays"].map(str::to_owned).to_vec();
        let row = vec![
            self.seed.to_string(),
            sum(|cpu| &cpu.faults),
            sum(|cpu| &cpu.spurious),
            sum(|cpu| &cpu.copies),
            sum(|cpu| &cpu.efault),
            sum(|cpu| &cpu.delays),
        ];
        let table = Table { title: "what was put in".to_owned(), columns, rows: vec![row] };
        Report { tables: vec![table], ..Report::default() }
    }
}

impl Chaos {
    /// Decides about a kernel fault in the range. At a user-mode address it is a copy from or to user memory, which may
    /// fail.
    fn copy(&self, fault: &Fault, cpu: &Cpu) -> Verdict {
        if fault.address.0 >> 63 != 0 {
            return Verdict::Pass;
        }
        if !cpu.tries_again(fault) {
            cpu.copies.add(1);
            if !self.efault.contains(&cpu.copies.get()) {
                return Verdict::Pass;
            }
            cpu.efault.add(1);
            cpu.fail(fault);
        }
        // No process has page 0 mapped; otherwise the access stays the same.
        let (address, error_code) = (Va(fault.address.page_offset()), fault.error_code - ErrorCode::PRESENT);
        Verdict::ReinjectAs { address, error_code }
    }
}

impl Cpu {
    fn serve(&self, fault: &Fault) {
        let values = [fault.address.0, fault.error_code.bits().into(), fault.cr3.0];
        for (slot, value) in self.served.iter().zip(values) {
            slot.store(value, Relaxed);
        }
    }

    fn fail(&self, fault: &Fault) {
        for (slot, value) in self.failed.iter().zip([fault.address.page().0, fault.rip.0, fault.rsp.0]) {
            slot.store(value, Relaxed);
        }
    }

    /// Whether this fault belongs to the copy that failed: same function, another instruction. After a copy of many
    /// bytes fails, Linux retries it byte by byte.
    fn tries_again(&self, fault: &Fault) -> bool {
        const FUNCTION: u64 = 0x1000;
        let [page, rip, rsp] = self.failed.each_ref().map(|slot| slot.swap(0, Relaxed));
        let same = (page, rsp) == (fault.address.page().0, fault.rsp.0);
        same && rip != fault.rip.0 && rip.abs_diff(fault.rip.0) < FUNCTION
    }

    /// The last fault that was served in this address space, if it is resolved: the page is mapped and allows that
    /// access.
    fn last_served(&self, fault: &Fault, guest: &dyn Guest) -> Option<(Va, ErrorCode)> {
        let [address, error_code, cr3] = self.served.each_ref().map(|slot| slot.load(Relaxed));
        let error_code = ErrorCode::from_bits_retain(u32::try_from(error_code).ok()?);
        if Cr3(cr3) != fault.cr3 || Va(address).page() == fault.address.page() {
            return None;
        }
        let access = guest.translate(Va(address)).ok()?.access;
        let needs = [
            (ErrorCode::USER, vector14_hook::Access::USER),
            (ErrorCode::WRITE, vector14_hook::Access::WRITE),
            (ErrorCode::FETCH, vector14_hook::Access::EXECUTE),
        ];
        let over = needs.into_iter().all(|(flag, right)| !error_code.contains(flag) || access.contains(right));
        over.then_some((Va(address), error_code))
    }
}

/// The kinds of choice; each has its own random sequence.
#[derive(Clone, Copy)]
enum What {
    Spurious = 1,
    Delay = 2,
}

/// The random number for one choice.
struct Throw(u64);

impl Throw {
    /// Computes the number; it depends only on the arguments.
    fn new(seed: u64, vcpu: u32, fault: u64, what: What) -> Self {
        let mixed = [vcpu.into(), fault, what as u64].into_iter().fold(mix(seed), |state, word: u64| mix(state ^ word));
        Self(mixed)
    }

    fn is(&self, OneIn(many): OneIn) -> bool {
        many != 0 && self.0.is_multiple_of(many)
    }
}

/// The finaliser of SplitMix64 (Steele, Lea and Flood, "Fast splittable pseudorandom number generators", 2014).
const fn mix(state: u64) -> u64 {
    let state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let state = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let state = (state ^ (state >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    state ^ (state >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};
    use vector14_hook::Access;
    use vector14_hook::mock::{MockGuest, Outcome, options, read_fault};

    fn hook(settings: Value) -> Chaos {
        Chaos::new(&options(settings)).unwrap_or_else(|error| panic!("{error}"))
    }

    /// Runs a guest that maps each page reported to it, and returns what the guest sees.
    fn run(settings: Value) -> (Vec<Outcome>, Report) {
        let (hook, mut guest) = (hook(settings), MockGuest::new(0));
        let mut seen = Vec::new();
        for page in 1..=40 {
            let fault = read_fault(page << 12);
            loop {
                seen.push(guest.take(&hook, &fault));
                if seen.last() == Some(&Outcome::Handled { address: fault.address, error_code: fault.error_code }) {
                    break;
                }
            }
            guest.load(fault.address, &[1], Access::USER);
        }
        (seen, hook.on_end(&mut guest))
    }

    #[test]
    fn spurious_faults_are_of_pages_that_are_there_and_the_real_ones_come_again() {
        let (seen, report) = run(json!({"spurious": 3, "seed": 5}));
        let addresses: Vec<u64> = seen
            .iter()
            .map(|outcome| if let Outcome::Handled { address, .. } = outcome { address.0 >> 12 } else { 0 })
            .collect();
        assert!(addresses.len() > 45 && addresses.len() < 80, "{addresses:?}");
        // The guest sees the previous page or the fault's own.
        let mut due = 1;
        for address in addresses {
            assert!(address == due || address + 1 == due, "{address} {due}");
            due += u64::from(address == due);
        }
        assert_eq!(report.tables[0].rows[0][2], (seen.len() - 40).to_string());
    }

    #[test]
    fn the_same_seed_makes_the_same_choices() {
        let with = |seed: u64| run(json!({"spurious": 3, "delayed": 7, "delay": 0, "seed": seed}));
        assert_eq!(with(1), with(1));
        assert_ne!(with(1).0, with(2).0);
    }

    #[test]
    fn the_nth_copy_fails_at_page_0() {
        let (hook, mut guest) = (hook(json!({"efault": [2]})), MockGuest::new(0));
        let copy = Fault { cs: 0x10, error_code: ErrorCode::PRESENT | ErrorCode::WRITE, ..read_fault(0x7000_0123) };
        let kernel = Fault { address: Va(0xffff_8000_0000_0000), ..copy };
        let seen = [copy, kernel, copy, copy].map(|fault| guest.take(&hook, &fault));
        let handled = |fault: Fault| Outcome::Handled { address: fault.address, error_code: fault.error_code };
        let failed = Outcome::Handled { address: Va(0x123), error_code: ErrorCode::WRITE };
        assert_eq!(seen, [handled(copy), handled(kernel), failed, handled(copy)]);
    }

    #[test]
    fn a_copy_that_failed_fails_byte_by_byte_as_well() {
        let rip = Va(0xffff_ffff_8100_0000);
        let copy = Fault { cs: 0x10, rip, ..read_fault(0x7000_0000) };
        let bytewise = Fault { rip: Va(rip.0 + 0x40), ..copy };
        let deeper = Fault { rsp: Va(copy.rsp.0 - 8), ..bytewise };
        let failed = |faults: &[Fault]| -> Vec<bool> {
            let (hook, mut guest) = (hook(json!({"efault": [1]})), MockGuest::new(0));
            let at_page_0 = Outcome::Handled { address: Va(0), error_code: copy.error_code };
            faults.iter().map(|fault| guest.take(&hook, fault) == at_page_0).collect()
        };
        assert_eq!(failed(&[copy, bytewise, bytewise]), [true, true, false], "once");
        assert_eq!(failed(&[copy, copy]), [true, false], "the next attempt");
        assert_eq!(failed(&[copy, deeper]), [true, false], "another function's");
    }

    #[test]
    fn bad_options_are_named() {
        for (bad, key, got) in [
            (json!({"delay": 10_001}), "delay", "10001"),
            (json!({"efault": ["x"]}), "efault", "efault[0]"),
            (json!({"start": 2, "end": 1}), "start", "0x2"),
            (json!({"seed": "0x10000000000000000"}), "seed", "2^64"),
            (json!({"spuriuos": 1}), "spuriuos", "`spurious`"),
        ] {
            let error = (TYPE.check)(&options(bad)).unwrap_err();
            assert_eq!(error.key.as_deref(), Some(key), "{error}");
            assert!(error.message.contains(got), "{error}");
        }
    }
}
