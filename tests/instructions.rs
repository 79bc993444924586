//! Counts the instructions on the path of a fault: a recorded exit is replayed without a guest, and again under
//! callgrind.
//!
//! Counts do not depend on other work on the machine. `instructions.toml` has the budgets.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;

use libtest_mimic::Trial;
use serde::Deserialize;
use vector14::bench::replay::{Exit, replay};
use vector14::chain::NamedHook;
use vector14::doctor::device::DEFAULT_PATH;
use vector14::library::Library;
use vector14_hook::abi::{Export, Foreign};
use vector14_hook::{Exception, Fault, Guest, Hook, HookType, Options, Result, Verdict};

use crate::harness::{emulated_by_qemu, kvm_test, kvm_test_with, libraries};

pub fn tests() -> Vec<Trial> {
    let replayed = |subject: &'static Subject| kvm_test(&format!("{REPLAYED}{}", subject.name), || subject.replay());
    let mut tests: Vec<_> = SUBJECTS.iter().map(replayed).collect();
    // An emulated CPU executes the same instructions, and the lab has no valgrind.
    if !emulated_by_qemu() {
        tests.push(kvm_test_with("valgrind", "instructions::within_budget", within_budget));
    }
    tests
}

const REPLAYED: &str = "instructions::replayed::";

/// Number of faults that are replayed and counted: few enough in a row not to be taken for a loop.
const COUNT: u32 = 200;

/// An exit to replay, and the hook that is asked.
struct Subject {
    name: &'static str,
    exit: Exit,
    hook: fn() -> Option<Box<dyn Hook>>,
    /// The expected verdict, by its field in the summary.
    verdict: &'static str,
}

const SUBJECTS: &[Subject] = &[
    subject("gate-no-hook", Exit::Stub, || None, "reinject"),
    subject("gate-compiled-in", Exit::Stub, || Some(Box::new(Passes)), "reinject"),
    subject("gate-c-abi", Exit::Stub, through_the_abi, "reinject"),
    subject("gate-loaded", Exit::Stub, loaded, "reinject"),
    subject("gate-resolve", Exit::Stub, || always(Verdict::Resolve), "resolve"),
    subject("gate-skip", Exit::Stub, || always(Verdict::Skip), "skip"),
    subject("gate-raise", Exit::Stub, || always(PROTECTION), "raise"),
    subject("bitmap-no-hook", Exit::Exception, || None, "reinject"),
    subject("bitmap-resolve", Exit::Exception, || always(Verdict::Resolve), "resolve"),
    subject("bitmap-skip", Exit::Exception, || always(Verdict::Skip), "skip"),
    subject("bitmap-raise", Exit::Exception, || always(PROTECTION), "raise"),
];

const fn subject(
    name: &'static str,
    exit: Exit,
    hook: fn() -> Option<Box<dyn Hook>>,
    verdict: &'static str,
) -> Subject {
    Subject { name, exit, hook, verdict }
}

const PROTECTION: Verdict = Verdict::Raise(Exception { vector: 13, error_code: Some(0) });

#[derive(Default)]
struct Passes;

impl Hook for Passes {
    fn on_fault(&self, _fault: &Fault, _guest: &mut dyn Guest) -> Result {
        Ok(Verdict::Pass)
    }
}

impl Export for Passes {
    const TYPE: HookType = HookType::without_options::<Self>("passes", "passes");
}

struct Always(Verdict);

impl Hook for Always {
    fn on_fault(&self, _fault: &Fault, _guest: &mut dyn Guest) -> Result {
        Ok(self.0.clone())
    }
}

fn always(verdict: Verdict) -> Option<Box<dyn Hook>> {
    Some(Box::new(Always(verdict)))
}

fn through_the_abi() -> Option<Box<dyn Hook>> {
    Some(Foreign::local::<Passes>().create(&Options::default()).unwrap())
}

fn loaded() -> Option<Box<dyn Hook>> {
    Some(Library::load(&libraries::in_rust()).unwrap().create(&Options::default()).unwrap())
}

impl Subject {
    /// Replays the exit, and checks that each answer is a fault with the expected verdict.
    fn replay(&self) {
        let hooks = (self.hook)().into_iter().map(|hook| NamedHook::boxed("hook", hook)).collect();
        let verdicts = replay(self.exit, hooks, COUNT, Path::new(DEFAULT_PATH)).unwrap();
        let counts = serde_json::to_value(verdicts).unwrap();
        assert_eq!((verdicts.total(), &counts[self.verdict]), (u64::from(COUNT) + 1, &(COUNT + 1).into()), "{counts}");
    }
}

