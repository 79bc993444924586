//! Tests with the mock guest.

use std::thread;

use super::*;
use crate::tests::fault;
use serde_json::json;
use vector14_hook::mock::{Call, MockGuest, Outcome};
use vector14_hook::{Access, ErrorCode, Exception, Va};

fn create(script: &str) -> std::result::Result<Script, OptionsError> {
    create_with(script, 5000)
}

fn create_with(script: &str, operations: u32) -> std::result::Result<Script, OptionsError> {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("hook.rhai"), script).unwrap();
    let table = json!({"file": "hook.rhai", "operations": operations});
    Script::new(&Options::new(table.as_object().unwrap().clone(), folder.path()))
}

fn hook(body: &str) -> Script {
    create(&format!("fn on_fault(fault) {{\n{body}\n}}")).unwrap_or_else(|error| panic!("{error}"))
}

fn guest() -> MockGuest {
    let mut guest = MockGuest::new(0);
    guest.load(fault(0, 0).rip, &[0x48, 0x89, 0x07], Access::USER | Access::EXECUTE);
    guest.load(Va(0x5000), &[1, 2, 3, 4, 5, 6, 7, 0xff], Access::USER);
    guest
}

#[test]
fn every_verdict_can_be_given() {
    let usual = Outcome::Handled { address: Va(0x7123), error_code: ErrorCode::USER | ErrorCode::WRITE };
    for (body, outcome) in [
        ("", usual.clone()),
        ("pass()", usual.clone()),
        ("reinject()", usual),
        (
            "reinject_as(fault.address + 8, 7)",
            Outcome::Handled { address: Va(0x712b), error_code: ErrorCode::from_bits_retain(7) },
        ),
        ("resolve()", Outcome::Retried),
        ("skip()", Outcome::Skipped),
        ("raise(6)", Outcome::Raised(Exception::INVALID_OPCODE)),
        ("raise(13, 8)", Outcome::Raised(Exception::general_protection(8))),
        ("stop(`at ${hex(fault.address)}`)", Outcome::Stopped("at 0x7123".to_owned())),
    ] {
        assert_eq!(guest().take(&hook(body), &fault(0, 0x7123)), outcome, "{body}");
    }
}

#[test]
fn a_script_sees_the_fault_registers_memory_and_the_instruction() {
    let (mut guest, hook) = (
        guest(),
        hook(
            r#"
            if !(fault.user && fault.write) || fault.fetch || fault.present || fault.reserved { return; }
            set_reg("rax", reg("rax") + 1);
            log(`${fault.sequence} ${hex(read_u64(0x5000))} ${read_u16(0x5000)} ${instruction()} ${fault.cs}`);
            skip()
            "#,
        ),
    );
    guest.registers_mut().rax = 41;
    assert_eq!(guest.take(&hook, &fault(3, 0x7000)), Outcome::Skipped);
    assert_eq!(guest.registers().rax, 42);
    let said = Call::Log("3 0xff07060504030201 513 mov [rdi],rax 51".to_owned());
    assert!(guest.take_calls().contains(&said));
}

#[test]
fn this_stays_and_is_each_vcpus_own() {
    let hook = create(
        "fn on_fault(fault) { this.n = (this.n ?? 0) + 1; log(`${this.vcpu} ${this.n}`) } fn on_end() { log(`end ${this.n}`) }",
    );
    let hook = hook.unwrap_or_else(|error| panic!("{error}"));
    let mut guest = MockGuest::new(0);
    thread::scope(|scope| {
        for vcpu in 0..2 {
            let (mut guest, hook) = (guest.clone(), &hook);
            scope.spawn(move || (0..50).for_each(|_| drop(guest.take(hook, &Fault { vcpu, ..fault(0, 0) }))));
        }
    });
    assert_eq!(hook.on_end(&mut guest), Report::default());
    let logged = guest.take_calls();
    let times = |text: &str| logged.iter().filter(|call| **call == Call::Log(text.to_owned())).count();
    assert_eq!([times("0 50"), times("1 50"), times("end 50")], [1, 1, 2]);
}

