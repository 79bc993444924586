//! Console input: feeds standard input to the guest's UART, on a thread of its own, no faster than the guest takes
//! it.

use std::fs::File;
use std::io::{self, IsTerminal, Read, Stdin, Write};
use std::os::fd::AsFd;
use std::sync::{Arc, Weak};

use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};
use rustix::io::{Errno, retry_on_intr};

use crate::machine::device::Com1;
use crate::machine::stop::Stop;
use crate::sys::endings;
use crate::sys::terminal::{self, RawTerminal};
use crate::vm::run::Shared;

/// Ctrl-A, the prefix of the key that ends the VM, as in QEMU.
const ESCAPE: u8 = 0x01;
const QUIT: u8 = b'x';

/// Size of a UART's FIFO, in bytes.
const FIFO: usize = 64;

/// Standard input, connected to the guest's console, its terminal in raw mode. Dropping this undoes both.
pub(crate) struct Input {
    ended: File,
    _raw: Option<RawTerminal>,
}

impl Input {
    /// Connects standard input to `com1`; the eventfd `room` is signalled when the guest has taken all input.
    ///
    /// # Errors
    /// The host refuses a thread or a descriptor.
    pub(crate) fn connect(com1: Com1, room: File, vm: &Arc<Shared>) -> io::Result<Self> {
        let ended = File::from(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?);
        let raw = terminal::raw(endings::restore_terminal_before)
            .inspect_err(|error| tracing::warn!("the terminal stays in line mode: {error}"))
            .unwrap_or_default();
        let source = io::stdin();
        let feeder = Feeder { source, com1, room, ended: ended.try_clone()?, escaped: false, vm: Arc::downgrade(vm) };
        std::thread::Builder::new().name("input".to_owned()).spawn(move || feeder.feed())?;
        Ok(Self { ended, _raw: raw })
    }
}

impl Drop for Input {
    fn drop(&mut self) {
        // The only write to this eventfd, so it can't fail.
        let _ = self.ended.write(&1_u64.to_ne_bytes());
    }
}

/// State of the input thread.
struct Feeder {
    source: Stdin,
    com1: Com1,
    room: File,
    /// Readable when the VM has ended.
    ended: File,
    escaped: bool,
    vm: Weak<Shared>,
}

impl Feeder {
    fn feed(mut self) {
        let mut buffer = [0; FIFO];
        loop {
            let room = self.com1.capacity().min(FIFO);
            if room == 0 {
                if !self.wait_for(&self.room) {
                    return;
                }
                // Non-blocking; whatever this returns, the capacity is checked again.
                let _ = (&self.room).read(&mut [0; 8]);
                continue;
            }
            if !self.wait_for(&self.source) {
                return;
            }
            // Bypasses the buffer of `Stdin`, which would hide bytes from the next wait.
            match rustix::io::read(&self.source, &mut buffer[..room]) {
                Ok(0) => return,
                Ok(count) => self.pass_on(&buffer[..count]),
                Err(Errno::AGAIN | Errno::INTR) => {}
                Err(_) => return,
            }
        }
    }

    /// Waits until `source` is readable. Returns false when the VM has ended.
    fn wait_for(&self, source: &impl AsFd) -> bool {
        let mut either = [PollFd::new(&self.ended, PollFlags::IN), PollFd::new(source, PollFlags::IN)];
        retry_on_intr(|| poll(&mut either, None)).is_ok() && either[0].revents().is_empty()
    }

    fn pass_on(&mut self, typed: &[u8]) {
        let typed = self.take_escapes(typed);
        if let Err(error) = self.com1.input(&typed) {
            tracing::warn!("console input was lost: {error}");
        }
    }

    /// Returns what is meant for the guest: Ctrl-A x ends the VM, Ctrl-A Ctrl-A is one Ctrl-A. Applies only to a
    /// terminal.
    fn take_escapes(&mut self, typed: &[u8]) -> Vec<u8> {
        if !self.source.is_terminal() {
            return typed.to_vec();
        }
        let mut passed = Vec::with_capacity(typed.len());
        for byte in typed {
            match (self.escaped, *byte) {
                (false, ESCAPE) => self.escaped = true,
                (true, QUIT) => self.quit(),
                (_, byte) => {
                    self.escaped = false;
                    passed.push(byte);
                }
            }
        }
        passed
    }

    fn quit(&self) {
        if let Some(vm) = self.vm.upgrade() {
            vm.vcpus.stop(Stop::Signal { signal: libc::SIGINT });
        }
    }
}
