//! KVM's modules with exception exits, built by the project's `kvm/build` for one of the lab's kernels.
//!
//! Sources, headers and tools come out of the packages of the kernel's own version, so that it loads what comes of them.
//! The result stays in the cache until the kernel or something in `kvm/` changes.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};

use clap::ValueEnum;
use sha2::{Digest, Sha256};
use tempfile::TempDir;

use crate::apt::{self, AptError};
use crate::cache::{Cache, CacheError, files_below, hexadecimal};
use crate::wanted::LabKernel;

/// Which KVM the lab's kernel loads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Kvm {
    /// The kernel's own
    #[default]
    Stock,
    /// With the change in `kvm/`: page faults can be had as exits
    ExceptionExit,
}

impl Kvm {
    /// As the command line and the tests' environment write it.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Stock => "stock",
            Self::ExceptionExit => "exception-exit",
        }
    }
}

/// Why there are no modules.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ModulesError {
    #[error(transparent)]
    Apt(#[from] AptError),
    #[error(transparent)]
    Cache(#[from] CacheError),
    /// A file or folder can't be used.
    #[error("{}: {error}", .path.display())]
    Io {
        /// Which.
        path: PathBuf,
        /// Why not.
        error: io::Error,
    },
    /// The build has failed, and has said on stderr why.
    #[error("kvm/build for {kernel}: {status}")]
    Build {
        /// The lab's name for the kernel.
        kernel: &'static str,
        /// How it ended.
        status: ExitStatus,
    },
}

/// Provides the modules for a kernel, and returns the folder that they are in.
pub(crate) fn provide(cache: &mut Cache, workspace: &Path, kernel: &LabKernel) -> Result<PathBuf, ModulesError> {
    let packages = cache.sources(kernel)?;
    let recipe = workspace.join("kvm");
    let built = cache.root().join("modules");
    let destination = built.join(format!("{}-{}", kernel.key, sum(&recipe, &packages)?));
    if destination.exists() {
        return Ok(destination);
    }
    apt::provide_compiler()?;
    eprintln!("lab: building KVM's modules with exception exits for {}", kernel.key);
    fs::create_dir_all(&built).map_err(|error| ModulesError::Io { path: built.clone(), error })?;
    // In the same file system as the destination, which then appears all at once.
    let scratch = TempDir::new_in(&built).map_err(|error| ModulesError::Io { path: built.clone(), error })?;
    for package in &packages {
        apt::unpack(package, scratch.path())?;
    }
    let out = scratch.path().join("out");
    let status = Command::new(recipe.join("build"))
        .args([headers(scratch.path())?, source(scratch.path(), kernel), out.clone()])
        .stdin(Stdio::null())
        // Standard output belongs to what runs in the lab.
        .stdout(io::stderr())
        .status()
        .map_err(|error| ModulesError::Io { path: recipe.join("build"), error })?;
    if !status.success() {
        return Err(ModulesError::Build { kernel: kernel.key, status });
    }
    let failed = |error| ModulesError::Io { path: destination.clone(), error };
    fs::remove_dir_all(out.join("tree")).and_then(|()| fs::rename(&out, &destination)).map_err(failed)?;
    Ok(destination)
}

/// What the modules are made of, in short.
fn sum(recipe: &Path, packages: &[PathBuf]) -> Result<String, ModulesError> {
    let failed = |path: &Path, error| ModulesError::Io { path: path.to_owned(), error };
    let mut files = vec![recipe.join("build"), recipe.join("edit")];
    files.extend(files_below(&recipe.join("src")).map_err(|error| failed(recipe, error))?);
    files.sort();
    let mut hasher = Sha256::new();
    for file in files {
        hasher.update(fs::read(&file).map_err(|error| failed(&file, error))?);
    }
    // A package's file name has its version, and the cache has compared the contents with their checksums.
    for package in packages {
        hasher.update(package.file_name().unwrap_or_default().as_encoded_bytes());
    }
    let sum = hexadecimal(&hasher.finalize());
    Ok(sum.get(..12).unwrap_or(&sum).to_owned())
}

/// The folder that modules are built against, made usable where it was unpacked: its makefile names the place where it
/// would be if it were installed.
fn headers(root: &Path) -> Result<PathBuf, ModulesError> {
    let folder = root.join("usr/src");
    let failed = |error| ModulesError::Io { path: folder.clone(), error };
    let mut names = Vec::new();
    for entry in fs::read_dir(&folder).map_err(failed)? {
        names.push(entry.map_err(failed)?.path());
    }
    let named = |end: &str| names.iter().find(|path| path.to_string_lossy().ends_with(end)).cloned();
    let (Some(own), Some(common)) = (named("-amd64"), named("-common")) else {
        return Err(failed(io::ErrorKind::NotFound.into()));
    };
    fs::write(own.join("Makefile"), format!("include {}/Makefile\n", common.display())).map_err(failed)?;
    Ok(own)
}

fn source(root: &Path, kernel: &LabKernel) -> PathBuf {
    root.join(format!("usr/src/{}.tar.xz", kernel.source))
}
