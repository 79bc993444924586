//! A minimal machine: one vCPU in long mode, 2 MiB of memory with the part that tests use mapped to itself, a stack,
//! and a handler per vector that halts.

use std::sync::Arc;

use kvm_bindings::{
    KVM_EXIT_EXCEPTION, KVM_MAX_CPUID_ENTRIES, kvm_enable_cap, kvm_segment, kvm_sregs, kvm_sync_regs,
    kvm_userspace_memory_region,
};
use kvm_ioctls::{Kvm, SyncReg, VcpuExit, VcpuFd, VmFd};
use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend, GuestMemoryMmap, GuestMemoryRegion};

use super::CAPABILITY;

/// Address of the guest's program.
pub const CODE: u64 = 0x8000;
/// The end of the stack, which has a page of its own.
pub const STACK: u64 = 0x1_0000;
/// The first of four absent pages.
pub const ABSENT: u64 = 0x10_0000;
/// Memory for tests to map.
pub const SPARE: u64 = 0x2_0000;
/// A guest-physical address outside of memory.
pub const NO_MEMORY: u64 = 0x4000_0000;

pub const IDT: u64 = 0x6000;
pub const GDT: u64 = 0x5000;
const PML4: u64 = 0x1000;
const PDPT: u64 = 0x2000;
const DIRECTORY: u64 = 0x3000;
const TABLE: u64 = 0x4000;
const TSS: u64 = 0x7000;
const HANDLERS: u64 = 0x9000;
/// End of the range that is mapped to itself.
const MAPPED: u64 = 0x3_0000;
const MEMORY: usize = 2 << 20;

const PRESENT_WRITE: u64 = 0b11;
const HLT: u8 = 0xf4;

/// Why the vCPU has stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// An exception that has not been delivered.
    Exception { vector: u32, error_code: u32 },
    /// The program has ended.
    End,
    /// The handler of this vector has run.
    Handled(u64),
    /// A write of one byte to a port.
    Out { port: u16, byte: u8 },
    /// A read where there is no memory.
    Mmio(u64),
    /// A triple fault.
    Shutdown,
}

pub struct Machine {
    pub vcpu: VcpuFd,
    pub vm: Arc<VmFd>,
    pub memory: GuestMemoryMmap,
}

/// [`Machine::enable`], for a thread that does not own the machine.
pub fn enable(vm: &VmFd, args: [u64; 4]) -> Result<(), i32> {
    let cap = kvm_enable_cap { cap: CAPABILITY, args, ..Default::default() };
    vm.enable_cap(&cap).map_err(|error| error.errno())
}

