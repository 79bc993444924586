//! `guard`: forbids access to pages.
//!
//! Pages that the guest has mapped are closed as in `watch`, with the same limits. If nothing is mapped, the guest's
//! own page fault is the forbidden access. The option `action` says what to do: raise another exception, stop the VM,
//! or report the access. An access that is only reported goes through: the page is opened for it, until the next fault.
//!
//! With `catch = "user"`, accesses by the kernel are allowed. On a mapped page they do not fault. On an unmapped page,
//! such as the fresh buffer of a `read`, the guest's own handler gets the fault.
//!
//! If the guest can't take the exception, for example because it has no gate for it, the VM stops: the access must not happen.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use serde::Deserialize;
use vector14_hook::paging::Paging;
use vector14_hook::{
    Counter, Exception, Fault, Guest, Hook, HookType, OptionDoc, Options, OptionsError, PerVcpu, Registers, Report,
    Result, Table, Verdict,
};

use crate::address::Number;
use crate::rights::{Catch, Fence, Leaf, PageRange, Space, is_over, set_tripwire, spring_tripwire};
use crate::sighting::{Sighting, Sightings};
use crate::watch::{CATCH, RANGES, SHOW, SPACE};

pub(crate) const TYPE: HookType = HookType {
    name: "guard",
    summary: "forbids access to pages: an access raises an exception, stops the VM, or is reported",
    options: &[
        RANGES,
        OptionDoc {
            name: "action",
            value: "\"raise\" | \"stop\" | \"report\"",
            default: Some("\"raise\""),
            help: "what to do at an access; if the guest can't take the exception, \"raise\" stops the VM",
        },
        OptionDoc {
            name: "vector",
            value: "0..31",
            default: Some("13 (#GP)"),
            help: "the exception to raise; its error code, if it has one, is 0",
        },
        SPACE,
        CATCH,
        SHOW,
    ],
    check: |options| Guard::new(options).map(drop),
    create: |options| Ok(Box::new(Guard::new(options)?)),
};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Settings {
    ranges: Vec<PageRange>,
    #[serde(default)]
    action: ActionName,
    vector: Option<Number>,
    #[serde(default)]
    space: Space,
    #[serde(default)]
    catch: Catch,
    show: Option<Number>,
}

#[derive(Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum ActionName {
    #[default]
    Raise,
    Stop,
    Report,
}

enum Action {
    Raise(Exception),
    Stop,
    Report,
}

struct Guard {
    action: Action,
    fence: Fence,
    sightings: Sightings,
    /// Registers at the first touch.
    registers: OnceLock<Registers>,
    cpus: PerVcpu<Cpu>,
}

#[derive(Default)]
struct Cpu {
    touches: Counter,
    /// The last touch that was left to the guest's own handler. If the handler maps the page, the access is retried,
    /// possibly on another vCPU.
    reported: AtomicU64,
}

impl Guard {
    fn new(options: &Options) -> std::result::Result<Self, OptionsError> {
        let Settings { ranges, action, vector, space, catch, show } = options.parse()?;
        let action = match (action, vector) {
            (ActionName::Raise, vector) => Action::Raise(exception(vector.unwrap_or(Number(13)))?),
            (ActionName::Stop | ActionName::Report, Some(_)) => {
                return Err(OptionsError::new("vector", "vector: only action = \"raise\" raises an exception"));
            }
            (ActionName::Stop, None) => Action::Stop,
            (ActionName::Report, None) => Action::Report,
        };
        Ok(Self {
            action,
            fence: Fence::new(ranges, space, catch.right())?,
            sightings: Sightings::new(show)?,
            registers: OnceLock::new(),
            cpus: PerVcpu::default(),
        })
    }
}

fn exception(Number(number): Number) -> std::result::Result<Exception, OptionsError> {
    let wrong = |why: String| OptionsError::new("vector", format!("vector = {number}: {why}"));
    let vector = u8::try_from(number).map_err(|_| wrong("must be from 0 to 31".to_owned()))?;
    let error_code = Exception::pushes_error_code(vector).then_some(0);
    let exception = Exception { vector, error_code };
    Verdict::Raise(exception).check(&Paging::default()).map_err(|error| wrong(error.to_string()))?;
    Ok(exception)
}

