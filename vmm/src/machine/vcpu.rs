//! One vCPU: how it is entered, why it exited, and its registers in the page that it shares with KVM.
//!
//! KVM_CAP_SYNC_REGS (KVM API 6.18) carries the registers with every exit and entry, so the path of a fault needs no
//! ioctl other than KVM_RUN.

use kvm_bindings::{KVM_MP_STATE_RUNNABLE, KVM_RUN_X86_GUEST_MODE, kvm_regs, kvm_sregs, kvm_vcpu_events};
use kvm_ioctls::{SyncReg, VcpuExit, VcpuFd};

use crate::sys::kvm_run::{exception, internal_error, io_data, io_fields, mmio_data};
use crate::sys::mapped::MappedVcpu;

/// Why KVM_RUN returned; owns its values and borrows nothing from `kvm_run`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum VmExit {
    /// Port I/O; the data is in [`Vcpu::io_data`].
    Io(Io),
    /// An access to guest-physical memory that nothing backs; the data is in [`Vcpu::mmio_data`].
    Mmio {
        /// Guest-physical address.
        address: u64,
        /// Which way the data goes.
        direction: Direction,
    },
    /// An exception that KVM intercepted before it was delivered to the guest.
    Exception {
        /// Its vector.
        vector: u8,
        /// Its error code; 0 if it has none.
        error_code: u32,
    },
    /// HLT with nothing to wake it.
    Hlt,
    /// A triple fault.
    Shutdown,
    /// A signal or `immediate_exit` ended KVM_RUN before the guest caused an exit of its own.
    Interrupted,
    /// The guest can't continue; the text is KVM's reason.
    Failure(String),
    /// Any other exit, by KVM's name.
    Other(String),
}

/// A port access.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Io {
    /// Port number.
    pub port: u16,
    /// Which way the data goes.
    pub direction: Direction,
    /// Width of one access: 1, 2 or 4 bytes.
    pub size: u8,
    /// Number of accesses; more than one for string instructions.
    pub count: u32,
}

/// Which way data goes, seen from the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Direction {
    /// From a device into the guest.
    In,
    /// From the guest to a device.
    Out,
}

/// A vCPU that is ready to run.
pub(crate) struct Vcpu {
    kvm: MappedVcpu,
    index: u32,
    run_size: usize,
}

impl Vcpu {
    /// Wraps a new vCPU; `run_size` is KVM_GET_VCPU_MMAP_SIZE, in bytes.
    pub(crate) fn new(mut kvm: MappedVcpu, index: u32, run_size: usize) -> Self {
        kvm.fd.set_sync_valid_reg(SyncReg::Register);
        kvm.fd.set_sync_valid_reg(SyncReg::SystemRegister);
        Self { kvm, index, run_size }
    }

    /// The vCPU's number, from 0.
    #[must_use]
    pub(crate) fn index(&self) -> u32 {
        self.index
    }

    pub(crate) fn fd(&mut self) -> &mut VcpuFd {
        &mut self.kvm.fd
    }

    /// Runs the guest until it exits.
    ///
    /// # Errors
    /// KVM_RUN fails for a reason that is neither the guest's nor a signal.
    pub(crate) fn enter(&mut self) -> Result<VmExit, kvm_ioctls::Error> {
        let failure = match self.kvm.fd.run() {
            Ok(VcpuExit::IoIn(..) | VcpuExit::IoOut(..)) => return Ok(self.io_exit()),
            Ok(VcpuExit::MmioRead(address, _)) => return Ok(VmExit::Mmio { address, direction: Direction::In }),
            Ok(VcpuExit::MmioWrite(address, _)) => return Ok(VmExit::Mmio { address, direction: Direction::Out }),
            Ok(VcpuExit::Exception) => return Ok(self.exception_exit()),
            Ok(VcpuExit::Hlt) => return Ok(VmExit::Hlt),
            Ok(VcpuExit::Shutdown) => return Ok(VmExit::Shutdown),
            Ok(VcpuExit::Intr) => return Ok(VmExit::Interrupted),
            Ok(VcpuExit::InternalError) => None,
            Ok(VcpuExit::FailEntry(reason, cpu)) => {
                Some(format!("the CPU refuses to enter the guest (hardware reason {reason:#x} on host CPU {cpu})"))
            }
            Ok(VcpuExit::MemoryFault { gpa, size, .. }) => {
                Some(format!("KVM can't back guest-physical memory at {gpa:#x} ({size} bytes)"))
            }
            Ok(other) => return Ok(VmExit::Other(format!("{other:?}"))),
            // EAGAIN: a vCPU that waits for its SIPI woke up without one.
            Err(error) if matches!(error.errno(), libc::EINTR | libc::EAGAIN) => {
                self.kvm.fd.set_kvm_immediate_exit(0);
                return Ok(VmExit::Interrupted);
            }
            Err(error) => return Err(error),
        };
        Ok(VmExit::Failure(failure.unwrap_or_else(|| self.describe_internal_error())))
    }

    fn io_exit(&mut self) -> VmExit {
        let Some(io) = io_fields(self.kvm.fd.get_kvm_run()) else {
            return VmExit::Other("port I/O without its fields".to_owned());
        };
        let direction = if io.is_out { Direction::Out } else { Direction::In };
        VmExit::Io(Io { port: io.port, direction, size: io.size, count: io.count })
    }

