//! Sample faults and options for tests.

use serde_json::{Map, Value};

use super::ROOT;
use crate::{Cr3, ErrorCode, Fault, Options, Va};

/// A write from user mode to an unmapped page. Override fields as needed: `Fault { vcpu: 1, ..write_fault(0x1000) }`.
#[must_use]
pub fn write_fault(address: u64) -> Fault {
    Fault {
        sequence: 0,
        vcpu: 0,
        address: Va(address),
        error_code: ErrorCode::USER | ErrorCode::WRITE,
        cs: 0x33,
        rip: Va(0x40_1000),
        rsp: Va(0x7fff_0000),
        ss: 0x2b,
        rflags: 0x246,
        cr3: Cr3(ROOT.0),
    }
}

/// A read from user mode from an unmapped page.
#[must_use]
pub fn read_fault(address: u64) -> Fault {
    Fault { error_code: ErrorCode::USER, ..write_fault(address) }
}

/// Options as from a config file in `/etc/v14`; `value` is a table.
///
/// # Panics
/// If `value` is not a table.
#[must_use]
pub fn options(value: Value) -> Options {
    let values: Map<String, Value> = serde_json::from_value(value).expect("a table of options");
    Options::new(values, "/etc/v14")
}
