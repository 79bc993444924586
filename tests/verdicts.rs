//! Tests each row of the table in `vector14_hook::verdict` on the tiny guest, which prints what it saw, and on the
//! SDK's mock guest, with which hooks are tested. Both must see the same.

use std::fmt;

use libtest_mimic::Trial;
use vector14::config::EngineChoice;
use vector14::summary::Stop;
use vector14_guest_abi::window::VERDICT;
use vector14_hook::mock::{MockGuest, Outcome as Seen, read_fault};
use vector14_hook::{Access, ErrorCode, Exception, Fault, Guest as Handle, Hook, Result, Va, Verdict};

use crate::harness::{Guest, Outcome, engine, kvm_test, test};

pub fn tests() -> Vec<Trial> {
    vec![
        test("verdicts::on_the_mock", on_the_mock),
        kvm_test("verdicts::from_ring_3", || on_the_tiny_guest(3)),
        kvm_test("verdicts::from_ring_0", || on_the_tiny_guest(0)),
        kvm_test("verdicts::stop", stop),
    ]
}

const AT: u64 = VERDICT.start;
/// What hooks write to RAX and RDX, whatever their verdict.
const CHANGED: u64 = 0x1414;
const PAGE: u64 = 0x5a5a_5a5a_5a5a_5a5a;

/// How the guest faults.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Faults {
    /// It reads a page that is absent.
    Load,
    /// It jumps to a page that is absent.
    Fetch,
    /// It jumps to a page that is not executable, and has no instruction there.
    Garbage,
    /// It reads a page that is absent, and the gate of vector 13 is spoilt in this way.
    Gate(&'static str),
}

/// What the guest must see.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Expected {
    /// Its handler runs with this address and error code, and with the changed registers.
    Handler(u64, u32),
    /// This exception, with the changed registers.
    Exception(u8, u32),
    /// Nothing; the load returns this.
    Nothing(u64),
    /// Its handler runs with the original fault and registers. The hook is left out, and the message says this.
    Failure(&'static str),
    /// As `Failure`, with this message, but the guest is the cause, and the hook goes on.
    Impossible(&'static str),
}

use Expected::{Exception as Raised, Failure, Handler, Impossible, Nothing};

type Decide = fn(&Fault, &mut dyn Handle) -> Result;

struct Case {
    faults: Faults,
    decide: Decide,
    expected: Expected,
}

const fn case(faults: Faults, decide: Decide, expected: Expected) -> Case {
    Case { faults, decide, expected }
}

const fn load(decide: Decide, expected: Expected) -> Case {
    case(Faults::Load, decide, expected)
}

fn reinject_as(address: u64, error_code: u32) -> Result {
    Ok(Verdict::ReinjectAs { address: Va(address), error_code: ErrorCode::from_bits_retain(error_code) })
}

fn raise(vector: u8, error_code: Option<u32>) -> Result {
    Ok(Verdict::Raise(Exception { vector, error_code }))
}

/// `error` is the error code of a read in this ring.
fn cases(error: u32) -> Vec<Case> {
    let general_protection: Decide = |_, _| raise(13, Some(0));
    vec![
        load(|_, _| Ok(Verdict::Pass), Handler(AT, error)),
        load(|_, _| Ok(Verdict::Reinject), Handler(AT, error)),
        load(|_, _| reinject_as(AT + 0x3abc, 0x6), Handler(AT + 0x3abc, 0x6)),
        load(|_, _| reinject_as(AT, 0x15), Handler(AT, 0x15)),
        load(|_, _| reinject_as(AT + 8, 0x807f), Handler(AT + 8, 0x807f)),
        load(map_a_page, Nothing(PAGE)),
        load(|_, _| Ok(Verdict::Skip), Nothing(CHANGED)),
        load(|_, _| raise(13, Some(0x1234)), Raised(13, 0x1234)),
        load(|_, _| raise(6, None), Raised(6, 0)),
        load(|_, _| raise(0, None), Raised(0, 0)),
        load(|_, _| raise(17, Some(0)), Raised(17, 0)),
        load(|_, _| reinject_as(0x1234_0000_0000_0000, 4), Failure("0x1234000000000000 can fault that way")),
        load(|_, _| reinject_as(AT, 0x80), Failure("no CPU pushes the error code 0x80")),
        load(|_, _| raise(2, None), Failure("vector 2 is not an exception")),
        load(|_, _| raise(18, None), Failure("vector 18 is not an exception")),
        load(|_, _| raise(32, None), Failure("vector 32 is not an exception")),
        load(|_, _| raise(13, None), Failure("13 without an error code, but the CPU pushes one")),
        load(|_, _| raise(6, Some(0)), Failure("6 with an error code, but the CPU pushes none")),
        load(|_, _| Err("no idea".into()), Failure("failed: no idea")),
        load(leave_for_nowhere, Failure("go on at 0x1234000000000000, which is not canonical")),
        case(Faults::Fetch, |_, _| Ok(Verdict::Skip), Failure("can't be read")),
        case(Faults::Garbage, |_, _| Ok(Verdict::Skip), Failure("said Skip, but the bytes at")),
        case(Faults::Gate("absent"), general_protection, Impossible("gate 13 is missing")),
        case(Faults::Gate("stack"), general_protection, Impossible("gate 13 runs on another stack")),
        case(Faults::Gate("segment"), general_protection, Impossible("gate 13 runs in another code segment")),
    ]
}

fn map_a_page(fault: &Fault, guest: &mut dyn Handle) -> Result {
    let frame = guest.allocate_page()?;
    guest.write_physical(frame, &PAGE.to_le_bytes())?;
    guest.map(fault.address.page(), frame, Access::USER)?;
    Ok(Verdict::Resolve)
}

fn leave_for_nowhere(_fault: &Fault, guest: &mut dyn Handle) -> Result {
    guest.registers_mut().rip = 0x1234_0000_0000_0000;
    Ok(Verdict::Resolve)
}

/// Writes to registers, and then decides.
struct Changes(Decide);

impl Hook for Changes {
    fn on_fault(&self, fault: &Fault, guest: &mut dyn Handle) -> Result {
        let registers = guest.registers_mut();
        (registers.rax, registers.rdx) = (CHANGED, CHANGED);
        self.0(fault, guest)
    }
}

fn on_the_tiny_guest(ring: u32) {
    let user = if ring == 3 { 4 } else { 0 };
    // The gate of another exception matters to the engine `gate` alone. The other one leaves delivery to the CPU.
    let matters = |case: &Case| engine() == EngineChoice::Gate || !matches!(case.faults, Faults::Gate(_));
    for Case { faults, decide, expected } in cases(user).into_iter().filter(matters) {
        let (access, gate) = match faults {
            Faults::Load => ("load", "good"),
            Faults::Fetch => ("fetch", "good"),
            Faults::Garbage => ("garbage", "good"),
            Faults::Gate(gate) => ("load", gate),
        };
        let vector = if let Raised(vector, _) = expected { vector } else { 13 };
        let cmdline = format!("scenario=verdict access={access} gate={gate} vector={vector} ring={ring}");
        let outcome = Guest::new(&cmdline).hook("test", Changes(decide)).run().passed();
        let (said, failures) = match &expected {
            Handler(address, error) => {
                (format!("handler address={address:#x} error={error:#x} result={CHANGED:#x}"), 0)
            }
            Raised(vector, error) => (format!("exception vector={vector} error={error:#x} result={CHANGED:#x}"), 0),
            Nothing(result) => (format!("nothing result={result:#x}"), 0),
            Failure(_) | Impossible(_) => {
                let error = user | error_code(faults);
                (
                    format!("handler address={AT:#x} error={error:#x} result=0x0"),
                    u64::from(matches!(expected, Failure(_))),
                )
            }
        };
        let context = Context { faults, expected: &expected, outcome: &outcome };
        assert!(outcome.console.contains(&format!("verdict: saw={said}\n")), "no `saw={said}`: {context}");
        assert_eq!(outcome.summary.hooks[0].failures, failures, "{context}");
        assert_eq!(outcome.summary.hooks[0].left_out, failures == 1, "{context}");
        if let Failure(why) | Impossible(why) = expected {
            assert!(outcome.summary.notes[0].contains(why), "{context}");
        }
    }
}

/// The error code of such a fault, without U.
fn error_code(faults: Faults) -> u32 {
    match faults {
        Faults::Load | Faults::Gate(_) => 0,
        Faults::Fetch => 0x10,
        Faults::Garbage => 0x11,
    }
}

struct Context<'a> {
    faults: Faults,
    expected: &'a Expected,
    outcome: &'a Outcome,
}

