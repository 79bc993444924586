//! Tests of the C ABI with both sides, the host's and the library's, in one program.

use std::time::Duration;

use super::types::MAGIC;
use super::*;
use crate::paging::{Mode, Paging};
use crate::{
    Access, Cr3, ErrorCode, Exception, Guest as _, GuestError, Hook, HookType, Instruction, Options, Pa, Registers,
    Report, Table, Va,
};

#[test]
fn the_magic_number_is_a_text() {
    assert_eq!(MAGIC.to_le_bytes(), *b"v14 hook");
}

/// What a hook does with a fault.
type Act = fn(&crate::Fault, &mut dyn crate::Guest) -> crate::Result;

struct Acts(Act);

impl Hook for Acts {
    fn on_fault(&self, fault: &crate::Fault, guest: &mut dyn crate::Guest) -> crate::Result {
        (self.0)(fault, guest)
    }

    fn on_end(&self, guest: &mut dyn crate::Guest) -> Report {
        let row = vec![guest.elapsed().as_millis().to_string()];
        Report {
            tables: vec![Table { title: "ran".to_owned(), columns: vec!["ms".to_owned()], rows: vec![row] }],
            warnings: vec!["sic".to_owned()],
        }
    }
}

/// A type of hook that does `$act` with each fault, and is called through the ABI.
macro_rules! behind {
    ($act:expr) => {{
        struct Exported;
        impl Export for Exported {
            const TYPE: HookType = HookType {
                name: "acts",
                summary: "acts as a test wants it",
                options: &[crate::OptionDoc { name: "how", value: "word", default: None, help: "which way" }],
                check: |options| options.parse::<std::collections::BTreeMap<String, u32>>().map(drop),
                create: |_| Ok(Box::new(Acts($act))),
            };
        }
        Foreign::local::<Exported>()
    }};
}

fn hook(foreign: &Foreign) -> Box<dyn Hook> {
    foreign.create(&Options::default()).unwrap()
}

const FAULT: crate::Fault = crate::Fault {
    sequence: 1 << 40,
    vcpu: 3,
    address: Va(0xffff_8000_0000_1234),
    error_code: ErrorCode::from_bits_retain(0x8000_8017),
    cs: 0x33,
    rip: Va(0x40_1000),
    rsp: Va(0x7fff_0000),
    ss: 0x2b,
    rflags: 0x246,
    cr3: Cr3(0x1003),
};

/// At least one verdict of each kind; `Raise` with and without an error code.
fn verdicts() -> [crate::Verdict; 8] {
    [
        crate::Verdict::Pass,
        crate::Verdict::Reinject,
        crate::Verdict::ReinjectAs { address: Va(7), error_code: ErrorCode::WRITE },
        crate::Verdict::Resolve,
        crate::Verdict::Skip,
        crate::Verdict::Raise(Exception::INVALID_OPCODE),
        crate::Verdict::Raise(Exception::general_protection(0x18)),
        crate::Verdict::Stop("für immer".into()),
    ]
}

#[test]
fn a_fault_and_every_verdict_cross_unchanged() {
    for kind in crate::VerdictKind::ALL {
        assert!(verdicts().iter().any(|verdict| verdict.kind() == kind), "no verdict of kind {}", kind.name());
    }
    // The sequence number tells the hook which verdict to return.
    let foreign = behind!(|fault, _| {
        assert_eq!(crate::Fault { sequence: 0, ..*fault }, crate::Fault { sequence: 0, ..FAULT });
        let index = usize::try_from(fault.sequence - FAULT.sequence)?;
        Ok(verdicts()[index].clone())
    });
    let hook = hook(&foreign);
    for (verdict, sequence) in verdicts().into_iter().zip(FAULT.sequence..) {
        let got = hook.on_fault(&crate::Fault { sequence, ..FAULT }, &mut Answers::default());
        assert_eq!(got.map_err(|error| error.to_string()), Ok(verdict));
    }
}

#[test]
fn errors_and_panics_keep_their_messages() {
    let error = hook(&behind!(|_, _| Err("no room".into()))).on_fault(&FAULT, &mut Answers::default()).unwrap_err();
    assert_eq!(error.to_string(), "no room");

    let panics = hook(&behind!(|fault, _| panic!("fault {}", fault.vcpu)));
    let payload = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        let _ = panics.on_fault(&FAULT, &mut Answers::default());
    }));
    let text = crate::panics::describe_panic(payload.unwrap_err().as_ref());
    assert!(text.starts_with("fault 3 (") && text.contains("tests.rs:"), "{text}");
}

