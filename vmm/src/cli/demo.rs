//! `vector14 demo`: a short run of the tiny guest, for first-time users.

use std::time::Duration;

use serde_json::json;
use vector14::chain::NamedHook;
use vector14::config::Config;
use vector14::outlet::Outlet;
use vector14_guest_abi::window::HIDDEN;
use vector14_hook::{Fault, Guest, Hook, Options, Report, Result as HookResult, Verdict};
use vector14_hooks::HOOKS;

use super::args::KvmArgs;
use super::run::conclude;
use super::{Failure, logging::Loudness, vm};

/// What `zero-fill` fills the demo's pages with.
const FILL: u8 = 0x14;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    kvm: KvmArgs,
}

pub(super) fn run(args: &Args, loudness: Loudness) -> Result<u8, Failure> {
    let mut config = Config::tiny("scenario=demo");
    config.vm.timeout = Some(Duration::from_secs(30));
    let console = vm::console()?;
    let narrated = Narrated { hook: zero_fill()?, console: console.clone() };
    let hooks = vec![NamedHook::new("zero-fill", narrated)];
    let ended = vm::run(&config, hooks, vm::RunOptions::default(), console, &args.kvm.path)?;
    conclude(&ended.summary, loudness);
    Ok(ended.status())
}

/// The shipped hook that resolves the faults that the demo's guest can't handle itself.
fn zero_fill() -> Result<Box<dyn Hook>, Failure> {
    let options = json!({ "start": HIDDEN.start, "end": HIDDEN.end, "fill": FILL });
    let options = Options::new(options.as_object().cloned().unwrap_or_default(), "");
    let made = HOOKS.iter().find(|hook| hook.name == "zero-fill").map(|hook| (hook.create)(&options));
    let failed = |message: String| Failure::Vm { message, help: None, status: 3 };
    made.ok_or_else(|| failed("the hook `zero-fill` is not in this build".to_owned()))?
        .map_err(|error| failed(error.to_string()))
}

/// A hook that prints each fault and its verdict between the guest's own lines.
struct Narrated {
    hook: Box<dyn Hook>,
    console: Outlet,
}

impl Hook for Narrated {
    fn on_fault(&self, fault: &Fault, guest: &mut dyn Guest) -> HookResult {
        let verdict = self.hook.on_fault(fault, guest)?;
        let answer = match &verdict {
            Verdict::Resolve => "a hook put a page there: RESOLVED, the guest's handler never runs",
            Verdict::Pass => "no hook wants it: REINJECTED into the guest's own handler",
            Verdict::Reinject | Verdict::ReinjectAs { .. } | Verdict::Skip | Verdict::Raise(_) | Verdict::Stop(_) => {
                "a hook has decided otherwise"
            }
        };
        let (sequence, address, rip, code) = (fault.sequence, fault.address, fault.rip, fault.error_code);
        // Like the guest's own output, this waits for nobody.
        self.console.push(
            format!("host:   #PF {sequence} at {address} ({code}), by the instruction at {rip}\nhost:   {answer}\n")
                .as_bytes(),
        );
        Ok(verdict)
    }

    fn on_end(&self, guest: &mut dyn Guest) -> Report {
        self.hook.on_end(guest)
    }
}
