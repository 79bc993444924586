//! Runs the library's VM for a command.

use std::path::Path;

use vector14::chain::NamedHook;
use vector14::config::{Config, HookConfig};
use vector14::ctl::{ControlSocket, Server};
use vector14::display;
use vector14::outlet::Outlet;
use vector14::reload;
use vector14::summary::Summary;
use vector14::vm::{RunError, Surroundings, Vm, VmError};
use vector14_hooks::HOOKS;

use super::{Failure, output};

/// What runs beside a VM; each part is optional.
#[derive(Default)]
pub(super) struct RunOptions<'a> {
    /// Hooks to reload whenever their libraries are rebuilt; the chain begins with them.
    pub(super) watch: Option<&'a [HookConfig]>,
    /// The socket that the VM is controlled through.
    pub(super) socket: Option<ControlSocket>,
}

/// A VM that has run.
pub(super) struct Ended {
    pub(super) summary: Summary,
    /// The host failure that ended the run, if there was one.
    failure: Option<Failure>,
}

impl Ended {
    /// The exit status of the command. Prints the failure if there is one.
    pub(super) fn status(&self) -> u8 {
        self.failure.as_ref().map_or_else(
            || self.summary.stop.exit_status(),
            |failure| {
                output::complain(failure);
                failure.exit_status()
            },
        )
    }
}

/// Standard output, for the guest's console.
pub(super) fn console() -> Result<Outlet, Failure> {
    let console = Outlet::to("the guest's console output", std::io::stdout());
    console.map_err(|source| failure(VmError::Host { what: "standard output", source }))
}

/// Creates the VM and runs it to its end, with its console on the terminal and on `console`.
pub(super) fn run(
    config: &Config,
    hooks: Vec<NamedHook>,
    options: RunOptions<'_>,
    console: Outlet,
    kvm: &Path,
) -> Result<Ended, Failure> {
    let surroundings = Surroundings { kvm: kvm.to_owned(), attended: true, ..Surroundings::unattended(console) };
    let vm = Vm::new(config, hooks, surroundings).map_err(failure)?;
    if let Some(hooks) = options.watch {
        let tell = |line: &str| output::tell(&format!("vector14: {}\n", display::printable(line)));
        reload::spawn(vm.handle(), hooks, HOOKS, tell).map_err(failure)?;
    }
    let serve = |socket| Server::start(socket, vm.handle(), HOOKS);
    let server = options.socket.map(serve).transpose();
    let _server = server.map_err(|source| failure(VmError::Host { what: "the control socket", source }))?;
    Ok(match vm.run() {
        Ok(summary) => Ended { summary, failure: None },
        Err(RunError { source, summary }) => Ended { summary: *summary, failure: Some(failure(source)) },
    })
}

pub(super) fn failure(error: VmError) -> Failure {
    let (message, help, status) = (error.to_string(), error.help().map(str::to_owned), error.exit_status());
    Failure::Vm { message, help, status }
}
