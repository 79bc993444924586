//! `idt`: changes to the descriptor tables while an interceptor owns a gate in them.
//!
//! Each step prints a line before it faults: an exit from the guest, at which an interceptor can look at the table.

use vector14_guest_abi::window::{DEMAND, PAGE_SIZE};

use crate::exception::PageFaultHandler;
use crate::idt::{IDT, Idt, PAGE_FAULT};
use crate::probe::Ring;
use crate::window::open_demand;
use crate::{check, cpu, say};

use core::sync::atomic::Ordering::Relaxed;

static SECOND: Idt = Idt::new();
static THIRD: Idt = Idt::new();

pub(super) fn run() {
    open_demand(&DEMAND, 16);
    let (first, second) = (PageFaultHandler::First, PageFaultHandler::Second);
    let mut pages = (DEMAND.start..).step_by(PAGE_SIZE as usize);
    let mut expect = |handler, step| {
        say!("{step}");
        touch(&mut pages, handler);
    };
    expect(first, "the table that the guest booted with");

    SECOND.copy(&IDT);
    SECOND.gate(PAGE_FAULT).set(second.address());
    SECOND.load();
    expect(second, "another table, another handler");

    SECOND.gate(PAGE_FAULT).set(first.address());
    expect(first, "gate 14 rewritten in place");

    THIRD.copy(&SECOND);
    THIRD.load();
    expect(first, "a copy of the table, gate 14 as it was found");

    let gate = THIRD.gate(PAGE_FAULT).read();
    THIRD.gate(PAGE_FAULT).set(second.address());
    expect(second, "gate 14 read, then rewritten");
    THIRD.gate(PAGE_FAULT).write(gate);
    expect(first, "gate 14 restored to what was read");

    IDT.load();
    expect(first, "the first table again");
}

/// Touches a page, and checks that `handler` counted the fault and the other did not.
fn touch(pages: &mut impl Iterator<Item = u64>, handler: PageFaultHandler) {
    let cpu = cpu::this();
    let counts = || (cpu.faults.load(Relaxed), cpu.second_faults.load(Relaxed));
    let (first, second) = counts();
    let page = pages.next().expect("pages enough");
    Ring::Three.load(page);
    let by_second = matches!(handler, PageFaultHandler::Second) as u64;
    check!(1 - by_second, counts().0 - first, "faults of the first handler");
    check!(by_second, counts().1 - second, "faults of the second handler");
}
