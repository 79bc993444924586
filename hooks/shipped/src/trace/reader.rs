//! Reads a JSON trace back line by line, for `vector14 replay`.

use std::io::{self, BufRead, Read};

use vector14_hook::Fault;

use super::line::parse_json;

/// Longest line accepted, in bytes. The longest line that `trace` writes has some 350 bytes.
const LONGEST_LINE: u64 = 4096;

/// An error in a trace, with its line.
#[derive(Debug, thiserror::Error)]
pub enum TraceError {
    /// The trace can't be read.
    #[error("line {line}: {error}")]
    Unreadable {
        /// The line, from 1.
        line: u64,
        /// The I/O error.
        error: io::Error,
    },
    /// A line is longer than any line of a trace.
    #[error("line {line}: longer than {LONGEST_LINE} bytes, so it is not a line of a trace")]
    TooLong {
        /// The line, from 1.
        line: u64,
    },
    /// The last line is truncated.
    #[error("line {line}: is truncated; the trace ends there")]
    CutOff {
        /// The line, from 1.
        line: u64,
    },
    /// A line is not a fault.
    #[error("line {line}: is not a fault as the hook `trace` writes it with format = \"json\": {why}")]
    NoFault {
        /// The line, from 1.
        line: u64,
        /// What is wrong with it.
        why: String,
    },
}

/// Iterates over the faults of a trace, in order. Holds one line at a time, and ends after an error.
pub struct TraceReader<R> {
    input: R,
    buffer: Vec<u8>,
    line: u64,
    ended: bool,
}

impl<R: BufRead> TraceReader<R> {
    /// Reads from `input`.
    pub fn new(input: R) -> Self {
        Self { input, buffer: Vec::new(), line: 0, ended: false }
    }

    fn read(&mut self) -> Result<Option<Fault>, TraceError> {
        self.line += 1;
        let line = self.line;
        self.buffer.clear();
        let mut bounded = self.input.by_ref().take(LONGEST_LINE + 1);
        match bounded.read_until(b'\n', &mut self.buffer) {
            Err(error) => Err(TraceError::Unreadable { line, error }),
            Ok(0) => Ok(None),
            Ok(_) if self.buffer.len() as u64 > LONGEST_LINE => Err(TraceError::TooLong { line }),
            Ok(_) => match parse_json(&self.buffer) {
                Ok(fault) => Ok(Some(fault)),
                Err(_) if !self.buffer.ends_with(b"\n") => Err(TraceError::CutOff { line }),
                Err(error) => Err(TraceError::NoFault { line, why: error.to_string() }),
            },
        }
    }
}

impl<R: BufRead> Iterator for TraceReader<R> {
    type Item = Result<Fault, TraceError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        let read = self.read().transpose();
        self.ended = !matches!(read, Some(Ok(_)));
        read
    }
}

#[cfg(test)]
mod tests {
    use super::super::line::Format;
    use super::*;
    use crate::tests::fault;
    use vector14_hook::ErrorCode;

    fn line(fault: &Fault) -> Vec<u8> {
        let mut out = Vec::new();
        Format::Json.write_line(fault, &mut out).unwrap();
        out
    }

    fn read(text: &[u8]) -> Vec<Result<Fault, String>> {
        TraceReader::new(text).map(|read| read.map_err(|error| error.to_string())).collect()
    }

    #[test]
    fn what_was_written_is_read_back() {
        let all = Fault {
            error_code: ErrorCode::all(),
            vcpu: 7,
            cs: u16::MAX,
            rflags: u64::MAX,
            ..fault(u64::MAX, u64::MAX)
        };
        let faults = [fault(0, 0x1000), all, fault(2, 0)];
        let text: Vec<u8> = faults.iter().flat_map(line).collect();
        assert_eq!(read(&text), faults.map(Ok));
        assert_eq!(read(b""), []);
        assert_eq!(read(&text[..text.len() - 1]).last(), Some(&Ok(faults[2])), "the last line end may be missing");
    }

    #[test]
    fn what_is_no_fault_is_named_with_its_line() {
        let good = String::from_utf8(line(&fault(0, 0x1000))).unwrap();
        for (bad, said) in [
            ("#0 vcpu 0  write, user\n".to_owned(), "line 2: is not a fault as the hook `trace` writes it"),
            ("\n".to_owned(), "line 2: is not a fault"),
            ("{}\n".to_owned(), "missing field"),
            (good.replace("0x1000\"", "0x1_0000_0000_0000_0000\""), "0x1_0000_0000_0000_0000"),
            (good.replace("\"vcpu\":0", "\"vcpu\":-1"), "-1"),
            (good.replace("\"vcpu\":0", "\"vcpu\":8"), "8"),
            (good.replace("\"cs\":\"0x33\"", "\"cs\":\"0x10033\""), "0x10033"),
            (good.replace("\"ss\"", "\"tt\""), "ss"),
            ("x".repeat(5000), "line 2: longer than 4096 bytes"),
            (good[..50].to_owned(), "line 2: is truncated"),
        ] {
            let read = read(format!("{good}{bad}{good}").as_bytes());
            let last = read.last().unwrap().as_ref();
            // A line is truncated only if it is the last.
            if !said.contains("truncated") {
                assert!(last.is_err_and(|error| error.contains(said)), "{bad}: {read:?}");
                assert_eq!(read.len(), 2, "nothing comes after it");
            }
        }
        let cut = read(format!("{good}{}", &good[..50]).as_bytes());
        assert!(cut[1].as_ref().is_err_and(|error| error.contains("line 2: is truncated")), "{cut:?}");
    }

    #[test]
    fn an_endless_line_is_read_no_further_than_need_be() {
        let endless = io::BufReader::new(io::repeat(b'['));
        let mut reader = TraceReader::new(endless);
        assert!(matches!(reader.next(), Some(Err(TraceError::TooLong { line: 1 }))));
        assert!(reader.next().is_none() && reader.buffer.len() <= 4097);
    }
}
