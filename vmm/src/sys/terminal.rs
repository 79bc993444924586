//! The terminal on standard input in raw mode, and back, however the program ends.

use std::io::IsTerminal;
use std::os::fd::AsRawFd;

/// Gives the terminal its original settings back when it goes out of scope.
pub struct RawTerminal(libc::termios);

/// Puts the terminal on standard input into raw mode, so that every key goes to the guest. `None` where standard
/// input is no terminal.
///
/// # Errors
/// The terminal refuses the new settings.
pub fn raw() -> std::io::Result<Option<RawTerminal>> {
    let stdin = std::io::stdin();
    if !stdin.is_terminal() {
        return Ok(None);
    }
    let mut settings = std::mem::MaybeUninit::uninit();
    // SAFETY: the descriptor is open, and `settings` is a termios to be filled in.
    if unsafe { libc::tcgetattr(stdin.as_raw_fd(), settings.as_mut_ptr()) } != 0 {
        return Err(std::io::Error::last_os_error());
    }
    // SAFETY: tcgetattr succeeded, so it has filled in all of it.
    let mut settings: libc::termios = unsafe { settings.assume_init() };
    let original = RawTerminal(settings);
    settings.c_lflag &= !(libc::ICANON | libc::ECHO | libc::ISIG | libc::IEXTEN);
    settings.c_iflag &= !(libc::ICRNL | libc::IXON);
    // SAFETY: the descriptor is open and `settings` is a whole termios.
    if unsafe { libc::tcsetattr(stdin.as_raw_fd(), libc::TCSANOW, &raw const settings) } != 0 {
        return Err(std::io::Error::last_os_error());
    }
    Ok(Some(original))
}

impl Drop for RawTerminal {
    fn drop(&mut self) {
        // SAFETY: the descriptor is a number that the call checks, and the settings are a whole termios.
        unsafe { libc::tcsetattr(libc::STDIN_FILENO, libc::TCSANOW, &raw const self.0) };
    }
}