    fn exception_exit(&mut self) -> VmExit {
        let Some((vector, error_code)) = exception(self.kvm.fd.get_kvm_run()) else {
            return VmExit::Other("an exception without its fields".to_owned());
        };
        VmExit::Exception { vector, error_code }
    }

    /// Data of the port accesses that [`VmExit::Io`] reported: `size * count` bytes, to read or fill in.
    pub(crate) fn io_data(&mut self) -> &mut [u8] {
        io_data(&mut self.kvm.fd, self.run_size).unwrap_or_default()
    }

    /// Data of the access that [`VmExit::Mmio`] reported: 1 to 8 bytes, to read or fill in.
    pub(crate) fn mmio_data(&mut self) -> &mut [u8] {
        mmio_data(self.kvm.fd.get_kvm_run()).unwrap_or_default()
    }

    /// Whether the last exit came from a nested guest, whose registers the vCPU then has. KVM reports this only if it
    /// has KVM_CAP_X86_GUEST_MODE (KVM API 5, `flags`).
    pub(crate) fn in_guest_mode(&mut self) -> bool {
        u32::from(self.kvm.fd.get_kvm_run().flags) & KVM_RUN_X86_GUEST_MODE != 0
    }

    /// General registers as of the last exit.
    pub(crate) fn regs(&mut self) -> &kvm_regs {
        &self.kvm.fd.sync_regs_mut().regs
    }

    /// General registers, mutable: KVM loads them at the next entry.
    pub(crate) fn regs_mut(&mut self) -> &mut kvm_regs {
        self.kvm.fd.set_sync_dirty_reg(SyncReg::Register);
        &mut self.kvm.fd.sync_regs_mut().regs
    }

    /// Segment, control and descriptor-table registers as of the last exit.
    pub(crate) fn sregs(&mut self) -> &kvm_sregs {
        &self.kvm.fd.sync_regs_mut().sregs
    }

    /// Segment, control and descriptor-table registers, mutable: KVM loads them at the next entry.
    ///
    /// Clears `interrupt_bitmap`: KVM keeps the interrupt that was being delivered at an exit by itself. It sets that
    /// interrupt's bit without ever clearing one, and would otherwise deliver an interrupt of an earlier exit again,
    /// whatever RFLAGS.IF is.
    pub(crate) fn sregs_mut(&mut self) -> &mut kvm_sregs {
        self.kvm.fd.set_sync_dirty_reg(SyncReg::SystemRegister);
        let sregs = &mut self.kvm.fd.sync_regs_mut().sregs;
        sregs.interrupt_bitmap = [0; 4];
        sregs
    }

    /// Makes every exit carry events too; by default it does not.
    pub(crate) fn sync_events(&mut self) {
        self.kvm.fd.set_sync_valid_reg(SyncReg::VcpuEvents);
    }

    /// Events that were being delivered at the last exit (KVM API 4.31); current only if they are synced.
    pub(crate) fn events(&mut self) -> &kvm_vcpu_events {
        &self.kvm.fd.sync_regs_mut().events
    }

    /// Events, mutable: at the next entry, KVM loads those that their `flags` mark as valid.
    pub(crate) fn events_mut(&mut self) -> &mut kvm_vcpu_events {
        self.kvm.fd.set_sync_dirty_reg(SyncReg::VcpuEvents);
        &mut self.kvm.fd.sync_regs_mut().events
    }

    /// Puts the vCPU into its boot state: loads `regs` and `sregs`, and makes it runnable.
    ///
    /// # Errors
    /// KVM refuses a register value.
    pub(crate) fn set_boot_state(&mut self, regs: &kvm_regs, sregs: &kvm_sregs) -> Result<(), kvm_ioctls::Error> {
        self.kvm.fd.set_sregs(sregs)?;
        self.kvm.fd.set_regs(regs)?;
        self.kvm.fd.set_mp_state(kvm_bindings::kvm_mp_state { mp_state: KVM_MP_STATE_RUNNABLE })
    }

    fn describe_internal_error(&mut self) -> String {
        let (suberror, data) = internal_error(self.kvm.fd.get_kvm_run());
        let rip = self.regs().rip;
        match suberror {
            kvm_bindings::KVM_INTERNAL_ERROR_EMULATION => {
                // KVM API 5, `emulation_failure`: flags, then the instruction's length and up to 15 of its bytes.
                let bytes: Vec<u8> = data[1..3].iter().flat_map(|word| word.to_le_bytes()).collect();
                let length = usize::from(bytes[0]).min(15);
                let code: Vec<String> = bytes[1..=length].iter().map(|byte| format!("{byte:02x}")).collect();
                format!("KVM can't emulate the instruction at {rip:#x} [{}]", code.join(" "))
            }
            kvm_bindings::KVM_INTERNAL_ERROR_DELIVERY_EV => {
                format!(
                    "an exception or interrupt could not be delivered at {rip:#x}: its stack or descriptor tables are outside of memory"
                )
            }
            other => format!("KVM internal error {other} at {rip:#x}, data {:#x?}", &data[..4]),
        }
    }
}
