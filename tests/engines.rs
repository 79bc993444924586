//! The two engines compared: which one `auto` takes, that neither a guest nor a hook can tell them apart, and the
//! filter that only `exception-bitmap` has.

use libtest_mimic::Trial;
use vector14::config::{EngineChoice, ErrorCodeFilter};
use vector14_guest_abi::window::{HIDDEN, LOOP, RAISE, SKIP};
use vector14_hook::{Access, ErrorCode, Exception, Fault, Guest as Handle, Hook, Result, Verdict};

use crate::harness::engine::lacks_exception_bitmap;
use crate::harness::{
    Act, Command, Guest, Oracle, Outcome, Recorder, emulated_by_qemu, exception_bitmap_test, kvm_test,
};

pub fn tests() -> Vec<Trial> {
    let mut tests = Vec::new();
    // For a stock KVM. The tests below are for a KVM with the capability.
    if lacks_exception_bitmap().is_some() {
        tests.extend([
            kvm_test("engines::auto_falls_back_to_gate", auto_falls_back),
            kvm_test("engines::a_stock_kvm_is_told", a_stock_kvm_is_told),
        ]);
    }
    let both = [
        exception_bitmap_test("engines::auto_takes_the_exception_bitmap", auto_takes_it),
        exception_bitmap_test("engines::nobody_can_tell_them_apart", nobody_can_tell),
        exception_bitmap_test("engines::faults_that_a_filter_keeps_in_the_guest_cost_no_exit", filter),
    ];
    tests.extend(both.into_iter().flatten());
    tests
}

const AUTO: &str = "[boot]\nkernel = \"tiny\"\ncmdline = \"scenario=demand\"\n[intercept]\nengine = \"auto\"\n";

fn auto_falls_back() {
    let finished = Command::run_config(AUTO).finish();
    assert_eq!((finished.status(), &finished.summary()["engine"]), (Some(0), &"gate".into()), "{finished}");
    let doctor = Command::new(&["doctor"]).finish();
    for words in ["engine exception-bitmap\tcan't run", "KVM_CAP_X86_EXCEPTION_EXIT", "engine auto\t\tselects gate"] {
        assert!(doctor.stdout().contains(words), "no `{words}`\n{doctor}");
    }
}

fn a_stock_kvm_is_told() {
    let told = ["KVM_CAP_X86_EXCEPTION_EXIT", "make kvm-module", "kvm/README.md"];
    let wanted = AUTO.replace("auto", "exception-bitmap");
    Command::run_config(&wanted).finish().failed_with(3, &told);
    let filtered = format!("{AUTO}error_code = {{ mask = 0x1, match = 0x0 }}\n");
    Command::run_config(&filtered).finish().failed_with(3, &told);
    let gate = filtered.replace("auto", "gate");
    Command::run_config(&gate).finish().failed_with(2, &["config.toml:6", "gate sees every fault"]);
    Command::new(&["bench", "--engine", "exception-bitmap"]).finish().failed_with(3, &told);
}

fn auto_takes_it() {
    let finished = Command::run_config(AUTO).finish();
    assert_eq!((finished.status(), &finished.summary()["engine"]), (Some(0), &"exception-bitmap".into()), "{finished}");
    assert_eq!(finished.summary()["exits"]["kick"], 0, "it needs no beat\n{finished}");
}

/// Maps the pages of the `hidden` scenario.
struct Fill;

impl Hook for Fill {
    fn on_fault(&self, fault: &Fault, guest: &mut dyn Handle) -> Result {
        if !HIDDEN.contains(&fault.address.0) {
            return Ok(Verdict::Pass);
        }
        let frame = guest.allocate_page()?;
        guest.write_physical(frame, &[0x5a; 4096])?;
        guest.map(fault.address.page(), frame, Access::WRITE | Access::USER)?;
        Ok(Verdict::Resolve)
    }
}

