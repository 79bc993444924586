//! The MC146818 real-time clock at 0x70 and its CMOS memory: the host's time in UTC, and the size of RAM in the cells
//! that PCs use for it.

use time::OffsetDateTime;

use super::Device;
use crate::machine::stop::Stop;

/// The index port; the data port is the next one.
pub(crate) const RTC_PORT: u16 = 0x70;

/// The cell of the century, as the FADT names it (ACPI 5.2.9, CENTURY).
pub(crate) const RTC_CENTURY: u8 = 0x32;

const INDEX: u64 = 0;
const CELLS: usize = 128;

const SECONDS: u8 = 0x00;
const MINUTES: u8 = 0x02;
const HOURS: u8 = 0x04;
const WEEKDAY: u8 = 0x06;
const DAY: u8 = 0x07;
const MONTH: u8 = 0x08;
const YEAR: u8 = 0x09;
const REGISTER_A: u8 = 0x0a;
const REGISTER_B: u8 = 0x0b;
const REGISTER_C: u8 = 0x0c;
const REGISTER_D: u8 = 0x0d;

/// Register A: an update is in progress. The bit is set for the last 244 microseconds of a second. A reader that finds
/// it clear has time to finish before the time changes (MC146818 data sheet, "Update Cycle").
const UPDATE_IN_PROGRESS: u8 = 1 << 7;
const UPDATE_NANOSECONDS: u32 = 244_000;
/// Register A: a 32,768 Hz crystal, and 1,024 Hz for the periodic interrupt, which is never raised.
const DIVIDER_AND_RATE: u8 = 0x26;
/// Register B: 24-hour mode. The next bit selects binary numbers rather than BCD.
const HOURS_24: u8 = 1 << 1;
const BINARY: u8 = 1 << 2;
/// Register D: the battery is good.
const VALID: u8 = 1 << 7;

/// The clock and its memory.
pub(crate) struct Rtc {
    index: u8,
    cells: [u8; CELLS],
    now: fn() -> OffsetDateTime,
}

impl Rtc {
    /// The clock of a machine whose RAM consists of these ranges, each its start and its size in bytes.
    pub(crate) fn new(ram: &[(u64, u64)]) -> Self {
        let size =
            |high| ram.iter().filter(|(start, _)| (*start >= 1 << 32) == high).map(|(_, size)| size).sum::<u64>();
        let (ram_below_4g, ram_above_4g) = (size(false), size(true));
        let mut rtc = Self { index: 0, cells: [0; CELLS], now: OffsetDateTime::now_utc };
        rtc.cells[usize::from(REGISTER_A)] = DIVIDER_AND_RATE;
        rtc.cells[usize::from(REGISTER_B)] = HOURS_24;
        rtc.set_size(&[0x15, 0x16], 640);
        let extended = ram_below_4g.saturating_sub(1 << 20) >> 10;
        rtc.set_size(&[0x17, 0x18], extended);
        rtc.set_size(&[0x30, 0x31], extended);
        rtc.set_size(&[0x34, 0x35], ram_below_4g.saturating_sub(16 << 20) >> 16);
        rtc.set_size(&[0x5b, 0x5c, 0x5d], ram_above_4g >> 16);
        rtc
    }

    /// Sets cells to a size, little-endian. A size that does not fit is replaced by the largest value.
    fn set_size(&mut self, cells: &[u8], size: u64) {
        let size = size.min((1 << (8 * cells.len())) - 1);
        for (cell, byte) in cells.iter().zip(size.to_le_bytes()) {
            self.cells[usize::from(*cell)] = byte;
        }
    }

    fn get(&self) -> u8 {
        let kept = self.cells[usize::from(self.index)];
        let now = (self.now)();
        let year = now.year().unsigned_abs();
        match self.index {
            SECONDS => self.encode(now.second()),
            MINUTES => self.encode(now.minute()),
            HOURS => self.encode_hour(now.hour()),
            WEEKDAY => self.encode(now.weekday().number_from_sunday()),
            DAY => self.encode(now.day()),
            MONTH => self.encode(now.month().into()),
            YEAR => self.encode(u8::try_from(year % 100).unwrap_or_default()),
            RTC_CENTURY => self.encode(u8::try_from(year / 100 % 100).unwrap_or_default()),
            REGISTER_A if now.nanosecond() >= 1_000_000_000 - UPDATE_NANOSECONDS => kept | UPDATE_IN_PROGRESS,
            REGISTER_C => 0,
            REGISTER_D => VALID,
            _ => kept,
        }
    }

    /// Writes the selected cell. Writes to the time and to interrupt flags are ignored: the time is the host's, and
    /// there are no interrupts.
    fn set(&mut self, value: u8) {
        match self.index {
            SECONDS | MINUTES | HOURS | WEEKDAY | DAY | MONTH | YEAR | RTC_CENTURY | REGISTER_C | REGISTER_D => {}
            REGISTER_A => self.cells[usize::from(REGISTER_A)] = value & !UPDATE_IN_PROGRESS,
            cell => self.cells[usize::from(cell)] = value,
        }
    }

