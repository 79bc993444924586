//! The guest's console on descriptors that misbehave: a pipe that nobody reads, a non-blocking pipe, and input that
//! arrives all at once.

use std::fs::File;
use std::io::{Read, Write};
use std::process::{Child, Stdio};
use std::time::Duration;

use libtest_mimic::Trial;
use rustix::fs::OFlags;

use crate::harness::{Command, Finished, kvm_test};

pub fn tests() -> Vec<Trial> {
    vec![
        kvm_test("console::deadline_while_nobody_reads", deadline_while_nobody_reads),
        kvm_test("console::signal_while_nobody_reads", signal_while_nobody_reads),
        kvm_test("console::ctl_while_nobody_reads", ctl_while_nobody_reads),
        kvm_test("console::nobody_reads_stderr", nobody_reads_stderr),
        kvm_test("console::a_slow_reader_loses_nothing", slow_reader),
        kvm_test("console::non_blocking_output_is_whole", non_blocking),
        kvm_test("console::pasted_input_arrives_whole", pasted),
    ]
}

/// A guest that prints 44 KB, more than the buffers on the way hold.
const CHATTER: &str = "[boot]\nkernel = \"tiny\"\ncmdline = \"scenario=chatter lines=1000\"\n";

/// A pipe of one page.
fn narrow_pipe() -> (File, File) {
    let (reader, writer) = rustix::pipe::pipe().unwrap();
    rustix::pipe::fcntl_setpipe_size(&writer, 4096).unwrap();
    (reader.into(), writer.into())
}

/// Waits until the pipe holds data and its level no longer rises.
fn until_full(reader: &File) {
    let mut before = 0;
    loop {
        std::thread::sleep(Duration::from_millis(300));
        let now = rustix::io::ioctl_fionread(reader).unwrap();
        if now > 0 && now == before {
            return;
        }
        before = now;
    }
}

/// Runs the guest with a standard output that nobody reads. Once the pipe is full, types one byte and calls `act`.
/// Standard input stays open.
fn unread(config: &str, act: impl FnOnce(&Command, &mut Child)) -> Finished {
    let command = Command::run_config(config);
    let (reader, writer) = narrow_pipe();
    let mut process = command.process();
    process.stdin(Stdio::piped()).stdout(writer).stderr(Stdio::piped());
    let mut child = process.spawn().unwrap();
    drop(process);
    until_full(&reader);
    // Fails if the deadline came first.
    let _ = child.stdin.as_mut().unwrap().write_all(b"x");
    act(&command, &mut child);
    let status = wait(&mut child);
    assert!(status.is_some(), "the process does not end");
    command.finished(child.wait_with_output().unwrap())
}