/// The hook that a scenario needs; for any other scenario, one that only records.
fn hook(scenario: &str) -> Box<dyn Hook> {
    let act = |window, verdict| Box::new(Act { window, verdict });
    match scenario {
        "hidden" => Box::new(Fill),
        "skip" => act(SKIP, Verdict::Skip),
        "raise" => act(RAISE, Verdict::Raise(Exception::general_protection(0x1234))),
        "loop" => act(LOOP, Verdict::Resolve),
        _ => Box::new(Recorder::default()),
    }
}

fn run(scenario: &str, parameters: &str, engine: EngineChoice) -> (Outcome, Vec<Fault>) {
    let (recorder, oracle) = (Recorder::default(), Oracle::default());
    let guest = Guest::new(&format!("scenario={scenario} {parameters}")).engine(engine);
    let guest = guest.hook("recorder", recorder.clone()).hook("oracle", oracle.clone());
    let outcome = guest.boxed_hook(scenario, hook(scenario)).run().passed();
    oracle.agreed(&outcome);
    (outcome, recorder.faults())
}

/// A fault as real hardware reports it. The engine `gate` sees the RFLAGS that the CPU pushed, and QEMU does not set RF
/// there (SDM vol. 3B, 18.3.1.1).
fn as_any_cpu(fault: &Fault) -> Fault {
    const RFLAGS_RF: u64 = 1 << 16;
    let rflags = if emulated_by_qemu() { fault.rflags | RFLAGS_RF } else { fault.rflags };
    Fault { rflags, ..*fault }
}

/// With both engines, the guest prints the same, the verdicts add up to the same counts, and each fault is the same,
/// down to its last flag.
fn nobody_can_tell() {
    let scenarios = [
        ("demand", "pages=200"),
        ("readonly", ""),
        ("noexec", ""),
        ("reserved", ""),
        ("ring0", ""),
        ("error-codes", ""),
        ("twice", ""),
        ("nested", ""),
        ("idt", ""),
        ("idt-readonly", ""),
        ("tables-loop", ""),
        ("storm", "count=1000 ring=0"),
        ("storm", "count=1000 ring=3"),
        ("hidden", ""),
        ("skip", ""),
        ("raise", "code=0x1234"),
        ("loop", ""),
    ];
    for (scenario, parameters) in scenarios {
        let (gate, of_gate) = run(scenario, parameters, EngineChoice::Gate);
        let (bitmap, of_bitmap) = run(scenario, parameters, EngineChoice::ExceptionBitmap);
        assert_eq!(bitmap.console, gate.console, "{scenario}");
        assert_eq!(bitmap.summary.verdicts, gate.summary.verdicts, "{scenario}\n{bitmap}\n{gate}");
        assert_eq!(of_bitmap.len(), of_gate.len(), "{scenario}\n{bitmap}");
        for (one, other) in of_bitmap.iter().zip(&of_gate) {
            assert_eq!(as_any_cpu(one), as_any_cpu(other), "{scenario}\n{bitmap}");
        }
    }
}

/// Every other page is touched by a write. Only those faults leave the guest, whose handler counts all.
fn filter() {
    let all = Guest::new("scenario=demand pages=100").engine(EngineChoice::ExceptionBitmap).run().passed();
    let filter = ErrorCodeFilter { mask: ErrorCode::WRITE, value: ErrorCode::WRITE };
    let writes = Guest::new("scenario=demand pages=100").engine(EngineChoice::ExceptionBitmap).error_code(filter);
    let writes = writes.run().passed();
    assert_eq!((all.guest_faults(), all.summary.faults.total), (100, 100), "{all}");
    assert_eq!((writes.guest_faults(), writes.summary.faults.total), (100, 50), "{writes}");
    assert_eq!(writes.summary.faults.write, 50, "{writes}");
    assert_eq!(writes.summary.exits.total + 50, all.summary.exits.total, "{writes}\n{all}");
}
