//! The types of values that a config's keys take, each with the words for what is allowed.

use std::ops::Range;
use std::path::PathBuf;
use std::time::Duration;

use vector14_hook::{ErrorCode, Va};

use super::node::Value;
use super::reader::Parsed;
use super::{EngineChoice, ErrorCodeFilter, Kernel, Module, ProtocolChoice};
use crate::intercept::chain::OnError;
use crate::intercept::config::{STUB_STRIDE, TRUST_RANGE};
use crate::machine::config::{MEMORY_RANGE, MEMORY_STEP, TIMEOUT_MAX_DAYS, VCPUS_RANGE};

/// A size of guest memory, in bytes.
pub(super) fn memory(value: &Value) -> Parsed<u64> {
    let form = || "a size in quotes, such as \"64M\" or \"1G\" (units are powers of 1024)".to_owned();
    let range = || format!("a size from {} to {}", size(*MEMORY_RANGE.start()), size(*MEMORY_RANGE.end()));
    let text = value.as_str().ok_or_else(form)?;
    let parser = parse_size::Config::new().with_binary();
    let bytes = parser
        .parse_size(text)
        .map_err(|error| if error == parse_size::Error::PosOverflow { range() } else { form() })?;
    if !MEMORY_RANGE.contains(&bytes) {
        return Err(range());
    }
    if !bytes.is_multiple_of(MEMORY_STEP) {
        return Err(format!("a multiple of {}", size(MEMORY_STEP)));
    }
    Ok(bytes)
}

/// `bytes` in the largest unit that divides it, in the form of `vm.memory`.
#[must_use]
pub fn size(bytes: u64) -> String {
    let units = [(40, "T"), (30, "G"), (20, "M"), (10, "K")];
    match units.iter().find(|(shift, _)| bytes != 0 && bytes.trailing_zeros() >= *shift) {
        Some((shift, unit)) => format!("{}{unit}", bytes >> shift),
        None => bytes.to_string(),
    }
}

/// A number of virtual CPUs.
pub(super) fn vcpus(value: &Value) -> Parsed<u32> {
    let (min, max) = VCPUS_RANGE.into_inner();
    let number = value.as_integer().and_then(|number| u32::try_from(number).ok());
    let allowed = || match value.as_str() {
        Some(_) => format!("a number from {min} to {max}, without quotes"),
        None => format!("a number from {min} to {max}"),
    };
    number.filter(|number| VCPUS_RANGE.contains(number)).ok_or_else(allowed)
}

/// The time that a guest may run.
pub(super) fn timeout(value: &Value) -> Parsed<Duration> {
    let longest = Duration::from_secs(TIMEOUT_MAX_DAYS * 24 * 60 * 60);
    let range = format!("longer than 0s and at most {TIMEOUT_MAX_DAYS}days");
    time(value.as_str(), &range, |time| !time.is_zero() && time <= longest)
}

/// The time that a hook may take.
pub(super) fn hook_time(text: Option<&str>) -> Parsed<Duration> {
    let (shortest, longest) = TRUST_RANGE.into_inner();
    let [shortest, longest] = [shortest, longest].map(humantime::format_duration);
    time(text, &format!("a time from {shortest} to {longest}"), |time| TRUST_RANGE.contains(&time))
}

fn time(text: Option<&str>, range: &str, is_allowed: impl Fn(Duration) -> bool) -> Parsed<Duration> {
    let form = || "a time in quotes, such as \"500ms\", \"30s\" or \"5min\"".to_owned();
    match humantime::parse_duration(text.ok_or_else(form)?) {
        Ok(time) if is_allowed(time) => Ok(time),
        Ok(_) | Err(humantime::DurationError::NumberOverflow) => Err(range.to_owned()),
        Err(_malformed) => Err(form()),
    }
}

/// What happens when a hook fails.
pub(super) fn on_error(text: Option<&str>) -> Parsed<OnError> {
    one_of(text, &OnError::ALL, OnError::name)
}

/// The embedded kernel, or the path of one as written.
pub(super) fn kernel(value: &Value) -> Parsed<Kernel> {
    match value.as_str() {
        Some("tiny") => Ok(Kernel::Tiny),
        Some(path) if !path.is_empty() => Ok(Kernel::Path(path.into())),
        Some(_) | None => Err("\"tiny\" or the path of a kernel, in quotes".to_owned()),
    }
}

/// Any string.
pub(super) fn string(value: &Value) -> Parsed<String> {
    value.as_str().map(str::to_owned).ok_or_else(|| "a string, in quotes".to_owned())
}

