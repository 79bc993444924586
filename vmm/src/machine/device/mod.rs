//! The machine's devices, on one bus for ports and one for memory-mapped registers.

mod bus;
mod display;
mod exit_port;
mod i8042;
mod power;
mod rtc;
mod serial;
pub(crate) mod virtio;

pub(crate) use bus::{Bus, Device};
pub(crate) use display::{DISPLAY_PORT, NoDisplay};
pub(crate) use exit_port::ExitPort;
pub(crate) use i8042::I8042;
pub(crate) use power::{
    RESET_CODE, RESET_PORT, RESET_VALUE, RESET_VECTOR, ResetControl, S5_SLEEP_TYPE, SLEEP_CONTROL_PORT,
    SLEEP_STATUS_PORT, Sleep,
};
pub(crate) use rtc::{RTC_CENTURY, RTC_PORT, Rtc};
pub(crate) use serial::{COM1_GSI, Com1};
pub(crate) use virtio::image::ImageError;
