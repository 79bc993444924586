//! The lab's own initial RAM file system: all that a run needs, so that QEMU needs no disk.

use std::path::{Path, PathBuf};

use crate::archive::{Archive, ArchiveError};
use crate::cache::Cache;
use crate::guest::INITRAMFS;
use crate::job::Job;
use crate::programs::Programs;
use crate::wanted::{GUEST_KERNELS, KVM_MODULES, LIBRARIES, TOOLS};

/// PID 1 of the lab.
const INIT: &str = include_str!("../init");

/// Boots guests by the hundred.
const BOOTS: &str = include_str!("../boots");

/// A guest for those who try the lab by hand.
const LINUX: &str = include_str!("../../../guest/linux.toml");

/// What an initial RAM file system is made of, besides what the cache has.
#[derive(Debug)]
pub(crate) struct Parts<'a> {
    pub(crate) programs: &'a Programs,
    /// The folder of guests.
    pub(crate) guests: &'a Path,
    /// The lab's name for the kernel that it is for.
    pub(crate) kernel: &'static str,
    /// A folder with modules in the place of the kernel's own.
    pub(crate) modules: Option<&'a Path>,
}

/// Writes it, and returns where it is.
pub(crate) fn write(cache: &Cache, parts: &Parts<'_>, job: &Job) -> Result<PathBuf, ArchiveError> {
    let Parts { programs, guests, kernel, modules: changed } = *parts;
    let mut archive = Archive::default().script("init", INIT).script("job", job.script());
    for folder in ["dev", "proc", "root", "sys", "tmp"] {
        archive = archive.folder(folder);
    }
    archive = archive.file("usr/bin/vector14", &programs.vector14).file("usr/bin/integration", &programs.tests);
    for library in &programs.libraries {
        let name = library.file_name().unwrap_or_default().to_string_lossy();
        archive = archive.file(&format!("usr/lib/vector14/{name}"), library);
    }
    // Busybox's own shell prefers its applets to the programs of the same names in the PATH.
    archive = archive.link("bin/bash", "/usr/bin/bash").link("bin/sh", "/usr/bin/bash").link("usr/bin/sh", "bash");

    for module in KVM_MODULES {
        let changed = changed.map(|folder| folder.join(module)).filter(|file| file.exists());
        if let Some(file) = changed.or_else(|| cache.file(kernel, module)) {
            archive = archive.file(&format!("lib/modules/{module}"), &file);
        }
    }
    let tools = TOOLS.map(|(key, tool)| (key, tool, format!("usr/bin/{tool}")));
    let libraries = LIBRARIES.map(|(key, library)| (key, library, library_path(library)));
    let busybox = [("busybox", "busybox", "bin/busybox".to_owned())];
    for (key, name, path) in tools.into_iter().chain(libraries).chain(busybox) {
        if let Some(file) = cache.file(key, name) {
            archive = archive.file(&path, &file);
        }
    }
    archive = archive.script("usr/bin/boots", BOOTS);
    // What README tries from the top folder works in the lab's home as well.
    archive = archive.script("root/guest/linux.toml", LINUX).link("root/target/lab/guests", "/guests");
    for guest in GUEST_KERNELS.into_iter().chain([INITRAMFS]) {
        archive = archive.file(&format!("guests/{guest}"), &guests.join(guest));
    }

    let path = cache.root().join(format!("{}.cpio", job.name()));
    archive.create(&path)?;
    Ok(path)
}

/// Where the dynamic linker is, which programs name, and where it looks for the rest.
fn library_path(library: &str) -> String {
    let folder = if library.starts_with("ld-linux") { "lib64" } else { "lib/x86_64-linux-gnu" };
    format!("{folder}/{library}")
}