    fn register_b(&self, bit: u8) -> bool {
        self.cells[usize::from(REGISTER_B)] & bit != 0
    }

    /// A number up to 99, in the format that register B selects.
    fn encode(&self, number: u8) -> u8 {
        if self.register_b(BINARY) { number } else { (number / 10) << 4 | (number % 10) }
    }

    fn encode_hour(&self, hour: u8) -> u8 {
        const PM: u8 = 1 << 7;
        match hour {
            hour if self.register_b(HOURS_24) => self.encode(hour),
            0 => self.encode(12),
            1..12 => self.encode(hour),
            12 => self.encode(12) | PM,
            hour => self.encode(hour - 12) | PM,
        }
    }
}

impl Device for Rtc {
    fn read(&mut self, offset: u64, data: &mut [u8]) {
        for (offset, byte) in (offset..).zip(data) {
            // On PCs, the index can't be read back.
            if offset != INDEX {
                *byte = self.get();
            }
        }
    }

    fn write(&mut self, offset: u64, data: &[u8]) -> Option<Stop> {
        for (offset, byte) in (offset..).zip(data) {
            match offset {
                // Bit 7 masks NMI, which no device here raises.
                INDEX => self.index = byte & 0x7f,
                _ => self.set(*byte),
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 2026-11-22, a Sunday, 15:04:05.
    fn afternoon() -> OffsetDateTime {
        OffsetDateTime::from_unix_timestamp(1_795_359_845).unwrap()
    }

    fn rtc() -> Rtc {
        Rtc { now: afternoon, ..Rtc::new(&[(0, 64 << 20)]) }
    }

    fn get(rtc: &mut Rtc, cell: u8) -> u8 {
        assert_eq!(rtc.write(0, &[cell]), None);
        let mut data = [0xff];
        rtc.read(1, &mut data);
        data[0]
    }

    fn set(rtc: &mut Rtc, cell: u8, value: u8) {
        assert_eq!(rtc.write(0, &[cell, value]), None);
    }

    const TIME: [u8; 8] = [RTC_CENTURY, YEAR, MONTH, DAY, WEEKDAY, HOURS, MINUTES, SECONDS];

    #[test]
    fn the_time_is_told_in_the_form_that_is_asked_for() {
        let mut rtc = rtc();
        assert_eq!(TIME.map(|cell| get(&mut rtc, cell)), [0x20, 0x26, 0x11, 0x22, 1, 0x15, 0x04, 0x05]);
        set(&mut rtc, REGISTER_B, BINARY | HOURS_24);
        assert_eq!(TIME.map(|cell| get(&mut rtc, cell)), [20, 26, 11, 22, 1, 15, 4, 5]);
        set(&mut rtc, REGISTER_B, 0);
        assert_eq!(get(&mut rtc, HOURS), 0x83);
    }

    #[test]
    fn an_update_is_in_progress_just_before_the_second_ends() {
        let mut rtc = rtc();
        assert_eq!(get(&mut rtc, REGISTER_A), 0x26);
        rtc.now = || afternoon().replace_nanosecond(999_800_000).unwrap();
        assert_eq!(get(&mut rtc, REGISTER_A), 0xa6);
        assert_eq!((get(&mut rtc, REGISTER_C), get(&mut rtc, REGISTER_D)), (0, VALID));
    }

    #[test]
    fn writes_are_kept_where_nothing_else_answers() {
        let mut rtc = rtc();
        for cell in 0..=255 {
            set(&mut rtc, cell, 0xa5);
        }
        assert_eq!(get(&mut rtc, 0x0f), 0xa5);
        set(&mut rtc, REGISTER_B, HOURS_24);
        assert_eq!(get(&mut rtc, SECONDS), 5);
    }

    #[test]
    fn memory_sizes_are_where_pcs_have_them() {
        let size = |below: u64, above: u64, cells: &[u8]| {
            let mut rtc = Rtc::new(&[(0, below), (1 << 32, above)]);
            cells.iter().rev().fold(0, |size, cell| size << 8 | u64::from(get(&mut rtc, *cell)))
        };
        assert_eq!(size(64 << 20, 0, &[0x15, 0x16]), 640);
        assert_eq!(size(64 << 20, 0, &[0x17, 0x18]), 63 << 10);
        assert_eq!(size(2 << 20, 0, &[0x34, 0x35]), 0);
        assert_eq!(size(3 << 30, 5 << 30, &[0x30, 0x31]), 0xffff);
        assert_eq!(size(3 << 30, 5 << 30, &[0x34, 0x35]), ((3 << 30) - (16 << 20)) >> 16);
        assert_eq!(size(3 << 30, 5 << 30, &[0x5b, 0x5c, 0x5d]), 5 << 14);
    }

    #[test]
    fn accesses_of_any_width_are_survived() {
        let mut rtc = rtc();
        let mut data = [0xff; 8];
        rtc.read(0, &mut data);
        rtc.read(1, &mut data[..0]);
        assert_eq!(rtc.write(1, &[0; 8]), None);
    }
}