/// Instructions that one fault executes.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
struct Cost {
    instructions: u64,
    /// Those that lock the bus, because they change what vCPUs share.
    locked: u64,
}

/// What callgrind counted for a subject's faults.
#[derive(Debug, PartialEq, Eq)]
struct Profile {
    cost: Cost,
    /// Called functions that must not be on the path.
    unwanted: BTreeSet<String>,
}

/// Functions of the C library that allocate or enter the kernel. Locks are among the locked instructions.
const UNWANTED: [&str; 9] =
    ["malloc", "calloc", "realloc", "posix_memalign", "aligned_alloc", "free", "syscall", "ioctl", "clock_gettime"];

fn within_budget() {
    let budgets: BTreeMap<String, Cost> = toml::from_str(include_str!("instructions.toml")).unwrap();
    let profiles = profiles();
    assert_eq!(profiles, self::profiles(), "two counts of the same replay differ");
    let (mut over, mut new) = (String::new(), String::new());
    for (Subject { name, .. }, Profile { cost, unwanted }) in SUBJECTS.iter().zip(&profiles) {
        let Cost { instructions, locked } = *cost;
        let budget = budgets.get(*name).copied().unwrap_or(Cost { instructions: 0, locked: 0 });
        if instructions > budget.instructions || locked > budget.locked || !unwanted.is_empty() {
            let allowed = format!("allowed {} and {}", budget.instructions, budget.locked);
            writeln!(over, "{name}: {instructions} instructions, {locked} locked ({allowed}); calls {unwanted:?}")
                .unwrap();
        }
        let margin = instructions / 20;
        writeln!(new, "{name} = {{ instructions = {}, locked = {locked} }}", instructions + margin).unwrap();
    }
    assert!(
        over.is_empty(),
        "a fault executes more than tests/instructions.toml allows:\n{over}\
         Make the path cheaper. If the path has to do more from now on, replace the file's lines with these, and say in \
         the commit what the instructions are for. A call of the allocator or of the kernel is never allowed.\n{new}"
    );
}

/// The profiles of all subjects, in their order.
fn profiles() -> Vec<Profile> {
    let folder = tempfile::tempdir().unwrap();
    let mut valgrind = Command::new("valgrind");
    valgrind.args(["--tool=callgrind", "--collect-bus=yes", "--compress-strings=no"]);
    valgrind.arg("--toggle-collect=vector14::commands::bench::replay::answer_fault");
    valgrind.arg("--dump-after=vector14::commands::bench::replay::replay");
    valgrind.arg(format!("--callgrind-out-file={}", folder.path().join("dump").display()));
    valgrind.arg(std::env::current_exe().unwrap()).args(["--test-threads=1", REPLAYED]);
    let output = valgrind.output().unwrap();
    let said = [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned()).concat();
    assert!(output.status.success(), "{said}");
    let dump = |number| std::fs::read_to_string(folder.path().join(format!("dump.{number}")));
    (1..=SUBJECTS.len())
        .map(|number| profile(&dump(number).unwrap_or_else(|error| panic!("{error}\n{said}"))))
        .collect()
}

/// Reads one dump (Callgrind Format Specification, chapter 3 of the Valgrind documentation).
fn profile(dump: &str) -> Profile {
    let field = |name: &str| dump.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_else(|| panic!("{dump}"));
    assert_eq!(field("events: "), "Ir Ge", "{dump}");
    let totals: Vec<u64> = field("summary: ").split(' ').map(|total| total.parse().unwrap()).collect();
    let [instructions, locked] = totals[..] else { panic!("{dump}") };
    let each = |total: u64| {
        assert!(total > 0 && total.is_multiple_of(COUNT.into()), "{total} for {COUNT} equal faults\n{dump}");
        total / u64::from(COUNT)
    };
    // The C library's symbols have versions: `clock_gettime@@GLIBC_2.17`.
    let called = dump.lines().filter_map(|line| line.strip_prefix("fn=")?.split('@').next());
    let unwanted = called.filter(|name| UNWANTED.contains(name) || name.starts_with("core::fmt::"));
    let unwanted = unwanted.map(str::to_owned).collect();
    Profile { cost: Cost { instructions: each(instructions), locked: each(locked) }, unwanted }
}
