//! The formats of a trace line.

use std::borrow::Cow;
use std::fmt::LowerHex;
use std::io;

use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use vector14_hook::{Cr3, ErrorCode, Fault, MAX_VCPUS, Va};

/// How a line is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Format {
    /// Human-readable columns.
    #[default]
    Text,
    /// One JSON object per line. `seq` and `vcpu` are numbers. Registers, the address and the error code are strings,
    /// `"0x..."`, because not every JSON reader preserves 64-bit numbers. `flags` names the bits of `error_code`.
    ///
    /// ```json
    /// {"seq":12,"vcpu":0,"address":"0x10000000","error_code":"0x6","flags":["write","user"],"rip":"0x401000",
    ///  "rsp":"0x7fff0000","cs":"0x33","ss":"0x2b","rflags":"0x246","cr3":"0x100000"}
    /// ```
    Json,
}

impl Format {
    /// Writes the line for `fault`, including the newline.
    pub(super) fn write_line(self, fault: &Fault, out: &mut Vec<u8>) -> io::Result<()> {
        match self {
            Self::Text => write_text(fault, out),
            Self::Json => serde_json::to_writer(&mut *out, &JsonLine::from(fault))?,
        }
        out.push(b'\n');
        Ok(())
    }
}

/// Width of the longest error-code text: `fetch, kernel, protection key`.
const WORDS: usize = 29;

fn write_text(fault: &Fault, out: &mut Vec<u8>) {
    let Fault { sequence, vcpu, address, error_code, rip, .. } = fault;
    let (number, words) = (format!("#{sequence}"), error_code.to_string());
    // Columns fit user addresses; kernel addresses push the rest of their line to the right.
    let line = format!("{number:<7} vcpu {vcpu}  {words:<WORDS$}  address {:<#14x}  rip {:#x}", address.0, rip.0);
    out.extend_from_slice(line.as_bytes());
}

/// Parses the fault of a JSON line.
pub(super) fn parse_json(line: &[u8]) -> serde_json::Result<Fault> {
    serde_json::from_slice(line).map(|line: JsonLine| line.into())
}

#[derive(Serialize, Deserialize)]
struct JsonLine {
    seq: u64,
    #[serde(deserialize_with = "vcpu")]
    vcpu: u32,
    address: Hex<u64>,
    error_code: Hex<u32>,
    /// The names of the bits in `error_code`.
    #[serde(skip_deserializing)]
    flags: Flags,
    rip: Hex<u64>,
    rsp: Hex<u64>,
    cs: Hex<u16>,
    ss: Hex<u16>,
    rflags: Hex<u64>,
    cr3: Hex<u64>,
}

impl From<&Fault> for JsonLine {
    fn from(fault: &Fault) -> Self {
        Self {
            seq: fault.sequence,
            vcpu: fault.vcpu,
            address: Hex(fault.address.0),
            error_code: Hex(fault.error_code.bits()),
            flags: Flags(fault.error_code),
            rip: Hex(fault.rip.0),
            rsp: Hex(fault.rsp.0),
            cs: Hex(fault.cs),
            ss: Hex(fault.ss),
            rflags: Hex(fault.rflags),
            cr3: Hex(fault.cr3.0),
        }
    }
}

impl From<JsonLine> for Fault {
    fn from(line: JsonLine) -> Self {
        Self {
            sequence: line.seq,
            vcpu: line.vcpu,
            address: Va(line.address.0),
            error_code: ErrorCode::from_bits_retain(line.error_code.0),
            cs: line.cs.0,
            rip: Va(line.rip.0),
            rsp: Va(line.rsp.0),
            ss: line.ss.0,
            rflags: line.rflags.0,
            cr3: Cr3(line.cr3.0),
        }
    }
}

/// Parses a vCPU number and checks that a VM can have it.
fn vcpu<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u32, D::Error> {
    let vcpu = u32::deserialize(deserializer)?;
    let known = (vcpu as usize) < MAX_VCPUS;
    if known { Ok(vcpu) } else { Err(D::Error::custom(format!("vcpu = {vcpu}: must be below {MAX_VCPUS}"))) }
}

/// A number as a string, such as `"0x1f"`.
struct Hex<T>(T);

impl<T: LowerHex> Serialize for Hex<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("{:#x}", self.0))
    }
}

impl<'de, T: TryFrom<u64>> Deserialize<'de> for Hex<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Cow::<str>::deserialize(deserializer)?;
        let digits = text.strip_prefix("0x").filter(|digits| !digits.starts_with('+'));
        let number = digits.and_then(|digits| u64::from_str_radix(digits, 16).ok());
        let value = number.and_then(|number| T::try_from(number).ok());
        let bits = 8 * size_of::<T>();
        value
            .map(Self)
            .ok_or_else(|| D::Error::custom(format!("{text:?}: must be a number of {bits} bits such as \"0x1f\"")))
    }
}

/// Names of error-code bits, such as `["present","user"]`, in bit order.
#[derive(Default)]
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

    fn line(format: Format, fault: &Fault) -> String {
        let mut out = Vec::new();
        format.write_line(fault, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn json_lines_match_the_reference() {
        let reference = include_str!("../../../../docs/reference/trace.md");
        let rows = reference.lines().filter_map(|row| row.strip_prefix("| `")?.split('`').next());
        let line: serde_json::Value = serde_json::from_str(&line(Format::Json, &fault(0, 0))).unwrap();
        let mut keys: Vec<_> = line.as_object().unwrap().keys().map(String::as_str).collect();
        let mut documented: Vec<_> = rows.collect();
        keys.sort_unstable();
        documented.sort_unstable();
        assert_eq!(keys, documented);

        let names = FLAG_NAMES.map(|(_, name)| format!("`{name}`")).join(", ");
        assert!(reference.contains(&format!("in bit order: {names}.")), "{names}");
    }

    #[test]
    fn text_lines_are_words_in_columns() {
        let mut kernel = Fault { vcpu: 7, cs: 0x10, rip: Va(0xffff_ffff_8100_0000), ..fault(123_456, 0) };
        kernel.error_code = ErrorCode::FETCH | ErrorCode::PROTECTION_KEY;
        assert_eq!(
            [line(Format::Text, &fault(12, 0x7fff_ffff_f000)), line(Format::Text, &kernel)].concat(),
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
