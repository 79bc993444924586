//! `vector14 check`: checks a config file and reports what it would run. It starts nothing and touches no file of a
//! hook. Hook libraries are loaded, to ask them about their options.

use vector14::chain::Trust;
use vector14::config::TRUST;
use vector14::config::values::size;
use vector14::config::{Config, DiskConfig, HookConfig};
use vector14::display::{Grid, printable};

use super::args::ConfigArgs;
use super::{Failure, output};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    config: ConfigArgs,
}

pub(super) fn run(args: &Args) -> Result<u8, Failure> {
    let config = args.config.load()?;
    output::print(&format!("{}: fine\n{}", printable(&config.name), describe(&config).render(output::style())))?;
    Ok(0)
}

fn describe(config: &Config) -> Grid {
    let timeout =
        config.vm.timeout.map_or("none".to_owned(), |timeout| humantime::format_duration(timeout).to_string());
    let disk =
        |disk: &DiskConfig| format!("{}{}", disk.path.display(), if disk.readonly { " (read-only)" } else { "" });
    let disks: Vec<_> = config.disks.iter().map(disk).collect();
    let disks = if disks.is_empty() { "none".to_owned() } else { disks.join(", ") };
    let stub = &config.intercept.stub;
    let stub = stub.as_ref().map_or("looked for".to_owned(), |range| format!("{}..{}", range.start, range.end));
    let error_codes = config.intercept.error_code.map_or("all".to_owned(), |filter| {
        format!("those with (code & {:#x}) == {:#x}", filter.mask.bits(), filter.value.bits())
    });
    let hooks: Vec<_> = config.hooks.iter().map(hook).collect();
    let control = config.control.socket.as_ref().map_or("none".to_owned(), |socket| socket.display().to_string());
    let modules: Vec<_> = config.boot.modules.iter().map(ToString::to_string).collect();
    let mut grid = Grid::default();
    grid.row(["kernel", &config.boot.kernel.to_string()])
        .row(["protocol", config.boot.protocol.name()])
        .row(["initrd", &config.boot.initrd.as_ref().map_or("none".to_owned(), |path| path.display().to_string())])
        .row(["modules", &if modules.is_empty() { "none".to_owned() } else { modules.join(", ") }])
        .row(["cmdline", &config.boot.cmdline])
        .row(["memory", &size(config.vm.memory)])
        .row(["vcpus", &config.vm.vcpus.to_string()])
        .row(["timeout", &timeout])
        .row(["disks", &disks])
        .row(["engine", config.intercept.engine.name()])
        .row(["stub", &stub])
        .row(["error codes", &error_codes])
        .row(["control", &control])
        .row(["hooks", &if hooks.is_empty() { "none".to_owned() } else { hooks.join(", ") }]);
    grid
}

/// The hook's name, with its library and with the trust settings that differ from the defaults.
fn hook(hook: &HookConfig) -> String {
    let Trust { budget, timeout, on_error } = hook.trust;
    let said = [
        hook.library.as_ref().map(|library| library.path().display().to_string()),
        (budget != TRUST.budget).then(|| format!("budget {}", humantime::format_duration(budget))),
        (timeout != TRUST.timeout).then(|| format!("timeout {}", humantime::format_duration(timeout))),
        (on_error != TRUST.on_error).then(|| format!("on error {on_error}")),
    ];
    let said: Vec<_> = said.into_iter().flatten().collect();
    if said.is_empty() { hook.name.clone() } else { format!("{} ({})", hook.name, said.join(", ")) }
}
