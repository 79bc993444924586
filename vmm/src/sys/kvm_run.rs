//! Reading the exit-specific unions of `kvm_run` (KVM API, 5: "The kvm_run structure").

use kvm_bindings::{KVM_EXIT_EXCEPTION, KVM_EXIT_IO, KVM_EXIT_MMIO, kvm_run};
use kvm_ioctls::VcpuFd;

/// The fields of a KVM_EXIT_IO.
#[derive(Clone, Copy)]
pub(crate) struct IoFields {
    pub(crate) port: u16,
    pub(crate) is_out: bool,
    /// Width of one access: 1, 2 or 4 bytes.
    pub(crate) size: u8,
    /// Number of accesses; more than one for string instructions.
    pub(crate) count: u32,
    data_offset: u64,
}

/// Fields of a KVM_EXIT_IO; `None` if the last exit was another.
pub(crate) fn io_fields(run: &kvm_run) -> Option<IoFields> {
    if run.exit_reason != KVM_EXIT_IO {
        return None;
    }
    // SAFETY: `exit_reason` is KVM_EXIT_IO, so KVM has filled in the union as `io`; any bit pattern is valid for it.
    let io = unsafe { run.__bindgen_anon_1.io };
    Some(IoFields {
        port: io.port,
        is_out: u32::from(io.direction) == kvm_bindings::KVM_EXIT_IO_OUT,
        size: io.size,
        count: io.count,
        data_offset: io.data_offset,
    })
}

/// Vector and error code of a KVM_EXIT_EXCEPTION; `None` if the last exit was another, or the vector is out of range.
pub(crate) fn exception(run: &kvm_run) -> Option<(u8, u32)> {
    if run.exit_reason != KVM_EXIT_EXCEPTION {
        return None;
    }
    // SAFETY: `exit_reason` is KVM_EXIT_EXCEPTION, so KVM has filled in the union as `ex`; any bit pattern is valid for
    // it.
    let ex = unsafe { run.__bindgen_anon_1.ex };
    Some((u8::try_from(ex.exception).ok()?, ex.error_code))
}

/// Data of the last exit's port accesses, `size * count` bytes; `None` if it was not a KVM_EXIT_IO, or if the data
/// would not lie inside the `map_size` bytes that KVM_GET_VCPU_MMAP_SIZE names.
pub(crate) fn io_data(vcpu: &mut VcpuFd, map_size: usize) -> Option<&mut [u8]> {
    let run = vcpu.get_kvm_run();
    let io = io_fields(run)?;
    let length = usize::from(io.size).checked_mul(usize::try_from(io.count).ok()?)?;
    let offset = usize::try_from(io.data_offset).ok()?;
    if offset.checked_add(length)? > map_size {
        return None;
    }
    let start: *mut kvm_run = run;
    // SAFETY:
    // 1. `start` is the beginning of a mapping of `map_size` bytes that lives as long as `vcpu`.
    // 2. `offset + length` lies inside of that mapping (checked above).
    // 3. The slice borrows `vcpu` mutably, so nobody else reads or writes the page through it meanwhile, and KVM
    //    touches the page only inside of KVM_RUN.
    Some(unsafe { std::slice::from_raw_parts_mut(start.cast::<u8>().add(offset), length) })
}

/// Data of the last exit's MMIO access, as many bytes as it has; `None` if it was not a KVM_EXIT_MMIO.
pub(crate) fn mmio_data(run: &mut kvm_run) -> Option<&mut [u8]> {
    if run.exit_reason != KVM_EXIT_MMIO {
        return None;
    }
    // SAFETY: `exit_reason` is KVM_EXIT_MMIO, so KVM has filled in the union as `mmio`; any bit pattern is valid.
    let mmio = unsafe { &mut run.__bindgen_anon_1.mmio };
    let length = usize::try_from(mmio.len).ok()?;
    mmio.data.get_mut(..length)
}

/// Suberror and data words of a KVM_EXIT_INTERNAL_ERROR.
pub(crate) fn internal_error(run: &kvm_run) -> (u32, [u64; 16]) {
    // SAFETY: every member of the union is plain data; if KVM filled in another one, the numbers are meaningless but
    // valid.
    let internal = unsafe { run.__bindgen_anon_1.internal };
    let mut data = internal.data;
    let filled = usize::try_from(internal.ndata).unwrap_or(data.len()).min(data.len());
    data[filled..].fill(0);
    (internal.suberror, data)
}
