//! Other users of the host can neither block a control socket nor use it, and no control character that they write
//! reaches a terminal.

use std::fs::{self, Permissions};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;

use libtest_mimic::Trial;
use rustix::process::{Uid, geteuid};
use rustix::thread::set_thread_res_uid;
use tempfile::TempDir;
use vector14::ctl::{BindError, Client, ClientError, ControlSocket, Server};
use vector14_hooks::HOOKS;

use crate::harness::{Command, Finished, Guest, kvm_test, test};

pub fn tests() -> Vec<Trial> {
    let mut tests = vec![
        test("ctl-strangers::answers_that_write_to_the_terminal", answers),
        test("ctl-strangers::configs_that_write_to_the_terminal", configs),
    ];
    // Only root can become somebody else.
    if geteuid().is_root() {
        tests.extend([
            test("ctl-strangers::a_socket_that_is_squatted", squatted_socket),
            test("ctl-strangers::a_lock_that_is_squatted", squatted_lock),
            kvm_test("ctl-strangers::a_client_that_is_another_user", client),
        ]);
    }
    tests
}

const STRANGER: u32 = 65534;

/// Calls `act` as another user, in a thread of its own: Linux has credentials per thread.
fn as_stranger<T: Send>(act: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let stranger = scope.spawn(|| {
            let user = Uid::from_raw(STRANGER);
            set_thread_res_uid(user, user, user).unwrap();
            act()
        });
        stranger.join().unwrap()
    })
}

/// A folder that every user can write to, such as /tmp.
fn shared_folder() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(folder.path(), Permissions::from_mode(0o1777)).unwrap();
    folder
}

/// Checks that the only control characters in the output are line breaks, and tabs between the columns of a pipe.
#[track_caller]
fn assert_printable(finished: &Finished) {
    let said = [finished.stdout(), finished.stderr()].concat();
    let control = said.chars().find(|c| c.is_control() && !matches!(c, '\n' | '\t'));
    assert_eq!(control, None, "{said:?}");
}

/// Both encodings of the start of an escape sequence, and a character that overwrites the line.
const ESCAPES: &str = "\u{1b}]0;x\u{7}\u{9b}2J\r";

/// Runs `vector14 ctl` with `arguments`, against a server that answers `answer`.
fn ask(arguments: &[&str], answer: &serde_json::Value) -> Finished {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s");
    let listener = UnixListener::bind(&path).unwrap();
    let arguments: Vec<_> = ["ctl", path.to_str().unwrap()].iter().chain(arguments).copied().collect();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let (mut stream, _) = listener.accept().unwrap();
            stream.write_all(b"{\"vector14\":{\"protocol\":1}}\n").unwrap();
            BufReader::new(&stream).read_line(&mut String::new()).unwrap();
            writeln!(stream, "{answer}").unwrap();
        });
        Command::new(&arguments).finish()
    })
}

fn answers() {
    let refusal = serde_json::json!({"error": {"message": ESCAPES, "help": ESCAPES}});
    let finished = ask(&["status"], &refusal).failed_with(1, &["\\u{1b}]0;x\\u{7}\\u{9b}2J\\r"]);
    assert_printable(&finished);
    let name = serde_json::json!({"result": {"name": ESCAPES}});
    let finished = ask(&["add", "count"], &name);
    assert_eq!(finished.stdout(), "added \\u{1b}]0;x\\u{7}\\u{9b}2J\\r\n");
    let finished = ask(&["add", "count", "--json"], &name);
    assert_printable(&finished);
    assert_eq!(serde_json::from_str::<serde_json::Value>(&finished.stdout()).unwrap(), name["result"]);
    let nonsense = serde_json::json!({ ESCAPES: ESCAPES });
    assert_printable(&ask(&["status"], &nonsense).failed_with(3, &["an answer without result or error"]));
}

fn configs() {
    for config in [
        // In the line that the error shows, in a key, in a value, and in text that is not TOML.
        format!("[vm]\nmemory = 3 # {ESCAPES}\nvcpus = 99\n"),
        format!("\"{}\" = 1\n", "\\u001b]0;x\\u0007\\u009b2J"),
        "[boot]\nkernel = \"tiny\"\nprotocol = \"\\u001b[2J\"\n".to_owned(),
        format!("[vm\n{ESCAPES}"),
        format!("[[hook]]\nname = \"count\"\ntop = '''\n{ESCAPES}'''\n"),
    ] {
        let command = Command::new(&["check", "config.toml"]).file("config.toml", config.as_bytes());
        assert_printable(&command.finish().failed_with(2, &["config.toml"]));
    }
}

fn squatted_socket() {
    let folder = shared_folder();
    let path = folder.path().join("s");
    let _squatter = as_stranger(|| UnixListener::bind(&path).unwrap());
    let denied = Client::connect(&path).unwrap_err();
    assert!(matches!(denied, ClientError::Denied { owner: STRANGER, .. }), "{denied}");
    let arguments = ["ctl", path.to_str().unwrap(), "status"];
    Command::new(&arguments).finish().failed_with(3, &["user 65534's", "only the user that runs the VM"]);
}

fn squatted_lock() {
    let folder = shared_folder();
    as_stranger(|| fs::write(folder.path().join("s.lock"), "").unwrap());
    let squatted = ControlSocket::bind(&folder.path().join("s")).unwrap_err();
    assert!(matches!(squatted, BindError::Squatted { owner: STRANGER, .. }), "{squatted}");
    assert_eq!(squatted.help(), Some("name a path in a folder of your own"));
}

/// Another user may not control the VM, even if the socket's owner has given everybody access by mistake.
fn client() {
    let folder = shared_folder();
    let path = folder.path().join("s");
    let socket = ControlSocket::bind(&path).unwrap();
    fs::set_permissions(&path, Permissions::from_mode(0o666)).unwrap();
    let outcome = Guest::new("scenario=storm count=100000000").run_beside(|vm| {
        let _server = Server::start(socket, vm.clone(), HOOKS).unwrap();
        let told = as_stranger(|| first_line(&path));
        assert!(told.contains("user 65534 may not control this VM"), "{told}");
        let told = first_line(&path);
        assert!(told.contains("protocol"), "{told}");
        vm.stop().unwrap();
    });
    outcome.balanced();
}

fn first_line(path: &Path) -> String {
    let mut line = String::new();
    BufReader::new(UnixStream::connect(path).unwrap()).read_line(&mut line).unwrap();
    line
}