#[test]
fn options_docs_and_reports_cross() {
    let foreign = behind!(|_, _| Ok(crate::Verdict::Pass));
    assert_eq!((foreign.name(), foreign.summary()), ("acts", "acts as a test wants it"));
    assert_eq!(foreign.options()[0].name, "how");
    let wrong = Options::from_json(r#"{"how": "so"}"#, "/etc").unwrap();
    let error = foreign.check(&wrong).unwrap_err();
    assert!(error.key.as_deref() == Some("how") && error.message.contains("invalid type"), "{error:?}");
    let report = hook(&foreign).on_end(&mut Answers::default());
    assert_eq!((report.tables[0].rows[0][0].as_str(), report.warnings.len()), ("1500", 1));
}

/// The hook makes every call, and compares the answers that arrive with those that the host's guest gives.
#[test]
fn every_call_of_the_guest_arrives_and_its_answer_too() {
    let foreign = behind!(|_, guest| {
        let mut own = Answers::default();
        assert_eq!(guest.registers(), own.registers());
        guest.registers_mut().r15 = 15;
        assert_eq!(guest.registers().r15, 15);
        assert_eq!(guest.system_registers(), own.system_registers());
        assert_eq!(guest.kind(), crate::GuestKind::Linux);
        assert_eq!(guest.address_space(), Cr3(0x1000));
        guest.use_address_space(Cr3(0x5000));
        assert_eq!(guest.address_space(), Cr3(0x5000));
        guest.use_address_space(Cr3(0x1000));
        for address in [Va(0x1000), Va(0x40_0000_0000), Va(0x80_0000_0000), Va(1 << 63)] {
            assert_eq!(guest.walk(address), own.walk(address));
            assert_eq!(guest.translate(address), own.translate(address));
        }
        let mut buffer = [0; 5];
        assert_eq!((guest.read(Va(1), &mut buffer), buffer), (Ok(()), *b"\x01\x01\x01\x01\x01"));
        assert_eq!((guest.read_physical(Pa(2), &mut buffer), buffer), (Ok(()), *b"\x02\x02\x02\x02\x02"));
        assert_eq!(guest.read(Va(0), &mut []), Ok(()));
        assert_eq!(guest.write(Va(1), b"abc"), Err(GuestError::NotMapped(Va(0x61_6263))));
        assert_eq!(guest.write_physical(Pa(1), b"abc"), Err(GuestError::OutsideMemory(Pa(0x61_6263))));
        assert_eq!(guest.compare_exchange(Pa(8), 1, 2), Ok(false));
        assert_eq!(guest.compare_exchange(Pa(8), 2, 2), Ok(true));
        assert_eq!(guest.compare_exchange(Pa(9), 2, 2), Err(GuestError::Contended(Va(9))));
        assert_eq!(guest.allocate_page(), Ok(Pa(0x7000)));
        assert_eq!(guest.free_page(Pa(1)), Err(GuestError::NotTaken(Pa(1))));
        assert_eq!(guest.map(Va(1), Pa(2), Access::EXECUTE), Err(GuestError::Unaligned(0x1_0204)));
        assert_eq!(guest.unmap(Va(0x1000)), own.unmap(Va(0x1000)));
        assert_eq!(guest.protect(Va(0x1000), Access::USER), own.protect(Va(0x1000), Access::USER));
        assert_eq!(guest.flush(), Err(GuestError::Flush(12)));
        assert_eq!(guest.code(), own.code());
        assert_eq!(guest.instruction().as_ref().map(Instruction::len), Ok(1));
        assert_eq!(guest.elapsed(), Duration::from_millis(1500));
        guest.log("written");
        Ok(crate::Verdict::Pass)
    });
    let mut guest = Answers::default();
    assert_eq!(
        hook(&foreign).on_fault(&FAULT, &mut guest).map_err(|error| error.to_string()),
        Ok(crate::Verdict::Pass)
    );
    assert_eq!((guest.registers.r15, guest.log.take()), (15, "written".to_owned()));
}

#[test]
fn every_error_of_the_guest_crosses_unchanged() {
    for error in [
        GuestError::NotMapped(Va(1)),
        GuestError::Malformed(Va(2)),
        GuestError::OutsideMemory(Pa(3)),
        GuestError::AlreadyMapped(Va(4)),
        GuestError::Contended(Va(5)),
        GuestError::Unaligned(6),
        GuestError::PoolExhausted { pages: 7 },
        GuestError::NotTaken(Pa(8)),
        GuestError::UnreadableCode(Va(9)),
        GuestError::NoInstruction(Va(10)),
        GuestError::Flush(11),
        GuestError::NoGuest,
        GuestError::PoolRefused(12),
        GuestError::NoTable(Va(13)),
    ] {
        assert_eq!(Result::<(), GuestError>::from(GuestResult::from(Err(error))), Err(error));
    }
}

#[test]
fn a_descriptor_of_another_make_is_refused() {
    let ours = Prefix::OURS;
    let larger = Sizes { fault: 80, ..ours.sizes };
    for (prefix, mismatch) in [
        (Prefix { magic: 1, ..ours }, Mismatch::Magic(1)),
        (Prefix { version: 9, ..ours }, Mismatch::Version(9)),
        (Prefix { sizes: larger, ..ours }, Mismatch::Size { name: "fault", found: 80, expected: ours.sizes.fault }),
    ] {
        assert_eq!(prefix.check(), Err(mismatch));
    }
    assert_eq!(ours.check(), Ok(()));
}

/// A guest that answers every call with a distinct value.
struct Answers {
    registers: Registers,
    paging: Paging,
    log: std::cell::RefCell<String>,
}

impl Default for Answers {
    fn default() -> Self {
        let registers = Registers { rax: 1, rflags: 18, ..Registers::default() };
        Self {
            registers,
            paging: Paging { cr3: Cr3(0x1000), mode: Mode::Long { levels: 4 }, no_execute: true },
            log: Default::default(),
        }
    }
}

/// Page tables that map the first GiB by one page. The entry of the top-level table for 512 GiB has a reserved bit set.
fn entry(slot: Pa) -> Result<u64, GuestError> {
    Ok(match slot.0 {
        0x1000 => 0x2003,
        0x2000 => 0x4000_00e7,
        0x1008 => 0x83,
        _ => 0,
    })
}

const MAPPING: crate::Mapping = crate::Mapping {
    frame: Pa(0x1000),
    page_size: 2 << 20,
    access: Access::WRITE.union(Access::USER),
    dirty: true,
    slot: Pa(0x3008),
    entry: 0x1067,
};

/// Packs bytes into one number.
fn together(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0, |all, byte| all << 8 | u64::from(*byte))
}

