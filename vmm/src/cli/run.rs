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
    /// Make a socket at PATH through which `vector14 ctl` controls the VM; wins over control.socket
    #[arg(long, value_name = "PATH", value_hint = ValueHint::FilePath)]
    control: Option<PathBuf>,
    /// Load a hook anew whenever its library is rebuilt, while the guest goes on
    #[arg(long)]
    watch: bool,
    #[command(flatten)]
    kvm: KvmArgs,
}

/// What can be found wrong before the guest runs is found first; files are only touched when the config is right.
pub(super) fn run(args: &Args, loudness: Loudness) -> Result<u8, Failure> {
    let config = args.config.load()?;
    let file = args.summary.as_deref().map(SummaryFile::create).transpose()?;
    let socket = args.control.as_ref().or(config.control.socket.as_ref());
    let socket = socket.map(|path| ControlSocket::bind(path)).transpose()?;
    let hooks = config.create_hooks(HOOKS)?;
    let watch = args.watch.then_some(config.hooks.as_slice());
    let company = vm::Company { watch, socket };
    let ended = vm::run(&config, hooks, company, vm::console()?, &args.kvm.path)?;

    conclude(&ended.summary, loudness);
    let status = ended.status();
    let written = file.map_or(Ok(()), |file| file.write(&ended.summary));
    Ok(written.map_or_else(|failure| status_after(&failure, status), |()| status))
}

/// Tells on stderr how a run ended.
pub(super) fn conclude(summary: &Summary, loudness: Loudness) {
    let style = Style::of(&io::stderr());
    output::tell(&match loudness {
        Loudness::Usual => display::summary(summary, style),
        Loudness::Quiet => display::remarks(summary, style),
    });
}

/// The status of a run whose summary is lost: the guest's own, unless that says that all is well.
fn status_after(failure: &Failure, guest: u8) -> u8 {
    output::complain(failure);
    if guest == 0 { failure.exit_status() } else { guest }
}

/// The file of `--summary`, made before the guest runs, and removed where there is no summary to write.
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
            // An empty file would be taken for a summary.
            let _ = fs::remove_file(self.path);
        }
    }
}