/// A path, as written.
pub(super) fn path(value: &Value) -> Parsed<PathBuf> {
    let path = value.as_str().filter(|path| !path.is_empty());
    path.map(PathBuf::from).ok_or_else(|| "the path of a file, in quotes".to_owned())
}

/// A boolean.
pub(super) fn boolean(value: &Value) -> Parsed<bool> {
    if let Value::Boolean(boolean) = value { Ok(*boolean) } else { Err("true or false, without quotes".to_owned()) }
}

/// A kernel command line: a string without NUL.
pub(super) fn cmdline(value: &Value) -> Parsed<String> {
    match string(value)? {
        text if text.contains('\0') => Err("a string without NUL bytes".to_owned()),
        text => Ok(text),
    }
}

/// A module: the path of a file as written, with words for the kernel after a space.
pub(super) fn module(value: &Value) -> Parsed<Module> {
    let allowed = || "the path of a file, in quotes, with words for the kernel after a space".to_owned();
    let string = value.as_str().filter(|text| !text.contains('\0')).ok_or_else(allowed)?;
    let path = string.split(' ').next().filter(|path| !path.is_empty()).ok_or_else(allowed)?;
    Ok(Module { path: path.into(), string: string.to_owned() })
}

/// The name of a boot protocol.
pub(super) fn protocol(value: &Value) -> Parsed<ProtocolChoice> {
    one_of(value.as_str(), &ProtocolChoice::ALL, ProtocolChoice::name)
}

/// The name of an engine.
pub(super) fn engine(value: &Value) -> Parsed<EngineChoice> {
    one_of(value.as_str(), &EngineChoice::ALL, EngineChoice::name)
}

/// The value among `all` that has this name.
fn one_of<T: Copy>(text: Option<&str>, all: &[T], name: impl Fn(T) -> &'static str) -> Parsed<T> {
    let choice = all.iter().copied().find(|choice| text == Some(name(*choice)));
    let names = || all.iter().map(|choice| format!("\"{}\"", name(*choice))).collect::<Vec<_>>().join(", ");
    choice.ok_or_else(|| format!("one of {}", names()))
}

/// A range of guest-virtual addresses for stubs.
pub(super) fn stub(value: &Value) -> Parsed<Range<Va>> {
    let form = "a table of two canonical addresses, such as { start = 0xffffffff81000000, end = 0xffffffff81000040 }";
    let Value::Table(table) = value else { return Err(form.to_owned()) };
    let address = |key: &str| address(&table.get(key)?.node.value);
    match (address("start"), address("end"), table.len()) {
        (Some(start), Some(end), 2) if end.0.saturating_sub(start.0) >= STUB_STRIDE as u64 => Ok(start..end),
        (Some(_), Some(_), 2) => Err(format!("a range of at least {STUB_STRIDE} bytes, which is what a stub takes")),
        _ => Err(form.to_owned()),
    }
}

/// A canonical guest-virtual address, as a number or as a string.
fn address(value: &Value) -> Option<Va> {
    let number = value.as_integer().and_then(|number| u64::try_from(number).ok());
    let hexadecimal = |text: &str| u64::from_str_radix(&text.strip_prefix("0x")?.replace('_', ""), 16).ok();
    let address = number.or_else(|| hexadecimal(value.as_str()?))?;
    Some(Va(address)).filter(|address| address.is_canonical(5))
}

/// A filter on the error codes of faults.
pub(super) fn error_code(value: &Value) -> Parsed<ErrorCodeFilter> {
    let form = "a table of two numbers of 32 bits, such as { mask = 0x3, match = 0x2 } for writes to absent pages";
    let Value::Table(table) = value else { return Err(form.to_owned()) };
    let number = |key: &str| u32::try_from(table.get(key)?.node.value.as_integer()?).ok();
    match (number("mask"), number("match"), table.len()) {
        (Some(mask), Some(wanted), 2) if wanted & !mask == 0 => {
            let [mask, value] = [mask, wanted].map(ErrorCode::from_bits_retain);
            Ok(ErrorCodeFilter { mask, value })
        }
        (Some(_), Some(_), 2) => {
            Err("a table whose match has no bit that its mask lacks: no fault would match".to_owned())
        }
        _ => Err(form.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_written_in_the_unit_that_fits() {
        for text in ["2M", "64M", "1G", "1028K", "1T"] {
            let bytes = parse_size::Config::new().with_binary().parse_size(text).unwrap();
            assert_eq!(size(bytes), text);
        }
        assert_eq!(size(4097), "4097");
    }
}