impl fmt::Display for Context<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}, expected {:?}\n{}", self.faults, self.expected, self.outcome)
    }
}

fn on_the_mock() {
    const CODE: Access = Access::USER.union(Access::EXECUTE);
    for Case { faults, decide, expected } in cases(4) {
        let mut guest = MockGuest::new(1);
        let mut fault = Fault { rflags: 0x1_0246, ..read_fault(AT) };
        match faults {
            Faults::Load => guest.load(fault.rip, &[0x48, 0x8b, 0x07], CODE),
            Faults::Fetch => fault.rip = fault.address,
            Faults::Garbage => {
                fault.rip = fault.address;
                guest.load(fault.rip, &[0x06; 8], Access::USER);
            }
            // The mock guest has no gates.
            Faults::Gate(_) => continue,
        }
        fault.error_code |= ErrorCode::from_bits_retain(error_code(faults));
        let seen = guest.take(&Changes(decide), &fault);
        let registers = guest.registers();
        let next = fault.rip.0 + 3;
        let result = registers.rax;
        match (&expected, &seen) {
            (Handler(at, code), Seen::Handled { address, error_code }) => {
                assert_eq!((address.0, error_code.bits(), result), (*at, *code, CHANGED));
            }
            (Raised(vector, code), Seen::Raised(exception)) => {
                assert_eq!((exception.vector, exception.error_code.unwrap_or(0), result), (*vector, *code, CHANGED));
            }
            (Nothing(word), Seen::Skipped) => {
                assert_eq!((registers.rip, registers.rflags, result), (next, 0x246, *word), "RFLAGS.RF is clear");
            }
            (Nothing(word), Seen::Retried) => {
                let mut found = [0; 8];
                guest.read(fault.address, &mut found).unwrap();
                assert_eq!((u64::from_le_bytes(found), registers.rip), (*word, fault.rip.0));
            }
            (Failure(why), Seen::LeftOut(said)) => {
                assert!(said.contains(why), "no `{why}` in `{said}`");
                assert_eq!((result, registers.rip), (0, fault.rip.0));
            }
            _ => panic!("{faults:?}: expected {expected:?}, saw {seen:?}"),
        }
    }
}

fn stop() {
    let decide: Decide = |_, _| Ok(Verdict::Stop("that will do".into()));
    let outcome = Guest::new("scenario=verdict").hook("test", Changes(decide)).run().balanced();
    assert_eq!(outcome.summary.stop, Stop::Hook { hook: "test".to_owned(), detail: "that will do".to_owned() });
    assert!(!outcome.console.contains("verdict: saw="), "{outcome}");
    let mut guest = MockGuest::new(0);
    assert_eq!(guest.take(&Changes(decide), &read_fault(AT)), Seen::Stopped("that will do".to_owned()));
}
