//! What the lab takes out of which Debian package.
//!
//! Kernels are named by a pattern: the newest that the release offers is taken, once, and stays in the cache.

/// A package, and what is taken out of it.
#[derive(Debug)]
pub(crate) struct Wanted {
    /// The lab's own name for it. For a guest kernel it is the name of its file in the folder of guests.
    pub(crate) key: &'static str,
    /// Regular expression for the package's name, as apt-cache understands it.
    pub(crate) package: &'static str,
    /// The files taken.
    pub(crate) items: &'static [Item],
}

/// A file of a package.
#[derive(Debug)]
pub(crate) struct Item {
    /// The end of its path. A kernel's file has a version behind its name, a module may be compressed.
    pub(crate) path: &'static str,
    /// Whether every version of the package has it: a driver may be a module in one kernel and built into another.
    pub(crate) presence: Presence,
}

/// Whether a file has to be there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Presence {
    Certain,
    Possible,
}

/// A kernel that the lab can run, and whose kvm-amd the guests run under.
#[derive(Debug)]
pub(crate) struct LabKernel {
    /// The lab's name for it.
    pub(crate) key: &'static str,
    /// The package with its sources.
    pub(crate) source: &'static str,
    /// The packages that modules are built with; `{}` is what stands between `linux-image-` and `-amd64-unsigned`.
    pub(crate) headers: [&'static str; 3],
}

/// Those kernels; the first is the one that runs unless another is asked for.
pub(crate) const LAB_KERNELS: [LabKernel; 2] = [
    LabKernel {
        key: "linux-6.1",
        source: "linux-source-6.1",
        headers: ["linux-headers-{}-amd64", "linux-headers-{}-common", "linux-kbuild-6.1"],
    },
    LabKernel {
        key: "linux-6.12",
        source: "linux-source-6.12",
        headers: ["linux-headers-{}-amd64", "linux-headers-{}-common", "linux-kbuild-{}"],
    },
];
/// The modules that make /dev/kvm, in the order in which they are loaded.
pub(crate) const KVM_MODULES: [&str; 4] = ["irqbypass.ko", "ccp.ko", "kvm.ko", "kvm-amd.ko"];
/// The kernels that the lab has for guests.
pub(crate) const GUEST_KERNELS: [&str; 4] = ["linux-6.1", "linux-6.1-cloud", "linux-6.12", "linux-6.12-cloud"];
/// The drivers that a guest can load, in that order; without those that are built in.
pub(crate) const GUEST_MODULES: [&str; 10] = [
    "virtio_ring.ko",
    "virtio.ko",
    "virtio_mmio.ko",
    "virtio_blk.ko",
    "rng-core.ko",
    "virtio-rng.ko",
    "lzo.ko",
    "lzo-rle.ko",
    "zsmalloc.ko",
    "zram.ko",
];
/// The kernel's file in the cache.
pub(crate) const KERNEL_IMAGE: &str = "vmlinuz";
/// Programs that the tests run vector14 under, and where they look for them.
pub(crate) const TOOLS: [(&str, &str); 4] =
    [("bash", "bash"), ("bsdutils", "script"), ("strace", "strace"), ("util-linux", "setpriv")];
/// What is linked to by those programs, and by the project's own.
pub(crate) const LIBRARIES: [(&str, &str); 9] = [
    ("libc6", "libc.so.6"),
    ("libgcc-s1", "libgcc_s.so.1"),
    ("libc6", "ld-linux-x86-64.so.2"),
    ("libtinfo6", "libtinfo.so.6"),
    ("libcap-ng0", "libcap-ng.so.0"),
    ("liblzma5", "liblzma.so.5"),
    ("libunwind8", "libunwind.so.8"),
    ("libunwind8", "libunwind-ptrace.so.0"),
    ("libunwind8", "libunwind-x86_64.so.8"),
];

/// All packages.
pub(crate) const WANTED: &[Wanted] = &[
    Wanted { key: "linux-6.1", package: r"^linux-image-6\.1\.0-[0-9]+-amd64-unsigned$", items: KERNEL_WITH_KVM },
    Wanted { key: "linux-6.1-cloud", package: r"^linux-image-6\.1\.0-[0-9]+-cloud-amd64-unsigned$", items: KERNEL },
    Wanted {
        key: "linux-6.12",
        package: r"^linux-image-6\.12\.[0-9]+\+deb[0-9]+-amd64-unsigned$",
        items: KERNEL_WITH_KVM,
    },
    Wanted {
        key: "linux-6.12-cloud",
        package: r"^linux-image-6\.12\.[0-9]+\+deb[0-9]+-cloud-amd64-unsigned$",
        items: KERNEL,
    },
    Wanted { key: "busybox", package: "^busybox-static$", items: &[certain("bin/busybox")] },
    Wanted { key: "bash", package: "^bash$", items: &[certain("bin/bash")] },
    Wanted { key: "bsdutils", package: "^bsdutils$", items: &[certain("bin/script")] },
    Wanted { key: "strace", package: "^strace$", items: &[certain("bin/strace")] },
    Wanted { key: "util-linux", package: "^util-linux$", items: &[certain("bin/setpriv")] },
    Wanted {
        key: "libc6",
        package: "^libc6$",
        items: &[certain("x86_64-linux-gnu/libc.so.6"), certain("x86_64-linux-gnu/ld-linux-x86-64.so.2")],
    },
    Wanted { key: "libgcc-s1", package: "^libgcc-s1$", items: &[certain("x86_64-linux-gnu/libgcc_s.so.1")] },
    Wanted { key: "libtinfo6", package: "^libtinfo6$", items: &[certain("x86_64-linux-gnu/libtinfo.so.6")] },
    Wanted { key: "libcap-ng0", package: "^libcap-ng0$", items: &[certain("x86_64-linux-gnu/libcap-ng.so.0")] },
    Wanted { key: "liblzma5", package: "^liblzma5$", items: &[certain("x86_64-linux-gnu/liblzma.so.5")] },
    Wanted {
        key: "libunwind8",
        package: "^libunwind8$",
        items: &[
            certain("x86_64-linux-gnu/libunwind.so.8"),
            certain("x86_64-linux-gnu/libunwind-ptrace.so.0"),
            certain("x86_64-linux-gnu/libunwind-x86_64.so.8"),
        ],
    },
];

const KERNEL: &[Item] = &[
    certain("boot/vmlinuz"),
    possible("drivers/virtio/virtio.ko"),
    possible("drivers/virtio/virtio_ring.ko"),
    possible("drivers/virtio/virtio_mmio.ko"),
    possible("drivers/block/virtio_blk.ko"),
    possible("drivers/char/hw_random/rng-core.ko"),
    possible("drivers/char/hw_random/virtio-rng.ko"),
    possible("crypto/lzo.ko"),
    possible("crypto/lzo-rle.ko"),
    possible("mm/zsmalloc.ko"),
    possible("drivers/block/zram/zram.ko"),
];

const KERNEL_WITH_KVM: &[Item] = &[
    certain("boot/vmlinuz"),
    certain("virt/lib/irqbypass.ko"),
    certain("drivers/crypto/ccp/ccp.ko"),
    certain("arch/x86/kvm/kvm.ko"),
    certain("arch/x86/kvm/kvm-amd.ko"),
    possible("drivers/virtio/virtio.ko"),
    possible("drivers/virtio/virtio_ring.ko"),
    possible("drivers/virtio/virtio_mmio.ko"),
    possible("drivers/block/virtio_blk.ko"),
    possible("drivers/char/hw_random/rng-core.ko"),
    possible("drivers/char/hw_random/virtio-rng.ko"),
    possible("crypto/lzo.ko"),
    possible("crypto/lzo-rle.ko"),
    possible("mm/zsmalloc.ko"),
    possible("drivers/block/zram/zram.ko"),
];

const fn certain(path: &'static str) -> Item {
    Item { path, presence: Presence::Certain }
}

const fn possible(path: &'static str) -> Item {
    Item { path, presence: Presence::Possible }
}
