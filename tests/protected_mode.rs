//! Faults outside of long mode, in 32-bit and PAE paging: each verdict has the same effect as in long mode.

use libtest_mimic::Trial;
use tempfile::TempDir;
use vector14::config::{BootConfig, Config, EngineChoice, Kernel};
use vector14_guest_abi::protected_mode::{FILL, OTHER_ERROR, OTHER_OFFSET, RAISED_ERROR, WINDOW};
use vector14_hook::{Access, ErrorCode, Exception, Fault, Guest as Handle, Hook, PAGE_SIZE, Result, Verdict};

use crate::harness::{Guest, Oracle, Outcome, exception_bitmap_test, of_gate, protected_mode_test};

pub fn tests() -> Vec<Trial> {
    use EngineChoice::{ExceptionBitmap, Gate};
    let of_bitmap = [
        exception_bitmap_test("protected-mode::32_bit_paging", || every_verdict(ExceptionBitmap, "paging=32")),
        exception_bitmap_test("protected-mode::pae_paging", || every_verdict(ExceptionBitmap, "paging=pae")),
        exception_bitmap_test("protected-mode::without_an_idt", without_an_idt),
    ];
    let of_gate = of_gate(vec![
        protected_mode_test("protected-mode::gate::32_bit_paging", || every_verdict(Gate, "paging=32")),
        protected_mode_test("protected-mode::gate::pae_paging", || every_verdict(Gate, "paging=pae")),
    ]);
    of_bitmap.into_iter().flatten().chain(of_gate).collect()
}

/// Gives the fault on each page of the window that page's verdict.
struct PageByPage;

impl Hook for PageByPage {
    fn on_fault(&self, fault: &Fault, guest: &mut dyn Handle) -> Result {
        let offset = fault.address.0.wrapping_sub(u64::from(WINDOW));
        Ok(match offset / PAGE_SIZE {
            1 => {
                let frame = guest.allocate_page()?;
                let page: Vec<u8> = FILL.to_le_bytes().repeat(1024);
                guest.write_physical(frame, &page)?;
                guest.map(fault.address.page(), frame, Access::WRITE)?;
                let mut word = [0; 4];
                guest.read(fault.address, &mut word)?;
                assert_eq!(u32::from_le_bytes(word), FILL);
                Verdict::Resolve
            }
            2 => Verdict::Skip,
            3 => Verdict::Raise(Exception::general_protection(RAISED_ERROR)),
            4 => Verdict::ReinjectAs {
                address: fault.address.offset(u64::from(OTHER_OFFSET)),
                error_code: ErrorCode::from_bits_retain(OTHER_ERROR),
            },
            _ => Verdict::Pass,
        })
    }
}

/// Runs the multiboot kernel with this command line, and checks the error code of each fault.
fn run(engine: EngineChoice, cmdline: &str) -> Outcome {
    let folder = TempDir::new().unwrap();
    let kernel = folder.path().join("kernel");
    std::fs::write(&kernel, vector14_guest::MULTIBOOT).unwrap();
    let boot = BootConfig { cmdline: cmdline.to_owned(), ..BootConfig::of(Kernel::Path(kernel)) };
    let guest = Guest::of(Config { boot, ..Config::tiny("") }).engine(engine);
    let oracle = Oracle::default();
    let outcome = guest.hook("oracle", oracle.clone()).hook("page-by-page", PageByPage).run().passed();
    oracle.agreed(&outcome);
    outcome
}

fn every_verdict(engine: EngineChoice, cmdline: &str) {
    let outcome = run(engine, cmdline).guest_saw_what_was_reinjected();
    let verdicts = outcome.summary.verdicts;
    let counts = (verdicts.reinject, verdicts.resolve, verdicts.skip, verdicts.raise);
    assert_eq!(counts, (3, 1, 1, 1), "{outcome}");
    // The gate's page has other data in it, and KVM emulates only some writes to that, so the page is not made
    // read-only.
    let not_kept = |note: &String| note.contains("other data of a protected-mode guest");
    let expected = usize::from(engine == EngineChoice::Gate);
    assert!(outcome.summary.notes.len() == expected && outcome.summary.notes.iter().all(not_kept), "{outcome}");
}

/// The guest has paging but no IDT: only the host can handle its fault.
fn without_an_idt() {
    let outcome = run(EngineChoice::ExceptionBitmap, "no-idt");
    assert_eq!((outcome.summary.faults.total, outcome.summary.verdicts.resolve), (1, 1), "{outcome}");
}
