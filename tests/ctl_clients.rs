//! Clients of the control socket that break the protocol, are too many, or do not read: the VM and the other clients
//! carry on.

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use libtest_mimic::Trial;
use serde_json::{Value, json};
use vector14::ctl::{self, CLIENTS_MAX, Client, ControlSocket, LINE_MAX, Server};
use vector14::summary::Stop;
use vector14::vm::VmHandle;
use vector14_hook::{Fault, Guest as Handle, Hook, Result, Verdict};
use vector14_hooks::HOOKS;

use crate::harness::{Guest, Outcome, kvm_test};

pub fn tests() -> Vec<Trial> {
    vec![
        kvm_test("ctl-clients::requests_that_are_none", garbage),
        kvm_test("ctl-clients::one_that_does_not_read", slow),
        kvm_test("ctl-clients::too_many", too_many),
        kvm_test("ctl-clients::several_at_once", several),
        kvm_test("ctl-clients::the_end", the_end),
    ]
}

/// Runs a guest with a control socket until `act` returns.
fn with_socket(act: impl FnOnce(&Path, &VmHandle) + Send) -> Outcome {
    guest_with_socket(storm(), act)
}

fn storm() -> Guest {
    Guest::new("scenario=storm count=100000000")
}

fn guest_with_socket(guest: Guest, act: impl FnOnce(&Path, &VmHandle) + Send) -> Outcome {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s");
    let socket = ControlSocket::bind(&path).unwrap();
    let mut server = None;
    let outcome = guest.run_beside(|vm| {
        server = Some(Server::start(socket, vm.clone(), HOOKS).unwrap());
        act(&path, vm);
        let _ = vm.stop();
    });
    drop(server);
    assert_eq!(outcome.summary.stop, Stop::Request, "{outcome}");
    outcome.balanced()
}

/// A connection over which a test sends any bytes.
struct Raw(BufReader<UnixStream>);

impl Raw {
    fn connect(path: &Path) -> Self {
        let stream = UnixStream::connect(path).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        let mut raw = Self(BufReader::new(stream));
        assert_eq!(raw.read()["vector14"]["protocol"], 1);
        raw
    }

    fn read(&mut self) -> Value {
        let mut line = String::new();
        self.0.read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"))
    }

    fn say(&mut self, bytes: &[u8]) -> Value {
        self.0.get_mut().write_all(bytes).unwrap();
        self.read()
    }

    fn is_closed(&mut self) -> bool {
        matches!(self.0.read(&mut [0]), Ok(0) | Err(_))
    }
}

fn garbage() {
    with_socket(|path, _| {
        let mut raw = Raw::connect(path);
        for line in ["nonsense\n", "{\n", "[]\n", "\u{0}\n", "{\"command\":\"stpo\",\"id\":7}\n"] {
            let answer = raw.say(line.as_bytes());
            assert!(answer["error"]["message"].is_string(), "{line:?}: {answer}");
        }
        assert_eq!(raw.say(b"{\"command\":\"stpo\",\"id\":7}\n")["id"], 7);
        // The connection still works. Lines may arrive in pieces, several at once, or empty.
        raw.0.get_mut().write_all(b"\n{\"command\":\"hooks\",").unwrap();
        std::thread::sleep(Duration::from_millis(20));
        assert_eq!(raw.say(b"\"id\":1}\n{\"command\":\"hooks\",\"id\":2}\n")["id"], 1);
        assert_eq!(raw.read()["result"]["hooks"], json!([]));
        assert_eq!(raw.say(b"\xff\xfe\n")["id"], Value::Null);
        let long = vec![b'x'; LINE_MAX + 1];
        assert!(raw.say(&long)["error"]["message"].as_str().unwrap().contains("at most 64 KiB"));
        assert!(raw.is_closed());
    });
}

/// A client that sends requests and reads nothing is disconnected; no other client notices.
fn slow() {
    with_socket(|path, vm| {
        let mut stream = UnixStream::connect(path).unwrap();
        stream.set_write_timeout(Some(Duration::from_millis(100))).unwrap();
        let mut ask = || stream.write_all(b"{\"command\":\"status\"}\n").map_err(|error| error.kind());
        while ask().is_ok() {}
        let before = vm.status().faults.total;
        Client::connect(path).unwrap().request(&ctl::Command::Status).unwrap();
        let left = (0..300).find_map(|_| ask().err().filter(|error| *error != ErrorKind::WouldBlock));
        assert!(matches!(left, Some(ErrorKind::BrokenPipe | ErrorKind::ConnectionReset)), "{left:?}");
        assert!(vm.status().faults.total > before);
    });
}

fn too_many() {
    with_socket(|path, _| {
        let mut all: Vec<_> = (0..CLIENTS_MAX).map(|_| Raw::connect(path)).collect();
        let refused = Client::connect(path).unwrap_err().to_string();
        assert_eq!(refused, format!("there are {CLIENTS_MAX} clients, and there can't be more"));
        all.pop();
        let mut rounds = 0;
        while Client::connect(path).is_err() {
            rounds += 1;
            assert!(rounds < 1000, "a client that leaves makes room for another");
            std::thread::sleep(Duration::from_millis(10));
        }
        assert_eq!(all[0].say(b"{\"command\":\"hooks\"}\n")["result"]["hooks"], json!([]));
    });
}

/// Several clients add and remove hooks, and each gets the answers to its own requests.
fn several() {
    let outcome = with_socket(|path, _| {
        std::thread::scope(|scope| {
            for client in 0..4 {
                scope.spawn(move || {
                    let mut raw = Raw::connect(path);
                    for round in 0..10 {
                        let id = format!("{client}.{round}");
                        let add = json!({"id": id, "command": "add", "hook": "count"});
                        let mut answer = raw.say(format!("{add}\n").as_bytes());
                        while answer["error"]["message"] == "another client is changing the hooks" {
                            answer = raw.say(format!("{add}\n").as_bytes());
                        }
                        assert_eq!(answer["id"], id.as_str(), "{answer}");
                        let name = answer["result"]["name"].as_str().unwrap();
                        let remove = json!({"id": id, "command": "remove", "name": name});
                        while raw.say(format!("{remove}\n").as_bytes())["result"]["waiting"] != 0 {}
                    }
                });
            }
        });
    });
    let hooks = outcome.summary.hooks.len() as u64;
    assert_eq!(hooks + outcome.summary.earlier_hooks.hooks, 40, "{outcome}");
}

/// Takes ten intervals of `stats` per fault.
struct Slow;

impl Hook for Slow {
    fn on_fault(&self, _fault: &Fault, _guest: &mut dyn Handle) -> Result {
        std::thread::sleep(Duration::from_millis(100));
        Ok(Verdict::Pass)
    }
}

/// A client that follows `stats` gets the final counts, including the fault that a hook was handling when the VM was
/// stopped, and then the end of the stream.
fn the_end() {
    let mut raw = None;
    let outcome = guest_with_socket(storm().hook("slow", Slow), |path, vm| {
        while vm.status().faults.total == 0 {
            std::thread::sleep(Duration::from_millis(1));
        }
        let mut client = Raw::connect(path);
        client.say(b"{\"command\":\"stats\",\"interval_ms\":10}\n");
        raw = Some(client);
    });
    let mut raw = raw.unwrap();
    let last = loop {
        let line = raw.read();
        if line["result"]["state"] == "ended" {
            break line;
        }
    };
    assert!(raw.is_closed());
    assert_eq!(last["result"]["faults"], json!(outcome.summary.faults), "{outcome}");
    assert_eq!(last["result"]["verdicts"], json!(outcome.summary.verdicts), "{outcome}");
}
