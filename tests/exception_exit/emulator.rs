//! Faults of instructions that KVM emulates.

use kvm_ioctls::SyncReg;

use super::machine::{ABSENT, CODE, Exit, Machine, NO_MEMORY, SPARE};
use super::{fault, intercepted};

/// outsb; hlt
const OUTSB: [u8; 2] = [0x6e, 0xf4];
/// movsb; hlt
const MOVSB: [u8; 2] = [0xa4, 0xf4];
const PORT: u16 = 0x314;

/// A machine with these addresses in RSI and RDI.
fn strings(program: &[u8], rsi: u64, rdi: u64) -> Machine {
    let machine = intercepted(program);
    let mut regs = machine.vcpu.get_regs().unwrap();
    (regs.rsi, regs.rdi, regs.rdx) = (rsi, rdi, PORT.into());
    machine.vcpu.set_regs(&regs).unwrap();
    machine
}

/// The memory operand of a port write faults.
pub fn port() {
    let mut machine = strings(&OUTSB, ABSENT, 0);
    assert_eq!(machine.run(), fault(0));
    assert_eq!((machine.state().regs.rip, machine.state().sregs.cr2), (CODE, ABSENT));
    machine.write(SPARE, &[0x14]);
    machine.map(ABSENT, SPARE);
    assert_eq!(machine.run(), Exit::Out { port: PORT, byte: 0x14 });
    assert_eq!(machine.run(), Exit::End);
    assert_eq!(machine.state().sregs.cr2, 0);
}

/// The second operand faults after the first has been read from a device. The whole instruction is restarted.
pub fn mmio() {
    const DEVICE: u64 = ABSENT + 0x1000;
    let mut machine = strings(&MOVSB, DEVICE, ABSENT);
    machine.map(DEVICE, NO_MEMORY);
    assert_eq!(machine.run(), Exit::Mmio(NO_MEMORY));
    assert_eq!(machine.run(), fault(2));
    assert_eq!((machine.state().regs.rip, machine.state().sregs.cr2), (CODE, ABSENT));
    machine.map(ABSENT, SPARE);
    assert_eq!(machine.run(), Exit::Mmio(NO_MEMORY));
    assert_eq!(machine.run(), Exit::End);
    assert_eq!((machine.read(SPARE) & 0xff, machine.state().sregs.cr2), (0x14, 0));
}

/// The guest's handler gets the fault, and the instruction can be abandoned.
pub fn reinjected() {
    let mut machine = strings(&OUTSB, ABSENT, 0);
    assert_eq!(machine.run(), fault(0));
    machine.queue(14, Some(0));
    assert_eq!(machine.run(), Exit::Handled(14));
    assert_eq!(machine.state().sregs.cr2, ABSENT);
    machine.state().regs.rip = CODE + 1;
    machine.changed(SyncReg::Register);
    assert_eq!(machine.run(), Exit::End);
}
