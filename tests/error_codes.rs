//! For every combination of error-code bits that can be made, the host sees the same error code, CR2 and RIP as the
//! guest's handler.

use std::collections::BTreeSet;

use libtest_mimic::Trial;

use vector14_hook::{ErrorCode, Fault, Guest as Handle, Hook, Result};

use crate::harness::{Guest, Oracle, Recorder, emulated_by_qemu, kvm_test, off_and_on};

pub fn tests() -> Vec<Trial> {
    vec![
        kvm_test("error-codes", error_codes),
        kvm_test("error-codes::a_wrong_one_does_not_escape_the_oracle", wrong_codes),
    ]
}

fn error_codes() {
    let alone = off_and_on("scenario=error-codes");
    let recorder = Recorder::default();
    let outcome = Guest::new("scenario=error-codes").hook("recorder", recorder.clone()).run().passed();
    assert_eq!(outcome.console, alone.console);

    let of_guest: Vec<[u64; 3]> = outcome.console.lines().filter_map(fault_line).collect();
    let of_host: Vec<[u64; 3]> = recorder
        .faults()
        .iter()
        .map(|fault| [fault.address.0, u64::from(fault.error_code.bits()), fault.rip.0])
        .collect();
    assert_eq!(of_host, of_guest, "{outcome}");

    // The combinations of P, W, U and I that are possible: a fetch is not a write, and RSVD comes with P.
    let seen: BTreeSet<u64> = of_host.iter().map(|[_, code, _]| *code).collect();
    let expected = [0x00, 0x02, 0x10, 0x04, 0x06, 0x14, 0x03, 0x11, 0x05, 0x07, 0x15, 0x09, 0x0b, 0x0d, 0x0f];
    for code in expected {
        let reserved = code & 0x8 != 0;
        let code = if reserved && emulated_by_qemu() { code & !1 } else { code };
        assert!(seen.contains(&code), "no fault with error code {code:#x}\n{outcome}");
    }
}

/// The numbers in a line `error-codes: address=0x... error=0x... rip=0x...`.
fn fault_line(line: &str) -> Option<[u64; 3]> {
    let number = |key: &str| {
        let digits = line.split_whitespace().find_map(|word| word.strip_prefix(key))?;
        u64::from_str_radix(digits.strip_prefix("0x")?, 16).ok()
    };
    Some([number("address=")?, number("error=")?, number("rip=")?])
}

/// Shows each fault to the oracle with one bit of the error code inverted.
struct Liar {
    bit: ErrorCode,
    oracle: Oracle,
}

impl Hook for Liar {
    fn on_fault(&self, fault: &Fault, guest: &mut dyn Handle) -> Result {
        self.oracle.on_fault(&Fault { error_code: fault.error_code ^ self.bit, ..*fault }, guest)
    }
}

/// The oracle, on which other tests rely, finds every wrong error code.
fn wrong_codes() {
    for bit in [ErrorCode::PRESENT, ErrorCode::WRITE, ErrorCode::USER, ErrorCode::RESERVED, ErrorCode::FETCH] {
        let oracle = Oracle::default();
        let outcome =
            Guest::new("scenario=error-codes").hook("liar", Liar { bit, oracle: oracle.clone() }).run().passed();
        let disagreements = oracle.disagreements();
        assert_eq!(disagreements.len() as u64, outcome.summary.faults.total, "{bit}\n{outcome}");
        for words in ["hardware: error code", "entry at", "which is", "bytes at"] {
            assert!(disagreements[0].contains(words), "no `{words}` in {}", disagreements[0]);
        }
    }
}
