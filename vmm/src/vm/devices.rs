//! The machine's devices: creates them, connects their interrupts, puts them on their buses, and describes them to
//! the guest.

use std::fs::File;
use std::io;

use kvm_ioctls::VmFd;
use rustix::event::{EventfdFlags, eventfd};
use vector14_guest_abi::{COM1, EXIT_PORT};

use super::error::{VmError, host};
use super::kvm;
use crate::machine::acpi::{self, VirtioPlace};
use crate::machine::bios;
use crate::machine::config::DiskConfig;
use crate::machine::device::virtio::image::Image;
use crate::machine::device::virtio::{self, Backend, Block, Entropy, Mmio};
use crate::machine::device::{
    Bus, COM1_GSI, Com1, DISPLAY_PORT, Device, ExitPort, I8042, NoDisplay, RESET_CODE, RESET_PORT, RESET_VECTOR,
    RTC_PORT, ResetControl, Rtc, SLEEP_CONTROL_PORT, Sleep,
};
use crate::machine::memory::Memory;
use crate::machine::outlet::Outlet;
use crate::vm::config::Config;

/// All devices of a machine.
pub(super) struct Devices {
    pub(super) ports: Bus,
    pub(super) mmio: Bus,
    pub(super) com1: Com1,
    /// An eventfd, signalled when the guest has taken all console input.
    pub(super) com1_room: File,
}

/// Creates the devices of the machine that `config` describes, and writes the tables that describe them to the guest.
/// `ports` are additional devices.
pub(super) fn create(
    config: &Config,
    vm: &VmFd,
    memory: &Memory,
    console: Outlet,
    ports: Vec<(u16, Box<dyn Device>)>,
) -> Result<Devices, VmError> {
    let com1_room = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK);
    let com1_room = File::from(host("the console's input", com1_room)?);
    let room = host("the console's input", com1_room.try_clone())?;
    let com1 = Com1::new(kvm::interrupt(vm, COM1_GSI)?, room, console);
    let (mmio, virtio) = create_virtio(config, vm, memory)?;
    let vcpus = u8::try_from(config.vm.vcpus).unwrap_or(u8::MAX);
    host("the ACPI tables", acpi::write(memory, &acpi::Machine { vcpus, virtio }).map_err(io::Error::other))?;
    host("the MP tables", bios::write(memory, vcpus).map_err(io::Error::other))?;
    host("the reset vector", memory.write(RESET_VECTOR, &RESET_CODE).map_err(io::Error::other))?;
    Ok(Devices { ports: create_ports(memory, &com1, ports)?, mmio, com1, com1_room })
}

fn create_ports(memory: &Memory, com1: &Com1, further: Vec<(u16, Box<dyn Device>)>) -> Result<Bus, VmError> {
    let mut bus = Bus::default();
    let mut attach = |port: u16, count: u16, device: Box<dyn Device>| {
        let attached = bus.attach(u64::from(port)..u64::from(port) + u64::from(count), device);
        host("a device's ports", attached.map_err(io::Error::other))
    };
    attach(COM1, 8, Box::new(com1.clone()))?;
    attach(0x60, 5, Box::new(I8042::new()))?;
    attach(RTC_PORT, 2, Box::new(Rtc::new(&memory.ram())))?;
    attach(SLEEP_CONTROL_PORT, Sleep::PORTS, Box::new(Sleep))?;
    attach(RESET_PORT, 1, Box::new(ResetControl))?;
    attach(DISPLAY_PORT, 2, Box::new(NoDisplay))?;
    attach(EXIT_PORT, 1, Box::new(ExitPort))?;
    for (port, device) in further {
        attach(port, 1, device)?;
    }
    Ok(bus)
}

/// Creates the entropy device, then the disks, in slot order.
fn create_virtio(config: &Config, vm: &VmFd, memory: &Memory) -> Result<(Bus, Vec<VirtioPlace>), VmError> {
    let mut backends: Vec<Box<dyn Backend>> = vec![Box::new(Entropy)];
    for (index, disk) in config.disks.iter().enumerate() {
        backends.push(Box::new(Block::new(open(disk)?, index)));
    }
    let mut bus = Bus::default();
    let mut places = Vec::new();
    for (slot, backend) in (0..virtio::SLOTS).zip(backends) {
        let (registers, gsi) = (virtio::registers(slot), virtio::gsi(slot));
        let device = Mmio::new(backend, memory.map().clone(), kvm::interrupt(vm, gsi)?);
        let attached = bus.attach(u64::from(registers.start)..u64::from(registers.end), Box::new(device));
        host("a virtio device", attached.map_err(io::Error::other))?;
        places.push(VirtioPlace { registers, gsi });
    }
    Ok((bus, places))
}

/// Opens a disk's image, and keeps others from using it.
fn open(disk: &DiskConfig) -> Result<Image, VmError> {
    let image = Image::open(disk).and_then(Image::lock);
    image.map_err(|source| VmError::Disk { path: disk.path.clone(), source })
}
