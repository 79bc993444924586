//! The 16550 UART at COM1: what the guest prints goes out at once, what is typed goes in as it takes it.

use std::io::{self, Write};
use std::sync::{Arc, Mutex};

use vm_superio::serial::{Error, SerialEvents};
use vm_superio::{Serial, Trigger};
use vmm_sys_util::eventfd::EventFd;

use super::Device;
use crate::summary::Stop;
use crate::sys::lock;

/// Its interrupt line: ISA IRQ 4.
pub(crate) const COM1_GSI: u32 = 4;

/// Where the guest's console output goes.
pub type SharedOutput = Box<dyn Write + Send>;

/// What can go wrong when input is put into the UART.
pub(crate) type SerialError = Error<io::Error>;

/// The UART, shared between the bus and whoever feeds it input.
#[derive(Clone)]
pub(crate) struct Com1(Arc<Mutex<Serial<Interrupt, Room, Output>>>);

impl Com1 {
    /// A UART that raises `interrupt`, prints to `output`, and signals `room` when the guest has taken all input.
    pub(crate) fn new(interrupt: EventFd, room: EventFd, output: SharedOutput) -> Self {
        let output = Output { sink: output, broken: false };
        Self(Arc::new(Mutex::new(Serial::with_events(Interrupt(interrupt), Room(room), output))))
    }

    /// How many bytes of input it takes now.
    pub(crate) fn capacity(&self) -> usize {
        lock(&self.0).fifo_capacity()
    }

    /// Hands input to the guest; at most [`Com1::capacity`] bytes.
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
            // A full FIFO in loop-back mode is the guest's own affair, as on hardware.
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

/// Tells the input side that there is room again.
struct Room(EventFd);

impl SerialEvents for Room {
    fn buffer_read(&self) {}
    fn out_byte(&self) {}
    fn tx_lost_byte(&self) {}

    fn in_buffer_empty(&self) {
        // The counter can't overflow: every wait takes all of it.
        let _ = self.0.write(1);
    }
}

/// The sink of the guest's output. A sink that fails is reported once and then left alone: a guest does not stop
/// because nobody reads its console.
struct Output {
    sink: SharedOutput,
    broken: bool,
}

impl Write for Output {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        if !self.broken
            && let Err(error) = self.sink.write_all(buffer).and_then(|()| self.sink.flush())
        {
            self.broken = true;
            tracing::warn!("the guest's console output can't be written ({error}): it is dropped from here on");
        }
        Ok(buffer.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Full;

    impl Write for Full {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::StorageFull.into())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn com1(output: SharedOutput) -> Com1 {
        Com1::new(EventFd::new(0).unwrap(), EventFd::new(libc::EFD_NONBLOCK).unwrap(), output)
    }

    #[test]
    fn a_full_disk_behind_the_console_does_not_stop_the_guest() {
        let mut com1 = com1(Box::new(Full));
        for byte in *b"hello" {
            assert_eq!(com1.write(0, &[byte]), None);
        }
    }

    #[test]
    fn registers_outside_of_the_uart_are_ignored() {
        let mut com1 = com1(Box::new(io::sink()));
        let mut data = [0xff; 4];
        com1.read(300, &mut data);
        assert_eq!(data, [0xff; 4]);
        assert_eq!(com1.write(7, &[]), None);
    }
}
