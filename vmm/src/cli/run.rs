//! `vector14 run`: runs the guest that a config file describes.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use clap::ValueHint;
use vector14::ctl::ControlSocket;
use vector14::display::{self, Style};
use vector14::summary::Summary;
use vector14_hooks::HOOKS;

use super::args::{ConfigArgs, KvmArgs};
use super::logging::Loudness;
use super::{Failure, output, vm};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    config: ConfigArgs,
    /// Write a summary of the run to FILE, as JSON
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    summary: Option<PathBuf>,
    /// Create a control socket at PATH for `vector14 ctl`; overrides control.socket
    #[arg(long, value_name = "PATH", value_hint = ValueHint::FilePath)]
    control: Option<PathBuf>,
    /// Reload a hook whenever its library is rebuilt, while the guest goes on
    #[arg(long)]
    watch: bool,
    #[command(flatten)]
    kvm: KvmArgs,
}

/// Finds every error that can be found before the guest runs. Touches files only once the config is valid.
pub(super) fn run(args: &Args, loudness: Loudness) -> Result<u8, Failure> {
    let config = args.config.load()?;
    let file = args.summary.as_deref().map(SummaryFile::create).transpose()?;
    let socket = args.control.as_ref().or(config.control.socket.as_ref());
    let socket = socket.map(|path| ControlSocket::bind(path)).transpose()?;
    let hooks = config.create_hooks(HOOKS)?;
    let watch = args.watch.then_some(config.hooks.as_slice());
    let options = vm::RunOptions { watch, socket };
    let ended = vm::run(&config, hooks, options, vm::console()?, &args.kvm.path)?;

    conclude(&ended.summary, loudness);
    let status = ended.status();
    let written = file.map_or(Ok(()), |file| file.write(&ended.summary));
    Ok(written.map_or_else(|failure| status_after(&failure, status), |()| status))
}

/// Prints on stderr how a run ended.
pub(super) fn conclude(summary: &Summary, loudness: Loudness) {
    let style = Style::of(&io::stderr());
    output::tell(&match loudness {
        Loudness::Usual => display::summary(summary, style),
        Loudness::Quiet => display::remarks(summary, style),
    });
}

/// Exit status of a run whose summary is lost: the guest's own status, or that of the failure where the guest's is 0.
fn status_after(failure: &Failure, guest: u8) -> u8 {
    output::complain(failure);
    if guest == 0 { failure.exit_status() } else { guest }
}

/// The file of `--summary`. It is created before the guest runs, and removed if no summary is written to it.
struct SummaryFile<'a> {
    path: &'a Path,
    file: File,
    written: bool,
}

impl<'a> SummaryFile<'a> {
    fn create(path: &'a Path) -> Result<Self, Failure> {
        let file = File::create(path).map_err(|error| Failure::SummaryFile { path: path.to_owned(), error })?;
        Ok(Self { path, file, written: false })
    }

    fn write(mut self, summary: &Summary) -> Result<(), Failure> {
        let lost = |error| Failure::SummaryLost { path: self.path.to_owned(), error };
        let mut json = serde_json::to_vec_pretty(summary).map_err(|error| lost(error.into()))?;
        json.push(b'\n');
        self.written = true;
        self.file.write_all(&json).and_then(|()| self.file.flush()).map_err(lost)
    }
}

impl Drop for SummaryFile<'_> {
    fn drop(&mut self) {
        let is_file = self.file.metadata().is_ok_and(|metadata| metadata.is_file());
        if !self.written && is_file {
            // An empty file would be mistaken for a summary.
            let _ = fs::remove_file(self.path);
        }
    }
}
