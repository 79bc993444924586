//! Embeds vector14: runs the built-in guest with a closure as its hook, and reads the summary.
//!
//! `cargo run --example embed`

use std::error::Error;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use vector14::chain::NamedHook;
use vector14::config::Config;
use vector14::outlet::Outlet;
use vector14::vm::{Surroundings, Vm};
use vector14_hook::{ErrorCode, Verdict, from_fn};

fn main() -> Result<(), Box<dyn Error>> {
    // The guest touches ten pages. Its own handler maps each at its first touch.
    let config = Config::tiny("scenario=demand pages=10");

    let writes = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&writes);
    let hook = from_fn(move |fault, _guest| {
        let write = fault.error_code.contains(ErrorCode::WRITE);
        counted.fetch_add(u64::from(write), Ordering::Relaxed);
        Ok(Verdict::Pass)
    });

    let console = Outlet::to("the guest's console", io::stdout())?;
    let vm = Vm::new(&config, vec![NamedHook::new("writes", hook)], Surroundings::unattended(console))?;
    let summary = vm.run()?;

    println!("{:?}: {} faults, {} of them writes", summary.stop, summary.faults.total, writes.load(Ordering::Relaxed));
    println!("{} were reinjected into the guest's own handler", summary.verdicts.reinject);
    Ok(())
}
