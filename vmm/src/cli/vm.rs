//! Where the command line meets the library's VM.

use std::path::Path;

use vector14::chain::NamedHook;
use vector14::config::Config;
use vector14::ctl::{ControlSocket, Server};
use vector14::summary::Summary;
use vector14::terminal;
use vector14::vm::{Surroundings, Vm, VmError};
use vector14_hooks::HOOKS;

use super::Failure;

/// Makes the VM and runs it to its end, its console on the terminal. It is controlled through `socket`, if there is one.
pub(super) fn run(
    config: &Config,
    hooks: Vec<NamedHook>,
    kvm: &Path,
    socket: Option<ControlSocket>,
) -> Result<Summary, Failure> {
    let output = Box::new(std::io::stdout());
    let surroundings = Surroundings { kvm: kvm.to_owned(), attended: true, ..Surroundings::unattended(output) };
    let vm = Vm::new(config, hooks, surroundings).map_err(failure)?;
    let serve = |socket| Server::start(socket, vm.handle(), HOOKS);
    let _server = socket.map(serve).transpose().map_err(|error| Failure::Vm {
        message: format!("the control socket can't be served: {error}"),
        help: None,
        status: 3,
    })?;
    let _raw = terminal::raw()
        .inspect_err(|error| tracing::warn!("the terminal stays in line mode: {error}"))
        .unwrap_or_default();
    vm.run().map_err(failure)
}

pub(super) fn failure(error: VmError) -> Failure {
    let (message, help, status) = (error.to_string(), error.help().map(str::to_owned), error.exit_status());
    Failure::Vm { message, help, status }
}
