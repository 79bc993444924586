//! `vector14 man`: the manual pages, for packagers and `make install`.

use std::path::PathBuf;

use clap::{CommandFactory, ValueHint};

use super::{Cli, Failure};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The folder to write the pages to; it is created if it does not exist
    #[arg(value_name = "DIR", value_hint = ValueHint::DirPath)]
    folder: PathBuf,
}

pub(super) fn run(args: &Args) -> Result<u8, Failure> {
    let folder = &args.folder;
    let written = std::fs::create_dir_all(folder)
        .and_then(|()| clap_mangen::generate_to(Cli::command().name("vector14"), folder));
    written.map_err(|error| Failure::ManPages { folder: folder.clone(), error })?;
    Ok(0)
}