/// Waits for the process to end, longer than any of its own bounded waits; then kills it.
fn wait(child: &mut Child) -> Option<i32> {
    for _ in 0..600 {
        if let Some(status) = child.try_wait().unwrap() {
            return status.code();
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    child.kill().unwrap();
    None
}

/// Checks that the VM ended for this reason, and that the summary says how much output was lost.
#[track_caller]
fn held_up(finished: &Finished, reason: &str, status: i32) {
    assert_eq!(finished.status(), Some(status), "{finished}");
    let summary = finished.summary();
    assert_eq!(summary["stop"]["reason"], reason, "{finished}");
    let notes = summary["notes"].to_string();
    assert!(notes.contains("bytes of console output were not written"), "{finished}");
}

fn deadline_while_nobody_reads() {
    let finished = unread(&format!("{CHATTER}[vm]\ntimeout = \"10s\"\n"), |_, _| ());
    held_up(&finished, "deadline", 124);
}

fn signal_while_nobody_reads() {
    let finished = unread(&format!("{CHATTER}[vm]\ntimeout = \"100s\"\n"), |_, child| {
        std::thread::sleep(Duration::from_secs(1));
        send("-TERM", child);
    });
    held_up(&finished, "signal", 128 + libc::SIGTERM);
}

fn ctl_while_nobody_reads() {
    let config = format!("{CHATTER}[vm]\ntimeout = \"100s\"\n[control]\nsocket = \"s\"\n");
    let finished = unread(&config, |command, _| {
        std::thread::sleep(Duration::from_secs(1));
        let socket = command.path("s");
        let told = Command::new(&["ctl", socket.to_str().unwrap(), "stop"]).finish();
        assert_eq!(told.status(), Some(0), "{told}");
    });
    held_up(&finished, "request", 143);
}

fn send(signal: &str, child: &Child) {
    let sent = std::process::Command::new("kill").args([signal, &child.id().to_string()]).status();
    assert!(sent.unwrap().success());
}

/// Nobody reads the log: the VM runs to its end, and so does the process.
fn nobody_reads_stderr() {
    let config = "[boot]\nkernel = \"tiny\"\ncmdline = \"scenario=demand pages=10\"\n[vm]\ntimeout = \"30s\"\n\
                  [[hook]]\nname = \"count\"\n";
    let command = Command::run_config(config).argument("-vvv");
    let (_reader, writer) = narrow_pipe();
    let mut full = &writer;
    full.write_all(&[b'x'; 4096]).unwrap();
    let mut process = command.process();
    process.stdout(Stdio::piped()).stderr(writer.try_clone().unwrap());
    let mut child = process.spawn().unwrap();
    let status = wait(&mut child);
    let finished = command.finished(child.wait_with_output().unwrap());
    assert_eq!(status, Some(0), "{finished}");
    assert!(finished.stdout().contains("faults=10 ok"), "{finished}");
}

/// Checks that every line of the guest's output is there, in order.
#[track_caller]
fn assert_whole(said: &[u8], lines: usize) {
    let said = String::from_utf8_lossy(said);
    let expected = (0..lines).map(|line| format!("chatter: line {line} of what nobody may lose"));
    assert!(said.lines().skip(1).take(lines).eq(expected), "lines were lost:\n{said}");
    assert!(said.ends_with("faults=0 ok\r\n") || said.ends_with("faults=0 ok\n"), "{said}");
}

fn slow_reader() {
    let command = Command::run_config(&format!("{CHATTER}[vm]\ntimeout = \"100s\"\n"));
    let (mut reader, writer) = narrow_pipe();
    let mut process = command.process();
    let mut child = process.stdout(writer).stderr(Stdio::piped()).spawn().unwrap();
    drop(process);
    until_full(&reader);
    let mut said = Vec::new();
    reader.read_to_end(&mut said).unwrap();
    let status = wait(&mut child);
    let finished = command.finished(child.wait_with_output().unwrap());
    assert_eq!(status, Some(0), "{finished}");
    assert_whole(&said, 1000);
}

/// A full pipe that returns EAGAIN. Some parents leave their standard output non-blocking.
fn non_blocking() {
    let command = Command::run_config("[boot]\nkernel = \"tiny\"\ncmdline = \"scenario=chatter lines=1000\"\n");
    let (mut reader, writer) = narrow_pipe();
    rustix::fs::fcntl_setfl(&writer, OFlags::NONBLOCK).unwrap();
    let mut process = command.process();
    let child = process.stdout(writer).stderr(Stdio::piped()).spawn().unwrap();
    drop(process);
    until_full(&reader);
    let mut said = Vec::new();
    reader.read_to_end(&mut said).unwrap();
    let finished = command.finished(child.wait_with_output().unwrap());
    assert_eq!((finished.status(), finished.stderr().contains("can't be written")), (Some(0), false), "{finished}");
    assert_whole(&said, 1000);
}

/// More input than the UART's FIFO holds arrives at once. Nothing is typed after it, and standard input stays open.
fn pasted() {
    let text: String = ('a'..='z').cycle().take(200).collect();
    let config = "[boot]\nkernel = \"tiny\"\ncmdline = \"scenario=echo bytes=200\"\n[vm]\ntimeout = \"30s\"\n";
    let finished = Command::run_config(config)
        .finish_after("echo: ", |child| child.stdin.as_mut().unwrap().write_all(text.as_bytes()).unwrap());
    assert_eq!(finished.status(), Some(0), "{finished}");
    assert!(finished.stdout().contains(&text), "{finished}");
}
