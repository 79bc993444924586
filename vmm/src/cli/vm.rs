//! Where the command line meets the library's VM.

use std::path::Path;

use vector14::config::{Config, NamedHook};
use vector14::summary::Summary;

use super::Failure;

/// Makes the VM and runs it to its end.
//
// INTEGRATION: the body is to be
//
//     let vm = Vm::new(config, hooks, kvm).map_err(failure)?;
//     vm.run().map_err(failure)
//
// with `failure` turning a `VmError` into `Failure::Vm { message, help, status }`.
pub(super) fn run(_config: &Config, _hooks: Vec<NamedHook>, _kvm: &Path) -> Result<Summary, Failure> {
    let message = "this build of vector14 has no VM in it: it can check configs, and run none".to_owned();
    Err(Failure::Vm { message, help: None, status: 3 })
}