impl Hook for Guard {
    fn on_fault(&self, fault: &Fault, guest: &mut dyn Guest) -> Result {
        if spring_tripwire(fault, guest, self.fence.held()) {
            self.fence.close(fault, guest)?;
            return Ok(Verdict::Resolve);
        }
        let guarded = self.fence.catches(fault) && self.fence.index(fault.address).is_some();
        let leaf = Leaf::at(guest, self.fence.held(), fault.address.page())
            .filter(|leaf| guarded && leaf.lacks(self.fence.right()) && leaf.allows(fault.error_code));
        let concerns = self.fence.concerns(fault.cr3);
        match leaf {
            // A copy of the page tables, of which only the marks are known.
            Some(leaf) if !concerns => Ok(self.open(guest, &leaf)),
            Some(leaf) => self.touched(fault, guest, Some(&leaf)),
            None if is_over(guest, self.fence.held(), fault.address, fault.error_code) => Ok(Verdict::Resolve),
            None if !concerns => Ok(Verdict::Pass),
            None => {
                self.fence.close(fault, guest)?;
                if guarded { self.touched(fault, guest, None) } else { Ok(Verdict::Pass) }
            }
        }
    }

    fn on_refused(&self, fault: &Fault, why: &str) -> Option<String> {
        Some(format!("guarded page touched at {}, by the instruction at {}; {why}", fault.address, fault.rip))
    }

    fn on_end(&self, guest: &mut dyn Guest) -> Report {
        let warnings = self.fence.warnings();
        self.fence.held().give_back(guest);
        let touches: u64 = self.cpus.iter().map(|cpu| cpu.touches.get()).sum();
        let mut tables = Vec::new();
        if touches > 0 {
            tables.push(self.sightings.table(&format!("{touches} touches")));
        }
        tables.extend(self.registers.get().map(register_table));
        Report { tables, warnings }
    }
}

impl Guard {
    /// Handles a touch. `leaf` is the leaf of a closed page; it is `None` for a fault of the guest's own.
    fn touched(&self, fault: &Fault, guest: &mut dyn Guest, leaf: Option<&Leaf>) -> Result {
        self.fence.meet(fault.cr3);
        let cpu = self.cpus.of(fault);
        let key = retry_of(fault);
        let again = self.cpus.iter().any(|cpu| cpu.reported.compare_exchange(key, 0, Relaxed, Relaxed).is_ok());
        if !again {
            cpu.touches.add(1);
            let _ = self.registers.set(*guest.registers());
            self.sightings.add(guest, |guest| Sighting::of(fault, guest));
        }
        match (&self.action, leaf) {
            (Action::Raise(exception), _) => Ok(Verdict::Raise(*exception)),
            (Action::Stop, _) => Ok(Verdict::Stop(Sighting::of(fault, guest).to_string().into())),
            (Action::Report, Some(leaf)) => Ok(self.open(guest, leaf)),
            (Action::Report, None) => {
                if set_tripwire(fault, guest, self.fence.held())? {
                    cpu.reported.store(key, Relaxed);
                }
                Ok(Verdict::Pass)
            }
        }
    }

    fn open(&self, guest: &mut dyn Guest, leaf: &Leaf) -> Verdict {
        leaf.exchange(guest, self.fence.held(), &[], &[self.fence.right()]);
        Verdict::Resolve
    }
}

/// Identifies a touch and its retry: instruction and address space. Never 0.
fn retry_of(fault: &Fault) -> u64 {
    fault.rip.0 ^ fault.cr3.root().0.rotate_left(32) | 1 << 63
}

fn register_table(registers: &Registers) -> Table {
    let Registers { rax, rbx, rcx, rdx, rsi, rdi, rbp, rsp, r8, r9, r10, r11, r12, r13, r14, r15, rip, rflags } =
        *registers;
    let named = [
        ("rax", rax),
        ("rbx", rbx),
        ("rcx", rcx),
        ("rdx", rdx),
        ("rsi", rsi),
        ("rdi", rdi),
        ("rbp", rbp),
        ("rsp", rsp),
        ("r8", r8),
        ("r9", r9),
        ("r10", r10),
        ("r11", r11),
        ("r12", r12),
        ("r13", r13),
        ("r14", r14),
        ("r15", r15),
        ("rip", rip),
        ("rflags", rflags),
    ];
    let rows = named.iter().map(|(name, value)| vec![(*name).to_owned(), format!("{value:#x}")]).collect();
    let columns = ["register", "value"].map(str::to_owned).to_vec();
    Table { title: "registers at the first touch".to_owned(), columns, rows }
}

#[cfg(test)]
mod tests;
