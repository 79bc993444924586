//! The sections of a config file, one function per section.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::hooks;
use super::problem::Reason;
use super::reader::Reader;
use super::values;
use super::{
    BootConfig, ControlConfig, DiskConfig, EngineChoice, HookConfig, InterceptConfig, Kernel, Module, TRUST, VmConfig,
};
use crate::intercept::chain::Trust;
use crate::intercept::config::place::Place;
use crate::intercept::library::Library;
use crate::machine::config::{CMDLINE, DISK_READONLY, DISKS_MAX, PROTOCOL};
use crate::machine::device::virtio::image::Image;

/// All sections of a file.
pub(super) struct Sections {
    pub(super) vm: VmConfig,
    /// `None` if there is no kernel to boot, which has been reported.
    pub(super) boot: Option<BootConfig>,
    pub(super) disks: Vec<DiskConfig>,
    pub(super) intercept: InterceptConfig,
    pub(super) control: ControlConfig,
    pub(super) hooks: Vec<HookConfig>,
}

/// Reads a file whose top level is `root`; relative paths in it start at `base`.
pub(super) fn read(mut root: Reader<'_>, base: &Path) -> Sections {
    let vm = read_vm(root.table("vm"));
    let boot = read_boot(root.table("boot"), base);
    let mut disks = Vec::new();
    root.each_table("disk", |reader| disks.extend(read_disk(reader, base, disks.len())));
    let intercept = read_intercept(root.table("intercept"));
    let control = read_control(root.table("control"), base);
    let mut hooks = Vec::new();
    root.each_table("hook", |reader| hooks.extend(read_hook(reader, base)));
    root.finish();
    Sections { vm, boot, disks, intercept, control, hooks }
}

fn read_vm(mut vm: Reader<'_>) -> VmConfig {
    let default = VmConfig::default();
    let config = VmConfig {
        memory: vm.take("memory", values::memory).unwrap_or(default.memory),
        vcpus: vm.take("vcpus", values::vcpus).unwrap_or(default.vcpus),
        timeout: vm.take("timeout", values::timeout).or(default.timeout),
        nested: vm.take("nested", values::boolean).unwrap_or(default.nested),
    };
    vm.finish();
    config
}

fn read_boot(mut boot: Reader<'_>, base: &Path) -> Option<BootConfig> {
    let kernel = boot.require("kernel", "kernel = \"tiny\", or the path of a kernel", values::kernel);
    let kernel = kernel.map(|(kernel, place)| match kernel {
        Kernel::Tiny => Kernel::Tiny,
        Kernel::Path(path) => Kernel::Path(find_file(&mut boot, "boot.kernel", place, base, &path)),
    });
    let protocol = boot.take("protocol", values::protocol).unwrap_or(PROTOCOL);
    let initrd = boot.take_placed("initrd", values::path);
    let initrd = initrd.map(|(path, place)| find_file(&mut boot, "boot.initrd", place, base, &path));
    let modules = boot.take_each("modules", "paths", values::module).into_iter();
    let modules = modules.map(|(module, place)| {
        let path = find_file(&mut boot, "boot.modules", place, base, &module.path);
        Module { path, ..module }
    });
    let modules = modules.collect();
    let cmdline = boot.take("cmdline", values::cmdline).unwrap_or_else(|| CMDLINE.to_owned());
    boot.finish();
    Some(BootConfig { kernel: kernel?, protocol, initrd, modules, cmdline })
}

/// The path of the file that `key` names. Reports a file that can't be read.
fn find_file(boot: &mut Reader<'_>, key: &str, place: Place, base: &Path, path: &Path) -> PathBuf {
    let path = base.join(path);
    if let Err(error) = check_readable(&path) {
        boot.report(place, Reason::File { key: key.to_owned(), path: path.clone(), error: Arc::new(error) });
    }
    path
}

/// Fails if the file can't be read. Opens nothing that may block.
fn check_readable(path: &Path) -> io::Result<()> {
    let kind = fs::metadata(path)?.file_type();
    if kind.is_dir() {
        return Err(io::ErrorKind::IsADirectory.into());
    }
    if kind.is_file() {
        fs::File::open(path)?;
    }
    Ok(())
}

/// Reads a disk that follows `before` others. Its image is checked, and not changed.
fn read_disk(mut disk: Reader<'_>, base: &Path, before: usize) -> Option<DiskConfig> {
    let path = disk.require("path", "path = \"disk.img\", the path of a raw image", values::path);
    let readonly = disk.take("readonly", values::boolean).unwrap_or(DISK_READONLY);
    let config = path.map(|(path, place)| {
        let config = DiskConfig { path: base.join(path), readonly };
        if before >= DISKS_MAX {
            disk.refuse("path", place, format!("one of at most {DISKS_MAX} disks"));
        } else if let Err(error) = Image::open(&config) {
            let (key, path, error) = ("disk.path".to_owned(), config.path.clone(), Arc::new(io::Error::from(error)));
            disk.report(place, Reason::File { key, path, error });
        }
        config
    });
    disk.finish();
    config
}

fn read_intercept(mut intercept: Reader<'_>) -> InterceptConfig {
    let default = InterceptConfig::default();
    let engine = intercept.take("engine", values::engine).unwrap_or(default.engine);
    let stub = intercept.take("stub", values::stub).or(default.stub);
    let error_code = intercept.take_placed("error_code", values::error_code);
    if let (EngineChoice::Gate, Some((_, place))) = (engine, &error_code) {
        let allowed = "left out, or engine = \"exception-bitmap\": gate sees every fault".to_owned();
        intercept.refuse("error_code", place.clone(), allowed);
    }
    intercept.finish();
    InterceptConfig { engine, stub, error_code: error_code.map(|(filter, _)| filter).or(default.error_code) }
}

/// Reads a hook's name, the path of its library and how far it is trusted. The hook itself reads the other keys of its
/// table.
fn read_hook(mut hook: Reader<'_>, base: &Path) -> Option<HookConfig> {
    let path = hook.take_placed("path", values::path);
    let name = match path {
        Some(_) => hook.take_placed("name", values::string),
        None => hook.require("name", "name = \"trace\"; `vector14 hooks` lists what there is", values::string),
    };
    let trust = read_trust(&mut hook);
    let Some((path, place)) = path else { return hooks::from_rest(name?, None, trust, hook, base) };
    match Library::load(&base.join(path)) {
        Ok(library) => {
            let name = name.unwrap_or_else(|| (library.name().to_owned(), place));
            hooks::from_rest(name, Some(library), trust, hook, base)
        }
        Err(error) => {
            hook.report(place, Reason::Library(Arc::new(error)));
            None
        }
    }
}

fn read_trust(hook: &mut Reader<'_>) -> Trust {
    Trust {
        budget: hook.take("budget", |value| values::hook_time(value.as_str())).unwrap_or(TRUST.budget),
        timeout: hook.take("timeout", |value| values::hook_time(value.as_str())).unwrap_or(TRUST.timeout),
        on_error: hook.take("on_error", |value| values::on_error(value.as_str())).unwrap_or(TRUST.on_error),
    }
}

/// Reads `[control]`; a relative path starts at `base`.
fn read_control(mut control: Reader<'_>, base: &Path) -> ControlConfig {
    let socket = control.take("socket", values::path).map(|path| base.join(path));
    control.finish();
    ControlConfig { socket }
}