impl crate::Guest for Answers {
    fn registers(&self) -> &Registers {
        &self.registers
    }

    fn registers_mut(&mut self) -> &mut Registers {
        &mut self.registers
    }

    fn system_registers(&self) -> &crate::SystemRegisters {
        const SYSTEM: crate::SystemRegisters =
            crate::SystemRegisters { cr0: 1, cr4: 2, efer: 3, fs_base: Va(4), gs_base: Va(5) };
        &SYSTEM
    }

    fn kind(&self) -> crate::GuestKind {
        crate::GuestKind::Linux
    }

    fn address_space(&self) -> Cr3 {
        self.paging.cr3
    }

    fn use_address_space(&mut self, cr3: Cr3) {
        self.paging.cr3 = cr3;
    }

    fn walk(&self, address: Va) -> Result<crate::Walk, GuestError> {
        self.paging.walk(address, entry)
    }

    fn translate(&self, address: Va) -> Result<crate::Translation, GuestError> {
        self.paging.translate(address, entry)
    }

    fn read(&self, address: Va, buffer: &mut [u8]) -> Result<(), GuestError> {
        buffer.fill(address.0.to_le_bytes()[0]);
        Ok(())
    }

    fn write(&mut self, _address: Va, data: &[u8]) -> Result<(), GuestError> {
        Err(GuestError::NotMapped(Va(together(data))))
    }

    fn read_physical(&self, address: Pa, buffer: &mut [u8]) -> Result<(), GuestError> {
        buffer.fill(address.0.to_le_bytes()[0]);
        Ok(())
    }

    fn write_physical(&mut self, _address: Pa, data: &[u8]) -> Result<(), GuestError> {
        Err(GuestError::OutsideMemory(Pa(together(data))))
    }

    fn compare_exchange(&mut self, address: Pa, current: u64, new: u64) -> Result<bool, GuestError> {
        if address == Pa(8) { Ok(current == new) } else { Err(GuestError::Contended(Va(address.0))) }
    }

    fn allocate_page(&mut self) -> Result<Pa, GuestError> {
        Ok(Pa(0x7000))
    }

    fn free_page(&mut self, page: Pa) -> Result<(), GuestError> {
        Err(GuestError::NotTaken(page))
    }

    fn map(&mut self, page: Va, frame: Pa, access: Access) -> Result<(), GuestError> {
        Err(GuestError::Unaligned(page.0 << 16 | frame.0 << 8 | u64::from(access.bits())))
    }

    fn unmap(&mut self, _page: Va) -> Result<crate::Mapping, GuestError> {
        Ok(MAPPING)
    }

    fn protect(&mut self, _page: Va, access: Access) -> Result<crate::Mapping, GuestError> {
        Ok(crate::Mapping { access, dirty: false, ..MAPPING })
    }

    fn flush(&mut self) -> Result<(), GuestError> {
        Err(GuestError::Flush(12))
    }

    fn code(&self) -> Result<crate::Code, GuestError> {
        Ok(crate::Code { rip: Va(0x1000), bytes: [0x90; 15], count: 3, bits: 64 })
    }

    fn elapsed(&self) -> Duration {
        Duration::from_millis(1500)
    }

    fn log(&self, message: &str) {
        self.log.borrow_mut().push_str(message);
    }
}
