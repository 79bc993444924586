//! The registers of a virtio device (virtio 1.2, 4.2.2), and its states from reset to DRIVER_OK (3.1).

use virtio_bindings::virtio_config::{
    VIRTIO_CONFIG_S_ACKNOWLEDGE as ACKNOWLEDGE, VIRTIO_CONFIG_S_DRIVER as DRIVER,
    VIRTIO_CONFIG_S_DRIVER_OK as DRIVER_OK, VIRTIO_CONFIG_S_FAILED as FAILED,
    VIRTIO_CONFIG_S_FEATURES_OK as FEATURES_OK, VIRTIO_CONFIG_S_NEEDS_RESET as NEEDS_RESET, VIRTIO_F_VERSION_1,
};
use virtio_bindings::virtio_mmio::{
    VIRTIO_MMIO_CONFIG, VIRTIO_MMIO_CONFIG_GENERATION, VIRTIO_MMIO_DEVICE_FEATURES, VIRTIO_MMIO_DEVICE_FEATURES_SEL,
    VIRTIO_MMIO_DEVICE_ID, VIRTIO_MMIO_DRIVER_FEATURES, VIRTIO_MMIO_DRIVER_FEATURES_SEL, VIRTIO_MMIO_INT_CONFIG,
    VIRTIO_MMIO_INT_VRING, VIRTIO_MMIO_INTERRUPT_ACK, VIRTIO_MMIO_INTERRUPT_STATUS, VIRTIO_MMIO_MAGIC_VALUE,
    VIRTIO_MMIO_QUEUE_AVAIL_HIGH, VIRTIO_MMIO_QUEUE_AVAIL_LOW, VIRTIO_MMIO_QUEUE_DESC_HIGH, VIRTIO_MMIO_QUEUE_DESC_LOW,
    VIRTIO_MMIO_QUEUE_NOTIFY, VIRTIO_MMIO_QUEUE_NUM, VIRTIO_MMIO_QUEUE_NUM_MAX, VIRTIO_MMIO_QUEUE_READY,
    VIRTIO_MMIO_QUEUE_SEL, VIRTIO_MMIO_QUEUE_USED_HIGH, VIRTIO_MMIO_QUEUE_USED_LOW, VIRTIO_MMIO_SHM_BASE_HIGH,
    VIRTIO_MMIO_SHM_BASE_LOW, VIRTIO_MMIO_SHM_LEN_HIGH, VIRTIO_MMIO_SHM_LEN_LOW, VIRTIO_MMIO_STATUS,
    VIRTIO_MMIO_VENDOR_ID, VIRTIO_MMIO_VERSION,
};
use vmm_sys_util::eventfd::EventFd;

use super::error::QueueError;
use super::queue::{Layout, Virtqueue};
use super::{Backend, QUEUE_SIZE};
use crate::machine::device::Device;
use crate::machine::stop::Stop;
use crate::sys::ram::GuestRam;

const MAGIC: u32 = u32::from_le_bytes(*b"virt");
const VERSION: u32 = 2;
const VENDOR: u32 = u32::from_le_bytes(*b"VC14");
/// Features that every device here offers. Only modern drivers are served.
const FEATURES: u64 = 1 << VIRTIO_F_VERSION_1;

/// A device with one queue, number 0.
pub(crate) struct Mmio {
    backend: Box<dyn Backend>,
    memory: GuestRam,
    /// The device's interrupt, an irqfd.
    interrupt: EventFd,
    /// What the driver has set since the last reset.
    driver: Driver,
    /// The queue, once the driver has written QueueReady.
    queue: Option<Virtqueue>,
    /// Whether a warning about this device's driver has been logged.
    warned: bool,
}

/// Registers that a reset clears.
#[derive(Clone, Copy, Debug, Default)]
struct Driver {
    status: u32,
    device_features_select: u32,
    features: u64,
    features_select: u32,
    queue_select: u32,
    layout: Layout,
    interrupt_status: u32,
}

impl Mmio {
    /// A device after reset, with access to `memory`.
    pub(crate) fn new(backend: Box<dyn Backend>, memory: GuestRam, interrupt: EventFd) -> Self {
        Self { backend, memory, interrupt, driver: Driver::default(), queue: None, warned: false }
    }

