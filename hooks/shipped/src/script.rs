//! `script`: a hook written in Rhai (<https://rhai.rs/book>), for exploration. There is nothing to build, but a fault
//! costs a few microseconds more.
//!
//! ```rhai
//! fn on_fault(fault) {
//!     this.faults = (this.faults ?? 0) + 1;
//!     if fault.write && fault.address < 0x1000 {
//!         return stop(`a null pointer was written to by ${instruction()}`);
//!     }
//!     pass()
//! }
//!
//! fn on_end() {
//!     print(`vCPU ${this.vcpu}: ${this.faults} faults`);
//! }
//! ```
//!
//! `on_fault` is called for every fault and returns a verdict; returning nothing means `pass()`. `this` is a
//! map that persists between calls, one per vCPU; `this.vcpu` is set from the start. It may hold numbers, strings,
//! arrays, maps and faults, up to 256 KiB; exceeding that is a failure of the hook. `on_end`, if defined, is called at
//! the end for each vCPU whose `this` the script has added something to.
//! Statements outside functions run before every call.
//!
//! | | |
//! | --- | --- |
//! | `fault.` | `sequence`, `vcpu`, `address`, `error_code`, `rip`, `rsp`, `cs`, `ss`, `rflags`, `cr3`; `user`, `write`, `fetch`, `present`, `reserved` |
//! | verdicts | `pass()`, `reinject()`, `reinject_as(address, error_code)`, `resolve()`, `skip()`, `raise(vector)`, `raise(vector, error_code)`, `stop(why)` |
//! | registers | `reg("rax")`, `set_reg("rax", value)`; all general registers, `rip` and `rflags` |
//! | memory | `read_u8(address)`, `read_u16`, `read_u32`, `read_u64`; `translate(address)`: returns the physical address |
//! | output | `instruction()`: the faulting instruction as text; `hex(number)`; `print(text)`: to standard error; `log(text)`: to the log |
//!
//! Numbers have 64 bits and are signed in Rhai: an address in the upper half is negative. A call that fails
//! throws. An exception that the script does not catch is a failure of the hook; the message has the file, line and
//! column.
//!
//! A script can't hang the guest: `operations` limits its work per fault. It can't import modules, call `eval` or
//! sleep.
//!
//! - `script/engine.rs`: sets Rhai up, calls scripts, and formats their errors
//! - `script/functions.rs`: the functions that a script can call

mod engine;
mod functions;

use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use rhai::{AST, Dynamic, Engine, Map};
use serde::Deserialize;
use vector14_hook::{Fault, Guest, Hook, HookType, OptionDoc, Options, OptionsError, PerVcpu, Report, Result, Verdict};

use crate::address::Number;

pub(crate) const TYPE: HookType = HookType {
    name: "script",
    summary: "calls a function of a Rhai script for each fault, for exploration",
    options: &[
        OptionDoc { name: "file", value: "path", default: None, help: "the script, with a fn on_fault(fault)" },
        OptionDoc {
            name: "operations",
            value: "1000..1000000000",
            default: Some("100000"),
            help: "maximum Rhai operations per fault; exceeding it is a failure of the hook",
        },
    ],
    check: |options| Script::new(options).map(drop),
    create: |options| Ok(Box::new(Script::new(options)?)),
};

const OPERATIONS: std::ops::RangeInclusive<u128> = 1000..=1_000_000_000;
const USUAL_OPERATIONS: u128 = 100_000;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Settings {
    file: PathBuf,
    operations: Option<Number>,
}

struct Script {
    /// The script's name in messages.
    name: String,
    engine: Engine,
    ast: AST,
    has_end: bool,
    /// The `this` of each vCPU. Only that vCPU's thread locks it while the guest runs.
    states: PerVcpu<Mutex<Dynamic>>,
}

impl Script {
    fn new(options: &Options) -> std::result::Result<Self, OptionsError> {
        let Settings { file, operations } = options.parse()?;
        let wrong = |why: String| OptionsError::new("file", why);
        let path = options.path(&file);
        let name = path.display().to_string();
        let text = std::fs::read_to_string(&path).map_err(|error| wrong(format!("file = {name}: {error}")))?;
        let Number(most) = operations.unwrap_or(Number(USUAL_OPERATIONS));
        let most = u64::try_from(most).ok().filter(|_| OPERATIONS.contains(&most)).ok_or_else(|| {
            let (least, greatest) = OPERATIONS.into_inner();
            OptionsError::new("operations", format!("operations = {most}: must be from {least} to {greatest}"))
        })?;
        let engine = engine::new(most);
        let ast = engine.compile(text).map_err(|error| wrong(engine::describe(&name, &error.into())))?;
        let has = |name: &str, parameters: usize| {
            ast.iter_functions().any(|function| function.name == name && function.params.len() == parameters)
        };
        if !has("on_fault", 1) {
            return Err(wrong(format!("file = {name}: has no function `on_fault(fault)`")));
        }
        let state = |vcpu: u32| Dynamic::from_map(Map::from([("vcpu".into(), i64::from(vcpu).into())]));
        Ok(Self { has_end: has("on_end", 0), name, engine, ast, states: PerVcpu::new(|vcpu| Mutex::new(state(vcpu))) })
    }
}

impl Hook for Script {
    fn on_fault(&self, fault: &Fault, guest: &mut dyn Guest) -> Result {
        let mut state = self.states.of(fault).lock().unwrap_or_else(PoisonError::into_inner);
        let answer =
            functions::with(guest, || engine::call(&self.engine, &self.ast, &mut state, "on_fault", (*fault,)));
        let answer = answer.map_err(|error| engine::describe(&self.name, &error))?;
        if answer.is_unit() {
            return Ok(Verdict::Pass);
        }
        let kind = answer.type_name();
        let wrong = || format!("{}: on_fault returned a value of type {kind}, which is not a verdict", self.name);
        Ok(answer.try_cast::<Verdict>().ok_or_else(wrong)?)
    }

    fn on_end(&self, guest: &mut dyn Guest) -> Report {
        let mut report = Report::default();
        for state in self.states.iter().filter(|_| self.has_end) {
            let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
            // Skips vCPUs that had no fault, or whose faults added nothing to `this`.
            if state.as_map_ref().is_ok_and(|map| map.len() < 2) {
                continue;
            }
            let ended = functions::with(guest, || engine::call(&self.engine, &self.ast, &mut state, "on_end", ()));
            report.warnings.extend(ended.err().map(|error| engine::describe(&self.name, &error)));
        }
        report
    }
}

#[cfg(test)]
mod tests;