#[test]
fn what_goes_wrong_names_file_line_and_column() {
    for (body, place, said) in [
        ("  nonsense", "hook.rhai:2:3: ", "Variable not found: nonsense"),
        ("let x = 1;\nread_u8(0x9000)", "hook.rhai:3:1: ", "virtual address 0x9000 is not mapped"),
        ("reg(\"eax\")", "hook.rhai:2:1: ", "`eax` is not a register"),
        ("raise(300)", "hook.rhai:2:1: ", "300 is not a vector"),
        ("loop {}", "hook.rhai:", "Too many operations"),
        ("fn_that_is_not()", "hook.rhai:2:1: ", "fn_that_is_not"),
        ("sleep(1)", "hook.rhai:2:1: ", "can't sleep"),
        ("42", "hook.rhai: ", "type i64, which is not a verdict"),
    ] {
        let Outcome::LeftOut(why) = guest().take(&hook(body), &fault(0, 0x7000)) else { panic!("{body}") };
        assert!(why.contains(place) && why.contains(said), "{body}: {why}");
    }
    let body = "let s = \"xxxxxxxx\"; loop { s += s; }";
    assert!(matches!(guest().take(&hook(body), &fault(0, 0)), Outcome::LeftOut(_)), "memory is bounded");
    let deep = format!("{}1{}", "(1 + ".repeat(20), ")".repeat(20));
    let recursion = format!("fn f(n) {{ {deep} + f({deep}) }} fn on_fault(fault) {{ f(1) }}");
    let recursion = create(&recursion).unwrap_or_else(|error| panic!("{error}"));
    let outcome = thread::spawn(move || guest().take(&recursion, &fault(0, 0))).join().unwrap();
    assert!(matches!(outcome, Outcome::LeftOut(_)), "the stack is bounded, which is a thread's 2 MiB: {outcome:?}");
}

/// Scripts whose `this` would grow for as long as the guest faults.
#[test]
fn what_this_keeps_is_bounded() {
    let text = "let text = `x`; for n in 0..13 { text += text; }";
    for (body, said) in [
        (format!("{text} this[`${{fault.sequence}}`] = text + fault.sequence;"), "`this` has"),
        (format!("{text} this[text + fault.sequence] = 1;"), "may have 262144: keep less in it"),
        ("this.all = this.all ?? []; this.all.push([fault, fault.rip]);".to_owned(), "Size of array/BLOB too large"),
        ("this.inner = #{ inner: this.inner };".to_owned(), "nested deeper than 16 levels"),
        (format!("{text} this.verdict = stop(text);"), "holds a value of type Verdict"),
        ("this.made = Fn(`pass`);".to_owned(), "holds a value of type Fn"),
    ] {
        let (mut guest, hook) = (guest(), hook(&body));
        let left_out = (0..20_000).find_map(|n| match guest.take(&hook, &fault(n, 0)) {
            Outcome::LeftOut(why) => Some(why),
            _ => None,
        });
        let why = left_out.unwrap_or_else(|| panic!("{body}"));
        assert!(why.contains("hook.rhai:") && why.contains(said), "{body}: {why}");
    }
}

/// Runs on a thread's 2 MiB stack, because nested values are dropped and counted by recursion.
#[test]
fn values_inside_of_each_other_do_not_use_up_the_stack() {
    for body in [
        "let all = []; loop { all = [all]; }",
        "let all = #{}; loop { all = #{ all: all }; }",
        "let all = 0; loop { all = [#{ all: all }]; }",
    ] {
        let hook = create_with(&format!("fn on_fault(fault) {{ {body} }}"), 100_000);
        let hook = hook.unwrap_or_else(|error| panic!("{error}"));
        let outcome = thread::spawn(move || guest().take(&hook, &fault(0, 0))).join().unwrap();
        assert!(matches!(outcome, Outcome::LeftOut(_)), "{body}: {outcome:?}");
    }
}

#[test]
fn an_error_can_be_caught() {
    let body = "try { read_u8(0x9000) } catch (error) { return stop(error) }";
    let said = "virtual address 0x9000 is not mapped by the guest".to_owned();
    assert_eq!(guest().take(&hook(body), &fault(0, 0)), Outcome::Stopped(said));
}

#[test]
fn a_bad_script_is_found_before_the_guest_runs() {
    for (script, said) in [
        ("fn on_fault(fault) {\n  pass(\n}", "hook.rhai:3:1: "),
        ("fn on_fault() { }", "has no function `on_fault(fault)`"),
        ("fn on_fault(f) { eval(\"1\") }", "hook.rhai:1:"),
    ] {
        let error = create(script).err().unwrap();
        assert_eq!(error.key.as_deref(), Some("file"));
        assert!(error.message.contains(said), "{error}");
    }
    for (bad, key, got) in
        [(json!({}), None, "file"), (json!({"file": "none.rhai"}), Some("file"), "/etc/v14/none.rhai: No such file")]
    {
        let error = (TYPE.check)(&vector14_hook::mock::options(bad)).unwrap_err();
        assert_eq!(error.key.as_deref(), key, "{error}");
        assert!(error.message.contains(got), "{error}");
    }
}
