//! One client's connection, line by line.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use serde_json::{Value, json};

use super::execute::{Answer, Subject};
use super::protocol::{Refusal, Request};
use super::stats::Meter;
use super::{LINE_MAX, PROTOCOL};
use crate::vm::RunState;

/// How long to wait for a client that does not read.
const WRITE_PATIENCE: Duration = Duration::from_secs(2);

/// One client's connection.
pub(super) struct Session<'a> {
    reader: BufReader<&'a UnixStream>,
    stream: &'a UnixStream,
}

/// What was read from the client.
enum Line {
    Text(Vec<u8>),
    TooLong,
    End,
}

impl<'a> Session<'a> {
    pub(super) fn new(stream: &'a UnixStream) -> io::Result<Self> {
        stream.set_write_timeout(Some(WRITE_PATIENCE))?;
        Ok(Self { reader: BufReader::new(stream), stream })
    }

    /// Executes the client's requests until it disconnects or sends a line that is too long.
    pub(super) fn serve(mut self, subject: &Subject) -> io::Result<()> {
        let (version, pid) = (env!("CARGO_PKG_VERSION"), std::process::id());
        self.write(&json!({ "vector14": { "version": version, "protocol": PROTOCOL, "pid": pid } }))?;
        loop {
            match self.read_line()? {
                Line::End => return Ok(()),
                Line::TooLong => return self.refuse(&Value::Null, &too_long()),
                Line::Text(line) if line.trim_ascii().is_empty() => {}
                Line::Text(line) => self.answer(&Request::parse(&line), subject)?,
            }
        }
    }

    /// Tells the client why it is not served.
    pub(super) fn turn_away(mut self, why: &Refusal) -> io::Result<()> {
        self.refuse(&Value::Null, why)
    }

    fn answer(&mut self, Request { id, command }: &Request, subject: &Subject) -> io::Result<()> {
        tracing::info!("asked through the control socket: {command:?}");
        match command.clone().and_then(|command| subject.execute(command)) {
            Ok(Answer::Once(result)) => self.write(&json!({ "id": id, "result": result })),
            Ok(Answer::Stats(interval)) => self.repeat_stats(id, interval, subject),
            Err(refusal) => self.refuse(id, &refusal),
        }
    }

    /// Sends one line per interval until the client disconnects or sends another request, or the VM ends. The last line
    /// is sent once the server has shut the connection for reading: before that, vCPUs may still finish their faults,
    /// and the counts are not final.
    fn repeat_stats(&mut self, id: &Value, interval: Duration, subject: &Subject) -> io::Result<()> {
        let mut meter = Meter::new(&subject.vm);
        self.stream.set_read_timeout(Some(interval))?;
        let quiet = loop {
            let state = match self.reader.fill_buf() {
                Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                    match subject.vm.state() {
                        RunState::Ended => continue,
                        state => state,
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => break Err(error),
                Ok([]) if subject.vm.state() == RunState::Ended => RunState::Ended,
                Ok(_) => break Ok(()),
            };
            self.write(&json!({ "id": id, "result": meter.read(&subject.vm, state) }))?;
            if state == RunState::Ended {
                break Ok(());
            }
        };
        self.stream.set_read_timeout(None)?;
        quiet
    }

    fn refuse(&mut self, id: &Value, refusal: &Refusal) -> io::Result<()> {
        self.write(&json!({ "id": id, "error": refusal }))
    }

    fn write(&mut self, value: &Value) -> io::Result<()> {
        let mut line = serde_json::to_vec(value)?;
        line.push(b'\n');
        self.stream.write_all(&line)
    }

    fn read_line(&mut self) -> io::Result<Line> {
        let mut line = Vec::new();
        let limit = u64::try_from(LINE_MAX).unwrap_or(u64::MAX);
        self.reader.by_ref().take(limit + 1).read_until(b'\n', &mut line)?;
        Ok(match line.last() {
            None => Line::End,
            Some(_) if line.len() > LINE_MAX => Line::TooLong,
            Some(_) => Line::Text(line),
        })
    }
}

fn too_long() -> Refusal {
    Refusal::new(format!("a line has at most {} KiB", LINE_MAX >> 10))
}
