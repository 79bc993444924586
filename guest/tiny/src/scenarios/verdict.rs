//! `verdict`: one fault, on which the host may give any verdict. The guest prints what it saw.

use vector14_guest_abi::window::VERDICT;

use crate::cmdline::Cmdline;
use crate::cpu::{self, Cpu};
use crate::fault::Action;
use crate::idt::{IDT, PAGE_FAULT, VECTORS};
use crate::paging::{NO_EXECUTE, PRESENT, USER, entry};
use crate::window::open;
use crate::{frames, say};

use core::sync::atomic::Ordering::Relaxed;

/// Bytes that are not an instruction in 64-bit mode.
const GARBAGE: u64 = 0x0606_0606_0606_0606;

pub(super) fn run(cmdline: &Cmdline) {
    let pte = &open(&VERDICT, 1, Action::Resume)[0];
    let vector = cmdline.number("vector");
    if vector >= VECTORS as u64 {
        cmdline.refuse("vector", "below 32");
    }
    spoil_gate(cmdline, vector as usize);
    let cpu = cpu::this();
    cpu.last.vector.store(u64::MAX, Relaxed);
    cpu.expected.store(vector, Relaxed);
    let (ring, at) = (cmdline.ring(), VERDICT.start);
    let result = match cmdline.value("access") {
        "load" => ring.load(at),
        "fetch" => ring.fetch(at),
        "garbage" => {
            let frame = frames::take_zeroed(1);
            entry(frame, 0).store(GARBAGE, Relaxed);
            pte.store(frame | PRESENT | USER | NO_EXECUTE, Relaxed);
            ring.fetch(at)
        }
        _ => cmdline.refuse("access", "load, fetch or garbage"),
    };
    cpu.expected.store(0, Relaxed);
    report(cpu, result);
}

/// Makes the gate of `vector` one that the CPU would not go through, or not with the stack and segment of gate 14.
fn spoil_gate(cmdline: &Cmdline, vector: usize) {
    let gate = IDT.gate(vector);
    match cmdline.value("gate") {
        "good" => {}
        "absent" => gate.remove(),
        "stack" => gate.change_low(1 << 32),
        "segment" => gate.change_low(1 << 19),
        _ => cmdline.refuse("gate", "good, absent, stack or segment"),
    }
}

fn report(cpu: &Cpu, result: u64) {
    let last = &cpu.last;
    let [vector, address, error] = [&last.vector, &last.address, &last.error].map(|field| field.load(Relaxed));
    match vector {
        u64::MAX => say!("saw=nothing result={result:#x}"),
        vector if vector == PAGE_FAULT as u64 => {
            say!("saw=handler address={address:#x} error={error:#x} result={result:#x}");
        }
        vector => say!("saw=exception vector={vector} error={error:#x} result={result:#x}"),
    }
}