    fn get(&self, register: u32) -> u32 {
        let (driver, selected) = (&self.driver, self.driver.queue_select == 0);
        match register {
            VIRTIO_MMIO_MAGIC_VALUE => MAGIC,
            VIRTIO_MMIO_VERSION => VERSION,
            VIRTIO_MMIO_DEVICE_ID => self.backend.id(),
            VIRTIO_MMIO_VENDOR_ID => VENDOR,
            VIRTIO_MMIO_DEVICE_FEATURES => half(self.features(), driver.device_features_select),
            VIRTIO_MMIO_QUEUE_NUM_MAX if selected => u32::from(QUEUE_SIZE),
            VIRTIO_MMIO_QUEUE_READY if selected => u32::from(self.queue.is_some()),
            VIRTIO_MMIO_INTERRUPT_STATUS => driver.interrupt_status,
            VIRTIO_MMIO_STATUS => driver.status,
            // A length of -1: there are no shared memory regions (virtio 1.2, 4.2.2, SHMLenLow).
            VIRTIO_MMIO_SHM_LEN_LOW..=VIRTIO_MMIO_SHM_LEN_HIGH
            | VIRTIO_MMIO_SHM_BASE_LOW..=VIRTIO_MMIO_SHM_BASE_HIGH => u32::MAX,
            // The configuration is constant.
            VIRTIO_MMIO_CONFIG_GENERATION => 0,
            _ => 0,
        }
    }

    fn set(&mut self, register: u32, value: u32) -> Result<(), QueueError> {
        let driver = &mut self.driver;
        match register {
            VIRTIO_MMIO_DEVICE_FEATURES_SEL => driver.device_features_select = value,
            VIRTIO_MMIO_DRIVER_FEATURES_SEL => driver.features_select = value,
            VIRTIO_MMIO_DRIVER_FEATURES if driver.status & FEATURES_OK == 0 => {
                set_half(&mut driver.features, driver.features_select, value);
            }
            VIRTIO_MMIO_QUEUE_SEL => driver.queue_select = value,
            VIRTIO_MMIO_QUEUE_NOTIFY => return self.notify(value),
            VIRTIO_MMIO_INTERRUPT_ACK => driver.interrupt_status &= !value,
            VIRTIO_MMIO_STATUS => return self.set_status(value),
            VIRTIO_MMIO_QUEUE_READY if driver.queue_select == 0 => return self.set_ready(value),
            _ if driver.queue_select == 0 && self.queue.is_none() => driver.layout.set(register, value),
            _ => {}
        }
        Ok(())
    }

    fn features(&self) -> u64 {
        FEATURES | self.backend.features()
    }

    /// Sets status bits. A driver only adds bits, until it writes 0 to clear them all (virtio 1.2, 2.1.1 and 4.2.3.1).
    ///
    /// Setting DRIVER_OK serves the queue. Linux 5.10's entropy driver makes its first request before DRIVER_OK, and notifies
    /// the device of that request only then.
    fn set_status(&mut self, value: u32) -> Result<(), QueueError> {
        if value == 0 {
            self.driver = Driver::default();
            self.queue = None;
            return Ok(());
        }
        let status = self.driver.status | value & (ACKNOWLEDGE | DRIVER | FEATURES_OK | DRIVER_OK | FAILED);
        let features = self.driver.features;
        let acceptable = features & !self.features() == 0 && features & FEATURES == FEATURES;
        let allowed = match (acceptable, status & FEATURES_OK != 0) {
            (true, true) => status,
            (true, false) => status & !DRIVER_OK,
            (false, _) => status & !(FEATURES_OK | DRIVER_OK),
        };
        let begins = allowed & !self.driver.status & DRIVER_OK != 0;
        self.driver.status |= allowed;
        if begins { self.notify(0) } else { Ok(()) }
    }

