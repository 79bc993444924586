//! Accesses that protection keys forbid fault with PK in the error code.

use libtest_mimic::Trial;
use vector14_guest_abi::window::KEYS_PKRU;
use vector14_hook::ErrorCode;

use crate::harness::{Guest, Oracle, Recorder, kvm_test};

pub fn tests() -> Vec<Trial> {
    vec![kvm_test("keys", keys)]
}

fn keys() {
    Guest::new("scenario=keys").off().run().passed();
    let (oracle, recorder) = (Oracle::with_pkru(KEYS_PKRU), Recorder::default());
    let guest = Guest::new("scenario=keys").hook("oracle", oracle.clone()).hook("recorder", recorder.clone());
    let outcome = guest.run().passed();
    if let Some(none) = outcome.console.lines().find(|line| line.contains("NO PROTECTION KEYS")) {
        eprintln!("keys: {none}");
        return;
    }
    oracle.agreed(&outcome.guest_saw_what_was_reinjected());
    assert!(recorder.faults().iter().all(|fault| fault.error_code.contains(ErrorCode::PROTECTION_KEY)));
}
