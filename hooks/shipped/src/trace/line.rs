//! What a line of a trace looks like.

use std::io;

use serde::{Deserialize, Serialize, Serializer};
use vector14_hook::{ErrorCode, Fault};

/// How lines are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Format {
    /// For people: words, in columns.
    #[default]
    Text,
    /// For programs: one JSON object a line. What counts (`seq`, `vcpu`) is a number; what a register held or the CPU
    /// pushed is a string, `"0x..."`, since 64 bits do not survive every JSON reader; `flags` names the bits of
    /// `error_code`.
    ///
    /// ```json
    /// {"seq":12,"vcpu":0,"address":"0x10000000","error_code":"0x6","flags":["write","user"],"rip":"0x401000",
    ///  "rsp":"0x7fff0000","cs":"0x33","ss":"0x2b","rflags":"0x246","cr3":"0x100000"}
    /// ```
    Json,
}

impl Format {
    /// Writes the line for `fault`, its end included.
    pub(super) fn write_line(self, fault: &Fault, out: &mut Vec<u8>) -> io::Result<()> {
        match self {
            Self::Text => write_text(fault, out),
            Self::Json => serde_json::to_writer(&mut *out, &JsonLine::from(fault))?,
        }
        out.push(b'\n');
        Ok(())
    }
}

/// The longest words an error code has: `fetch, kernel, protection key`.
const WORDS: usize = 29;

fn write_text(fault: &Fault, out: &mut Vec<u8>) {
    let Fault { sequence, vcpu, address, error_code, rip, .. } = fault;
    let (number, words) = (format!("#{sequence}"), error_code.to_string());
    // Columns are as wide as user addresses need; kernel addresses push the rest of their line to the right.
    let line = format!("{number:<7} vcpu {vcpu}  {words:<WORDS$}  address {:<#14x}  rip {:#x}", address.0, rip.0);
    out.extend_from_slice(line.as_bytes());
}

#[derive(Serialize)]
struct JsonLine {
    seq: u64,
    vcpu: u32,
    address: Hex,
    error_code: Hex,
    flags: Flags,
    rip: Hex,
    rsp: Hex,
    cs: Hex,
    ss: Hex,
    rflags: Hex,
    cr3: Hex,
}

impl From<&Fault> for JsonLine {
    fn from(fault: &Fault) -> Self {
        Self {
            seq: fault.sequence,
            vcpu: fault.vcpu,
            address: Hex(fault.address.0),
            error_code: Hex(fault.error_code.bits().into()),
            flags: Flags(fault.error_code),
            rip: Hex(fault.rip.0),
            rsp: Hex(fault.rsp.0),
            cs: Hex(fault.cs.into()),
            ss: Hex(fault.ss.into()),
            rflags: Hex(fault.rflags),
            cr3: Hex(fault.cr3.0),
        }
    }
}

/// `"0x1f"`
struct Hex(u64);

impl Serialize for Hex {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("{:#x}", self.0))
    }
}

/// `["present","user"]`, in the order of the bits.
struct Flags(ErrorCode);

const FLAG_NAMES: [(ErrorCode, &str); 7] = [
    (ErrorCode::PRESENT, "present"),
    (ErrorCode::WRITE, "write"),
    (ErrorCode::USER, "user"),
    (ErrorCode::RESERVED, "reserved"),
    (ErrorCode::FETCH, "fetch"),
    (ErrorCode::PROTECTION_KEY, "protection_key"),
    (ErrorCode::SHADOW_STACK, "shadow_stack"),
];

impl Serialize for Flags {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let set = FLAG_NAMES.iter().filter(|(flag, _)| self.0.contains(*flag));
        serializer.collect_seq(set.map(|(_, name)| name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::fault;
    use vector14_hook::Va;

    fn line(format: Format, fault: &Fault) -> String {
        let mut out = Vec::new();
        format.write_line(fault, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn text_lines_are_words_in_columns() {
        let mut kernel = Fault { vcpu: 7, cs: 0x10, rip: Va(0xffff_ffff_8100_0000), ..fault(123_456, 0) };
        kernel.error_code = ErrorCode::FETCH | ErrorCode::PROTECTION_KEY;
        assert_eq!(
            line(Format::Text, &fault(12, 0x7fff_ffff_f000)) + &line(Format::Text, &kernel),
            "#12     vcpu 0  write, user, not present       address 0x7ffffffff000  rip 0x401000\n\
             #123456 vcpu 7  fetch, kernel, protection key  address 0x0             rip 0xffffffff81000000\n"
        );
    }

    #[test]
    fn json_lines_hold_the_whole_fault() {
        assert_eq!(
            line(Format::Json, &fault(12, 0x1000_0000)),
            "{\"seq\":12,\"vcpu\":0,\"address\":\"0x10000000\",\"error_code\":\"0x6\",\"flags\":[\"write\",\"user\"],\
             \"rip\":\"0x401000\",\"rsp\":\"0x7fff0000\",\"cs\":\"0x33\",\"ss\":\"0x2b\",\"rflags\":\"0x246\",\
             \"cr3\":\"0x1000\"}\n"
        );
    }

    #[test]
    fn json_flags_name_every_known_bit_and_the_code_keeps_the_rest() {
        let mut fault = fault(0, 0);
        fault.error_code = ErrorCode::all();
        let line = line(Format::Json, &fault);
        let names = "[\"present\",\"write\",\"user\",\"reserved\",\"fetch\",\"protection_key\",\"shadow_stack\"]";
        assert!(line.contains(names) && line.contains("\"error_code\":\"0xffffffff\""), "{line}");
    }
}