    fn set_ready(&mut self, value: u32) -> Result<(), QueueError> {
        match (value, &self.queue) {
            (0, _) => self.queue = None,
            (_, None) if self.is_alive(FEATURES_OK) => {
                self.queue = Some(Virtqueue::new(&self.driver.layout, &self.memory)?);
            }
            (_, _) => {}
        }
        Ok(())
    }

    fn notify(&mut self, queue: u32) -> Result<(), QueueError> {
        if !self.is_alive(DRIVER_OK) || queue != 0 {
            return Ok(());
        }
        let Some(queue) = &mut self.queue else { return Ok(()) };
        if queue.serve(&self.memory, self.backend.as_mut())? {
            self.interrupt(VIRTIO_MMIO_INT_VRING);
        }
        Ok(())
    }

    /// Whether the driver has reached `status` without breaking a rule.
    fn is_alive(&self, status: u32) -> bool {
        self.driver.status & (status | NEEDS_RESET) == status
    }

    fn interrupt(&mut self, cause: u32) {
        self.driver.interrupt_status |= cause;
        // The counter can't overflow: KVM consumes it at once.
        let _ = self.interrupt.write(1);
    }

    /// Marks the device as broken. It does nothing more until the driver resets it (virtio 1.2, 2.1.2).
    fn mark_broken(&mut self, error: &QueueError) {
        if !self.warned {
            self.warned = true;
            let id = self.backend.id();
            tracing::warn!(
                "the guest's driver has broken its virtio device (ID {id}), which waits for a reset: {error}"
            );
        }
        let told = self.driver.status & DRIVER_OK != 0;
        self.driver.status |= NEEDS_RESET;
        if told {
            self.interrupt(VIRTIO_MMIO_INT_CONFIG);
        }
    }
}

impl Layout {
    fn set(&mut self, register: u32, value: u32) {
        match register {
            VIRTIO_MMIO_QUEUE_NUM => self.size = value,
            VIRTIO_MMIO_QUEUE_DESC_LOW => set_half(&mut self.descriptors, 0, value),
            VIRTIO_MMIO_QUEUE_DESC_HIGH => set_half(&mut self.descriptors, 1, value),
            VIRTIO_MMIO_QUEUE_AVAIL_LOW => set_half(&mut self.available, 0, value),
            VIRTIO_MMIO_QUEUE_AVAIL_HIGH => set_half(&mut self.available, 1, value),
            VIRTIO_MMIO_QUEUE_USED_LOW => set_half(&mut self.used, 0, value),
            VIRTIO_MMIO_QUEUE_USED_HIGH => set_half(&mut self.used, 1, value),
            _ => {}
        }
    }
}

/// Half 0 (low) or 1 (high) of `whole`.
fn half(whole: u64, half: u32) -> u32 {
    let [a, b, c, d, e, f, g, h] = whole.to_le_bytes();
    match half {
        0 => u32::from_le_bytes([a, b, c, d]),
        1 => u32::from_le_bytes([e, f, g, h]),
        _ => 0,
    }
}

fn set_half(whole: &mut u64, half: u32, value: u32) {
    match half {
        0 => *whole = *whole & !0xffff_ffff | u64::from(value),
        1 => *whole = *whole & 0xffff_ffff | u64::from(value) << 32,
        _ => {}
    }
}

impl Device for Mmio {
    /// Reads registers in aligned words, and the configuration in any size (virtio 1.2, 4.2.2.2).
    fn read(&mut self, offset: u64, data: &mut [u8]) {
        let Ok(offset) = u32::try_from(offset) else { return };
        if let Some(start) = offset.checked_sub(VIRTIO_MMIO_CONFIG) {
            let config = self.backend.config().iter().skip(start as usize);
            data.iter_mut().zip(config).for_each(|(data, config)| *data = *config);
        } else if data.len() == 4 {
            data.copy_from_slice(&self.get(offset).to_le_bytes());
        }
    }

    fn write(&mut self, offset: u64, data: &[u8]) -> Option<Stop> {
        let (Ok(register), Ok(value)) = (u32::try_from(offset), data.try_into()) else { return None };
        if let Err(error) = self.set(register, u32::from_le_bytes(value)) {
            self.mark_broken(&error);
        }
        None
    }
}
