//! The scenarios, one file each, and what they share.

mod chatter;
mod crash;
mod demand;
mod demo;
mod drip;
mod echo;
mod error_codes;
mod gate_absent;
mod hidden;
mod hole;
mod idt;
mod idt_copy;
mod idt_outside;
mod idt_rewrite;
mod inner_guest;
mod jit;
mod keys;
mod looping;
mod nested;
mod no_room;
mod noexec;
mod paged;
mod patient;
mod quiet;
mod raise;
mod readonly;
mod reserved;
mod ring0;
mod shootdown;
mod skip;
mod smp;
mod spin;
mod stack_mmio;
mod stack_unmapped;
mod storm;
mod tables_loop;
mod trap_gate;
mod twice;
mod verdict;

use core::sync::atomic::{Ordering::Relaxed, Ordering::SeqCst, compiler_fence};

use crate::cmdline::Cmdline;
use crate::{check, cpu, quirks, say};

/// Error-code bits (SDM vol. 3A, 5.7): a protection violation, a write, a reserved bit, a fetch. U depends on
/// the ring.
const P: u64 = 1 << 0;
const W: u64 = 1 << 1;
const RSVD: u64 = 1 << 3;
const I: u64 = 1 << 4;

/// Scenarios that print nothing before they begin: two make no exit, one prints its own text.
const UNANNOUNCED: [&str; 3] = ["quiet", "spin", "demo"];

/// Runs the scenario that the command line names. Returns if it passed.
///
/// It is announced first. The exits that this causes let an interceptor arm itself before the first fault.
pub fn run(cmdline: &Cmdline) {
    if !UNANNOUNCED.contains(&cmdline.scenario()) {
        say!("{}", cmdline.summary());
    }
    match cmdline.scenario() {
        "demo" => demo::run(),
        "demand" => demand::run(cmdline),
        "drip" => drip::run(cmdline),
        "hidden" => hidden::run(cmdline),
        "hole" => hole::run(cmdline),
        "patient" => patient::run(cmdline),
        "jit" => jit::run(cmdline),
        "readonly" => readonly::run(cmdline),
        "noexec" => noexec::run(),
        "reserved" => reserved::run(),
        "ring0" => ring0::run(),
        "error-codes" => error_codes::run(),
        "keys" => keys::run(),
        "twice" => twice::run(),
        "nested" => nested::run(cmdline),
        "skip" => skip::run(),
        "raise" => raise::run(cmdline),
        "verdict" => verdict::run(cmdline),
        "idt" => idt::run(),
        "inner-guest" => inner_guest::run(),
        "trap-gate" => trap_gate::run(),
        "quiet" => quiet::run(cmdline),
        "smp" => smp::run(cmdline),
        "shootdown" => shootdown::run(cmdline),
        "paged" => paged::run(cmdline),
        "loop" => looping::run(),
        "storm" => storm::run(cmdline),
        "chatter" => chatter::run(cmdline),
        "echo" => echo::run(cmdline),
        "spin" => spin::run(),
        "crash" => crash::run(),
        "idt-readonly" => idt_copy::readonly(),
        "idt-absent" => idt_copy::absent(cmdline),
        "idt-outside" => idt_outside::run(),
        "idt-rewrite" => idt_rewrite::run(cmdline),
        "tables-loop" => tables_loop::run(),
        "stack-unmapped" => stack_unmapped::run(cmdline),
        "stack-mmio" => stack_mmio::run(cmdline),
        "gate-absent" => gate_absent::run(),
        "no-room" => no_room::run(cmdline),
        name => panic!("{name} is listed, but is nowhere"),
    }
}

/// Runs `access`, and checks that it causes `count` page faults in the guest's first handler, on this CPU.
fn faults<T>(count: u64, access: impl FnOnce() -> T) -> T {
    let cpu = cpu::this();
    let before = cpu.faults.load(Relaxed);
    // The compiler must not move the access out from between the two reads of the count.
    compiler_fence(SeqCst);
    let result = access();
    compiler_fence(SeqCst);
    check!(count, cpu.faults.load(Relaxed) - before, "faults");
    result
}

/// Runs `access`, and checks that it causes one page fault, with this address and error code.
fn fault<T>(address: u64, error: u64, access: impl FnOnce() -> T) -> T {
    let result = faults(1, access);
    let last = &cpu::this().last;
    check!(address, last.address.load(Relaxed), "CR2");
    let error = quirks::reserved_bit_error(error);
    check!(error, last.error.load(Relaxed), "error code of the fault at {address:#x}");
    result
}