impl Machine {
    /// A machine that is about to run this program, with no exits enabled.
    pub fn new(program: &[u8]) -> Self {
        let kvm = Kvm::new().unwrap();
        let vm = kvm.create_vm().unwrap();
        let memory = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), MEMORY)]).unwrap();
        let region = memory.find_region(GuestAddress(0)).unwrap();
        let slot = kvm_userspace_memory_region {
            guest_phys_addr: 0,
            memory_size: region.len(),
            userspace_addr: region.as_ptr() as u64,
            ..Default::default()
        };
        // SAFETY: the machine owns the mapping, and drops it after VM and vCPU.
        unsafe { vm.set_user_memory_region(slot) }.unwrap();
        let mut vcpu = vm.create_vcpu(0).unwrap();
        for state in [SyncReg::Register, SyncReg::SystemRegister, SyncReg::VcpuEvents] {
            vcpu.set_sync_valid_reg(state);
        }
        vcpu.set_cpuid2(&kvm.get_supported_cpuid(KVM_MAX_CPUID_ENTRIES).unwrap()).unwrap();
        let machine = Self { vcpu, vm: Arc::new(vm), memory };
        machine.write(CODE, program);
        machine.write_tables();
        machine.set_registers();
        machine
    }

    /// Calls KVM_ENABLE_CAP; the error is its errno.
    pub fn enable(&self, args: [u64; 4]) -> Result<(), i32> {
        enable(&self.vm, args)
    }

    /// Changes system registers before the first entry.
    pub fn set_sregs(&self, change: impl FnOnce(&mut kvm_sregs)) {
        let mut sregs = self.vcpu.get_sregs().unwrap();
        change(&mut sregs);
        self.vcpu.set_sregs(&sregs).unwrap();
    }

    pub fn write(&self, address: u64, bytes: &[u8]) {
        self.memory.write_slice(bytes, GuestAddress(address)).unwrap();
    }

    pub fn read(&self, address: u64) -> u64 {
        self.memory.read_obj(GuestAddress(address)).unwrap()
    }

    pub fn map(&self, page: u64, at: u64) {
        self.write(TABLE + 8 * (page >> 12), &(at | PRESENT_WRITE).to_le_bytes());
    }

    /// Only for pages that the guest has not touched.
    pub fn unmap(&self, page: u64) {
        self.write(TABLE + 8 * (page >> 12), &[0; 8]);
    }

    /// Makes a vector's handler run on a stack of its own (SDM vol. 3A, 6.14.5).
    pub fn use_ist(&self, vector: u8) {
        self.write(TSS + 0x24, &(SPARE + 0x1000).to_le_bytes());
        self.write(IDT + 16 * u64::from(vector) + 4, &[1]);
    }

    /// The state at the last exit. Changes take effect at the next entry, if [`Self::changed`] has named them.
    pub fn state(&mut self) -> &mut kvm_sync_regs {
        self.vcpu.sync_regs_mut()
    }

    pub fn changed(&mut self, what: SyncReg) {
        self.vcpu.set_sync_dirty_reg(what);
    }

    /// Queues an exception, which is injected at the next entry.
    pub fn queue(&mut self, vector: u8, error_code: Option<u32>) {
        let exception = &mut self.state().events.exception;
        (exception.injected, exception.nr) = (1, vector);
        (exception.has_error_code, exception.error_code) = (u8::from(error_code.is_some()), error_code.unwrap_or(0));
        self.changed(SyncReg::VcpuEvents);
    }

    /// Runs up to the next exit.
    pub fn run(&mut self) -> Exit {
        let exit = match self.vcpu.run().unwrap() {
            VcpuExit::Exception => return self.exception(),
            VcpuExit::Hlt => None,
            VcpuExit::IoOut(port, data) => Some(Exit::Out { port, byte: data[0] }),
            VcpuExit::MmioRead(address, data) => {
                data.fill(0x14);
                Some(Exit::Mmio(address))
            }
            VcpuExit::Shutdown => Some(Exit::Shutdown),
            other => panic!("unexpected exit: {other:?}"),
        };
        let rip = self.state().regs.rip;
        exit.unwrap_or(if rip >= HANDLERS { Exit::Handled((rip - HANDLERS) >> 4) } else { Exit::End })
    }

    fn exception(&mut self) -> Exit {
        let run = self.vcpu.get_kvm_run();
        assert_eq!(run.exit_reason, KVM_EXIT_EXCEPTION);
        // SAFETY: `exit_reason` says that KVM has filled in the union as `ex`.
        let exception = unsafe { run.__bindgen_anon_1.ex };
        Exit::Exception { vector: exception.exception, error_code: exception.error_code }
    }

    fn write_tables(&self) {
        self.write(PML4, &(PDPT | PRESENT_WRITE).to_le_bytes());
        self.write(PDPT, &(DIRECTORY | PRESENT_WRITE).to_le_bytes());
        self.write(DIRECTORY, &(TABLE | PRESENT_WRITE).to_le_bytes());
        (0..MAPPED).step_by(1 << 12).for_each(|page| self.map(page, page));
        // Null, flat 64-bit code, flat data: the same as in the registers; gates load them again.
        for (index, descriptor) in (1..).zip([0x00af_9b00_0000_ffff_u64, 0x00cf_9300_0000_ffff]) {
            self.write(GDT + 8 * index, &descriptor.to_le_bytes());
        }
        for vector in 0..256 {
            let handler = HANDLERS + 16 * vector;
            self.write(handler, &[HLT]);
            // A present interrupt gate of 64 bits (SDM vol. 3A, 6.14.1).
            let low = handler & 0xffff | 0x8 << 16 | 0x8e00 << 32 | (handler >> 16) << 48;
            self.write(IDT + 16 * vector, &low.to_le_bytes());
        }
    }

    fn set_registers(&self) {
        let code =
            kvm_segment { selector: 0x8, type_: 0xb, present: 1, s: 1, l: 1, g: 1, limit: !0, ..Default::default() };
        let data = kvm_segment { selector: 0x10, type_: 0x3, l: 0, db: 1, ..code };
        self.set_sregs(|sregs| {
            sregs.cs = code;
            [sregs.ds, sregs.es, sregs.fs, sregs.gs, sregs.ss] = [data; 5];
            sregs.tr = kvm_segment { base: TSS, limit: 0x67, type_: 0xb, present: 1, ..Default::default() };
            (sregs.gdt.base, sregs.gdt.limit) = (GDT, 0x17);
            (sregs.idt.base, sregs.idt.limit) = (IDT, 0xfff);
            (sregs.cr0, sregs.cr3, sregs.cr4, sregs.efer) = (0x8005_0033, PML4, 0x20, 0x500);
        });
        let mut regs = self.vcpu.get_regs().unwrap();
        (regs.rip, regs.rsp, regs.rbx, regs.rflags) = (CODE, STACK, ABSENT, 1 << 1);
        self.vcpu.set_regs(&regs).unwrap();
    }
}
