//! `idt-rewrite`: changes where gate 14 leads, and faults at once, with no exit in between.

use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

use vector14_guest_abi::window::HIDDEN;

use super::faults;
use crate::cmdline::Cmdline;
use crate::exception::PageFaultHandler::{self, First, Second};
use crate::fault::Action;
use crate::gdt::{GDT, GDT_LIMIT};
use crate::idt::{IDT, Idt, LIMIT, PAGE_FAULT};
use crate::probe::Ring;
use crate::window::open;
use crate::{check, cpu, frames, ring0, say};

/// Limit of an IDT that shares its page.
const SHORT_LIMIT: u16 = (BESIDE - 1) as u16;
/// Where in the IDT's page the scenario keeps what else it is asked to keep there.
const BESIDE: u64 = 0x800;

pub(super) fn run(cmdline: &Cmdline) {
    let (how, rounds) = (cmdline.value("how"), cmdline.number("rounds"));
    open(&HIDDEN, 1, Action::Resume);
    match how {
        "gate" => (0..rounds).for_each(|_| rewrite(&IDT, || ())),
        "shared" => {
            let page = frames::take_zeroed(1);
            let table = copy_to(page);
            // SAFETY: the frame is nobody else's, and the table ends before the counter.
            let counter = unsafe { &*((page + BESIDE) as *const AtomicU64) };
            (0..rounds).for_each(|_| rewrite(table, || _ = counter.fetch_add(1, Relaxed)));
            check!(2 * rounds, counter.load(Relaxed), "the counter in the IDT's page");
        }
        "descriptors" => {
            let page = frames::take_zeroed(1);
            // SAFETY: the frame is nobody else's, and the tables do not overlap.
            unsafe { GDT.copy_to((page + BESIDE) as *mut u8) };
            ring0::load_gdt(page + BESIDE, GDT_LIMIT);
            let table = copy_to(page);
            (0..rounds).for_each(|_| rewrite(table, || ()));
        }
        "table" => {
            let table = copy_to(frames::take_zeroed(1));
            table.gate(PAGE_FAULT).set(Second.address());
            ring0::load_idt(table.address(), LIMIT);
            (0..rounds).for_each(|_| fault_through(Second));
        }
        _ => cmdline.refuse("how", "gate, shared, descriptors or table"),
    }
    say!("{rounds} rounds, and each fault came to the handler that was there");
}

/// Copies the IDT to the page at `frame` and loads it, with a line on the console, for an interceptor to find it.
fn copy_to(frame: u64) -> &'static Idt {
    // SAFETY: zeros are absent gates, and the frame, mapped at its own address, is nobody else's.
    let table = unsafe { &*(frame as *const Idt) };
    table.copy(&IDT);
    ring0::load_idt(frame, SHORT_LIMIT);
    say!("the IDT is at {frame:#x}");
    table
}

/// Points the gate at the second handler and back, and faults both times.
fn rewrite(table: &Idt, meanwhile: impl Fn()) {
    for handler in [Second, First] {
        table.gate(PAGE_FAULT).set(handler.address());
        meanwhile();
        fault_through(handler);
    }
}

fn fault_through(handler: PageFaultHandler) {
    let second = &cpu::this().second_faults;
    let (before, is_second) = (second.load(Relaxed), matches!(handler, Second));
    faults(u64::from(!is_second), || Ring::Three.load(HIDDEN.start));
    check!(before + u64::from(is_second), second.load(Relaxed), "faults of the second handler");
}
