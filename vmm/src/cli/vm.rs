//! Where the command line meets the library's VM.

use std::path::Path;

use vector14::chain::NamedHook;
use vector14::config::{Config, HookConfig};
use vector14::ctl::{ControlSocket, Server};
use vector14::display;
use vector14::library;
use vector14::summary::Summary;
use vector14::terminal;
use vector14::vm::{Surroundings, Vm, VmError};
use vector14_hooks::HOOKS;

use super::{Failure, output};

/// What goes on beside a VM, if anything.
#[derive(Default)]
pub(super) struct Company<'a> {
    /// Hooks, which the chain begins with, to be loaded anew whenever their libraries are rebuilt.
    pub(super) watch: Option<&'a [HookConfig]>,
    /// Where the VM is controlled from.
    pub(super) socket: Option<ControlSocket>,
}

/// Makes the VM and runs it to its end, its console on the terminal.
pub(super) fn run(
    config: &Config,
    hooks: Vec<NamedHook>,
    company: Company<'_>,
    kvm: &Path,
) -> Result<Summary, Failure> {
    let output = Box::new(std::io::stdout());
    let surroundings = Surroundings { kvm: kvm.to_owned(), attended: true, ..Surroundings::unattended(output) };
    let vm = Vm::new(config, hooks, surroundings).map_err(failure)?;
    if let Some(hooks) = company.watch {
        let tell = |line: &str| output::tell(&format!("vector14: {}\n", display::printable(line)));
        library::watch(vm.handle(), hooks, HOOKS, tell).map_err(failure)?;
    }
    let serve = |socket| Server::start(socket, vm.handle(), HOOKS);
    let server = company.socket.map(serve).transpose();
    let _server = server.map_err(|source| failure(VmError::Host { what: "the control socket", source }))?;
    let _raw = terminal::raw()
        .inspect_err(|error| tracing::warn!("the terminal stays in line mode: {error}"))
        .unwrap_or_default();
    vm.run().map_err(failure)
}

pub(super) fn failure(error: VmError) -> Failure {
    let (message, help, status) = (error.to_string(), error.help().map(str::to_owned), error.exit_status());
    Failure::Vm { message, help, status }
}
