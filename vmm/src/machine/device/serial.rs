//! The 16550 UART at COM1. What the guest prints goes to an [`Outlet`] at once; input waits until the guest takes it.

use std::fs::File;
use std::io::{self, Write};
use std::sync::{Arc, Mutex};

use vm_superio::serial::{Error, SerialEvents};
use vm_superio::{Serial, Trigger};
use vmm_sys_util::eventfd::EventFd;

use super::Device;
use crate::machine::outlet::Outlet;
use crate::machine::stop::Stop;
use crate::sys::lock;

/// The UART's interrupt line: ISA IRQ 4.
pub(crate) const COM1_GSI: u32 = 4;

/// Why input could not be put into the UART.
pub(crate) type SerialError = Error<io::Error>;

/// The UART, shared by the bus and the input side.
#[derive(Clone)]
pub(crate) struct Com1(Arc<Mutex<Serial<Interrupt, Room, Transmitter>>>);

impl Com1 {
    /// A UART that raises `interrupt`, prints to `console`, and signals the eventfd `room` when the guest has taken all input.
    pub(crate) fn new(interrupt: EventFd, room: File, console: Outlet) -> Self {
        Self(Arc::new(Mutex::new(Serial::with_events(Interrupt(interrupt), Room(room), Transmitter(console)))))
    }

    /// How many bytes of input the UART can take now.
    pub(crate) fn capacity(&self) -> usize {
        lock(&self.0).fifo_capacity()
    }

    /// Gives input to the guest: at most [`Com1::capacity`] bytes.
    pub(crate) fn input(&self, bytes: &[u8]) -> Result<(), SerialError> {
        lock(&self.0).enqueue_raw_bytes(bytes).map(drop)
    }
}

impl Device for Com1 {
    fn read(&mut self, offset: u64, data: &mut [u8]) {
        if let (Ok(offset), Some(value)) = (u8::try_from(offset), data.first_mut()) {
            *value = lock(&self.0).read(offset);
        }
    }

    fn write(&mut self, offset: u64, data: &[u8]) -> Option<Stop> {
        if let (Ok(offset), Some(value)) = (u8::try_from(offset), data.first()) {
            // A full FIFO in loop-back mode is the guest's own problem, as on hardware.
            let _ = lock(&self.0).write(offset, *value);
        }
        None
    }
}

/// The UART's interrupt line, an irqfd.
struct Interrupt(EventFd);

impl Trigger for Interrupt {
    type E = io::Error;

    fn trigger(&self) -> io::Result<()> {
        self.0.write(1)
    }
}

/// Signals the input side that there is room again.
struct Room(File);

impl SerialEvents for Room {
    fn buffer_read(&self) {}
    fn out_byte(&self) {}
    fn tx_lost_byte(&self) {}

    fn in_buffer_empty(&self) {
        // Non-blocking. A counter that is full already signals the same.
        let _ = (&self.0).write(&1_u64.to_ne_bytes());
    }
}

/// The output side. It never blocks: vCPUs are held between two exits long before the outlet is full.
struct Transmitter(Outlet);

impl Write for Transmitter {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        self.0.push(buffer);
        Ok(buffer.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn registers_outside_of_the_uart_are_ignored() {
        let interrupt = EventFd::new(0).unwrap();
        let console = Outlet::new("the console", Box::new(io::sink())).unwrap();
        let mut com1 = Com1::new(interrupt, tempfile::tempfile().unwrap(), console);
        let mut data = [0xff; 4];
        com1.read(300, &mut data);
        assert_eq!(data, [0xff; 4]);
        assert_eq!(com1.write(7, &[]), None);
    }
}
