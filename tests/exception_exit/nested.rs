//! A guest that runs a guest of its own (SVM): faults of the inner guest do not exit to user space.

use kvm_bindings::{Msrs, kvm_msr_entry};

use super::machine::{ABSENT, CODE, Exit, GDT, IDT, Machine, STACK};
use super::{READ, intercepted};

/// vmrun (of the VMCB that RAX points to); hlt
const VMRUN: [u8; 4] = [0x0f, 0x01, 0xd8, 0xf4];
const VMCB: u64 = 0x2_0000;
const HOST_SAVE_AREA: u64 = 0x2_1000;
/// The inner guest's program.
const INNER: u64 = CODE + 0x100;
const MSR_VM_HSAVE_PA: u32 = 0xc001_0117;
const EXIT_PF: u64 = 0x4e;
const EXIT_HLT: u64 = 0x78;

/// The guest intercepts the inner guest's fault.
pub fn fault_for_the_guest() {
    let machine = run(1 << 14);
    assert_eq!((machine.read(VMCB + 0x70), machine.read(VMCB + 0x80)), (EXIT_PF, ABSENT));
}

/// The guest leaves the fault to the inner guest's own handler.
pub fn fault_for_the_inner_guest() {
    let mut machine = run(0);
    assert_eq!((machine.read(VMCB + 0x70), machine.read(VMCB + 0x640)), (EXIT_HLT, ABSENT));
    let frame = machine.read(VMCB + 0x5d8);
    assert_eq!((machine.read(frame), machine.read(frame + 8)), (0, INNER));
    // The host sees the guest's own faults as before.
    machine.state().regs.rip = INNER;
    machine.changed(kvm_ioctls::SyncReg::Register);
    assert_eq!(machine.run(), super::fault(0));
}

/// Runs the inner guest up to its exit to the guest. Nothing exits to user space before that.
#[track_caller]
fn run(exceptions: u32) -> Machine {
    let mut machine = intercepted(&VMRUN);
    machine.write(INNER, &READ);
    write_vmcb(&machine, exceptions);
    machine.set_sregs(|sregs| sregs.efer |= 1 << 12);
    let save = kvm_msr_entry { index: MSR_VM_HSAVE_PA, data: HOST_SAVE_AREA, ..Default::default() };
    machine.vcpu.set_msrs(&Msrs::from_entries(&[save]).unwrap()).unwrap();
    let mut regs = machine.vcpu.get_regs().unwrap();
    regs.rax = VMCB;
    machine.vcpu.set_regs(&regs).unwrap();
    assert_eq!(machine.run(), Exit::End);
    machine
}

/// Describes an inner guest with the state of the guest, except for RIP (APM vol. 2, appendix B).
fn write_vmcb(machine: &Machine, exceptions: u32) {
    const INTERCEPT_HLT: u32 = 1 << 24;
    const INTERCEPT_VMRUN: u32 = 1 << 0;
    let sregs = machine.vcpu.get_sregs().unwrap();
    for (offset, value) in [(0x8, exceptions), (0xc, INTERCEPT_HLT), (0x10, INTERCEPT_VMRUN), (0x58, 1)] {
        machine.write(VMCB + offset, &value.to_le_bytes());
    }
    let segments = [(0x400, 0x10, 0xc93), (0x410, 0x8, 0xa9b), (0x420, 0x10, 0xc93), (0x430, 0x10, 0xc93)];
    for (offset, selector, attributes) in segments {
        machine.write(VMCB + offset, &(selector | attributes << 16 | 0xffff_ffff_u64 << 32).to_le_bytes());
    }
    for (offset, limit) in [(0x464, 0x17_u32), (0x484, 0xfff)] {
        machine.write(VMCB + offset, &limit.to_le_bytes());
    }
    let state = [
        (0x468, GDT),
        (0x488, IDT),
        (0x4d0, sregs.efer | 1 << 12),
        (0x548, sregs.cr4),
        (0x550, sregs.cr3),
        (0x558, sregs.cr0),
        (0x560, 0x400),
        (0x568, 0xffff_0ff0),
        (0x570, 2),
        (0x578, INNER),
        (0x5d8, STACK),
        (0x668, 0x0007_0406_0007_0406),
    ];
    for (offset, value) in state {
        machine.write(VMCB + offset, &value.to_le_bytes());
    }
}
