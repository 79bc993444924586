//! Loads the kernel that `[boot]` describes.

use std::borrow::Cow;
use std::ops::Range;
use std::path::Path;

use vector14_hook::{GuestKind, Pa, Va};

use super::bzimage::BzImage;
use super::error::{LoadError, LoadReason, Part};
use super::format::Format;
use super::multiboot::{self, info};
use super::recognise::recognise;
use super::space::Space;
use super::unused::StubRoom;
use super::zero_page::{self, LongModeKernel};
use super::{elf, file};
use crate::machine::boot::Entry;
use crate::machine::boot::layout::{BOOT_PARAMS, CMDLINE_LIMIT, LONG_MODE};
use crate::machine::config::{BootConfig, Kernel};
use crate::machine::memory::Memory;

/// A kernel in guest memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Loaded {
    /// How the kernel is entered.
    pub entry: Entry,
    /// The format that the file was recognised as.
    pub format: Format,
    /// The kind of guest, which decides how interception is armed.
    pub guest: GuestKind,
    /// Room for the `gate` engine's stubs, as the kernel declares it: the descriptor of its ELF note of name `vector14`
    /// and type 1, which contains the start and the end of the range, each a little-endian u64.
    pub stub: Option<Range<Va>>,
    /// Ranges of its code that nothing uses, according to its file.
    pub unused: Vec<Range<Pa>>,
}

/// Loads the kernel, the files that go with it, and the tables for its entry into `memory`, which is still all zero.
///
/// # Errors
/// [`LoadError`]; the contents of memory are then unspecified.
pub(crate) fn load(boot: &BootConfig, memory: &Memory) -> Result<Loaded, LoadError> {
    let path = match &boot.kernel {
        Kernel::Tiny => Path::new("tiny"),
        Kernel::Path(path) => path,
    };
    let kernel = |reason| LoadError { part: Part::Kernel, path: path.to_owned(), reason };
    let image = match &boot.kernel {
        Kernel::Tiny => Cow::Borrowed(vector14_guest::TINY),
        Kernel::Path(path) => Cow::Owned(file::read(path).map_err(kernel)?),
    };
    let mut space = Space::new(memory).map_err(kernel)?;
    let format = recognise(&image, boot.protocol).map_err(kernel)?;
    let (entry, room) = match format {
        Format::BzImage | Format::Vmlinux | Format::Elf => {
            space.claim(LONG_MODE, "what the boot protocol needs").map_err(kernel)?;
            let (long_mode, room) = place_long_mode(format, &image, &mut space).map_err(kernel)?;
            finish_long_mode(long_mode, format, boot, &mut space, kernel)?;
            (Entry::LongMode { rip: long_mode.rip, boot_params: BOOT_PARAMS }, room)
        }
        Format::Multiboot => {
            let placed = multiboot::place(&image, &mut space).map_err(kernel)?;
            let info = finish_multiboot(placed.end, path, boot, &mut space, kernel)?;
            (Entry::ProtectedMode { eip: placed.eip, info }, placed.room)
        }
    };
    entry.prepare_memory(memory).map_err(|error| kernel(LoadReason::Memory(error)))?;
    Ok(Loaded { entry, format, guest: format.guest(), stub: room.named, unused: room.unused })
}

/// Places a kernel that is entered in long mode. Also returns what its file declares as room for stubs.
fn place_long_mode(
    format: Format,
    image: &[u8],
    space: &mut Space<'_>,
) -> Result<(LongModeKernel, StubRoom), LoadReason> {
    if format == Format::BzImage {
        return Ok((BzImage::parse(image)?.place(space)?, StubRoom::default()));
    }
    let file = elf::parse(image, elf::Width::Bits64)?;
    let extent = elf::place_segments(&file, space)?;
    let cmdline_limit = if format == Format::Vmlinux { zero_page::LINUX_CMDLINE_LIMIT } else { CMDLINE_LIMIT };
    let kernel = LongModeKernel::of_elf(elf::physical_entry(&file, &extent)?, cmdline_limit);
    let is_linux = format == Format::Vmlinux;
    Ok((kernel, if is_linux { StubRoom::of_linux(&file) } else { StubRoom::of(&file, &extent) }))
}

/// Writes the initrd, the command line and the boot parameters of a kernel that is entered in long mode.
fn finish_long_mode(
    kernel: LongModeKernel,
    format: Format,
    boot: &BootConfig,
    space: &mut Space<'_>,
    of_kernel: impl Fn(LoadReason) -> LoadError,
) -> Result<(), LoadError> {
    if let Some(module) = boot.modules.first() {
        return Err(LoadError { part: Part::Module, path: module.path.clone(), reason: LoadReason::NoModules(format) });
    }
    let place = |path: &Path, space: &mut Space<'_>| {
        let (file, size) = file::open(path)?;
        let range = space.allocate_high(size, kernel.initrd_limit)?;
        file::read_into(file, &range, space.memory())?;
        Ok(range)
    };
    let initrd = boot.initrd.as_deref().map(|path| {
        place(path, space).map_err(|reason| LoadError { part: Part::Initrd, path: path.to_owned(), reason })
    });
    let initrd = initrd.transpose()?.unwrap_or_default();
    zero_page::write(&kernel, &initrd, &boot.cmdline, space.memory()).map_err(of_kernel)
}

/// Writes the modules and the boot information of a multiboot kernel. Returns the address of the latter.
fn finish_multiboot(
    kernel_end: u64,
    path: &Path,
    boot: &BootConfig,
    space: &mut Space<'_>,
    of_kernel: impl Fn(LoadReason) -> LoadError,
) -> Result<Pa, LoadError> {
    if let Some(path) = &boot.initrd {
        return Err(LoadError { part: Part::Initrd, path: path.clone(), reason: LoadReason::NoInitrd });
    }
    let mut modules = Vec::new();
    for module in &boot.modules {
        let of_module = |reason| LoadError { part: Part::Module, path: module.path.clone(), reason };
        let (file, size) = file::open(&module.path).map_err(of_module)?;
        let range = space.allocate_low(size, kernel_end..u64::MAX).map_err(of_module)?;
        file::read_into(file, &range, space.memory()).map_err(of_module)?;
        modules.push((range, module.string.as_str()));
    }
    // As QEMU and the first GRUB do: kernels expect their own name first.
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    info::write(&name, &boot.cmdline, &modules, space).map_err(of_kernel)
}
