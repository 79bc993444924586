//! What Linux guests boot: the kernels of distributions, and an initramfs of busybox and the project's workloads.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use flate2::Compression;
use flate2::write::GzEncoder;

use crate::archive::{Archive, ArchiveError};
use crate::cache::Cache;
use crate::programs::Programs;
use crate::wanted::{GUEST_KERNELS, GUEST_MODULES, KERNEL_IMAGE};

/// The initramfs's name in the folder of guests.
pub(crate) const INITRAMFS: &str = "initramfs.cpio.gz";

/// PID 1 of a guest.
const INIT: &str = include_str!("../../../guest/linux/init");

/// Makes the folder of guests: a kernel a file, named as the lab names it, and the initramfs for all of them.
pub(crate) fn provide(cache: &Cache, programs: &Programs) -> Result<PathBuf, ArchiveError> {
    let folder = cache.root().join("guests");
    fs::create_dir_all(&folder).map_err(|error| ArchiveError { path: folder.clone(), error })?;
    for key in GUEST_KERNELS {
        let Some(kernel) = cache.file(key, KERNEL_IMAGE) else { continue };
        fs::copy(&kernel, folder.join(key)).map_err(|error| ArchiveError { path: kernel, error })?;
    }
    compress(&initramfs(cache, programs), &folder.join(INITRAMFS))?;
    Ok(folder)
}

fn initramfs(cache: &Cache, programs: &Programs) -> Archive {
    let mut archive = Archive::default().script("init", INIT).file("bin/workloads", &programs.workloads);
    for folder in ["dev", "proc", "root", "sys", "tmp"] {
        archive = archive.folder(folder);
    }
    if let Some(busybox) = cache.file("busybox", "busybox") {
        archive = archive.file("bin/busybox", &busybox);
    }
    for key in GUEST_KERNELS {
        let Some(release) = cache.package(key).and_then(|package| release(&package.name)) else { continue };
        for module in GUEST_MODULES {
            if let Some(file) = cache.file(key, module) {
                archive = archive.file(&format!("lib/modules/{release}/{module}"), &file);
            }
        }
    }
    archive
}

/// What `uname -r` says in a kernel of this package.
fn release(package: &str) -> Option<&str> {
    package.strip_prefix("linux-image-")?.strip_suffix("-unsigned")
}

fn compress(archive: &Archive, path: &Path) -> Result<(), ArchiveError> {
    let failed = |error| ArchiveError { path: path.to_owned(), error };
    let mut encoder = GzEncoder::new(io::BufWriter::new(File::create(path).map_err(failed)?), Compression::fast());
    archive.write(path, &mut encoder)?;
    encoder.finish().and_then(|mut file| io::Write::flush(&mut file)).map_err(failed)
}
