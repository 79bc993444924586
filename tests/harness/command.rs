//! The `vector14` command, run as its users run it.

use std::ffi::OsStr;
use std::fmt;
use std::io::Read;
use std::path::PathBuf;
use std::process::{self, Child, Output, Stdio};
use std::time::Duration;

use tempfile::TempDir;

use super::engine::engine;

/// A run of the command, in a folder of its own.
pub struct Command {
    folder: TempDir,
    wrapper: Vec<String>,
    arguments: Vec<String>,
}

/// A text that a test waits for on standard output, and what it does then.
pub type Cue<'a> = (&'a str, Box<dyn FnMut(&mut Child) + 'a>);

/// The command's path: `VECTOR14_BIN` in the lab, or else where cargo built it.
pub fn binary() -> PathBuf {
    std::env::var_os("VECTOR14_BIN").map_or_else(|| env!("CARGO_BIN_EXE_vector14").into(), PathBuf::from)
}

impl Command {
    pub fn new(arguments: &[&str]) -> Self {
        let folder = TempDir::new().unwrap();
        Self { folder, wrapper: Vec::new(), arguments: arguments.iter().map(ToString::to_string).collect() }
    }

    /// `vector14 run` with this config, and a summary in `summary.json`. The engine is the suite's unless the config
    /// names one.
    pub fn run_config(config: &str) -> Self {
        let command = Self::new(&["run", "config.toml", "--summary", "summary.json"]);
        let command = command.file("config.toml", config.as_bytes());
        match config.contains("engine = ") {
            true => command,
            false => command.argument("--set").argument(&format!("intercept.engine={}", engine().name())),
        }
    }

    /// Writes a file to the folder.
    pub fn file(self, name: &str, content: &[u8]) -> Self {
        std::fs::write(self.path(name), content).unwrap();
        self
    }

    pub fn argument(mut self, argument: &str) -> Self {
        self.arguments.push(argument.to_owned());
        self
    }

    /// Runs the command under another program, such as `strace`.
    pub fn under(mut self, wrapper: &[&str]) -> Self {
        self.wrapper = wrapper.iter().map(ToString::to_string).collect();
        self
    }

    /// The path of a file in the folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The process, ready to be spawned.
    pub fn process(&self) -> process::Command {
        let Some((wrapper, of_wrapper)) = self.wrapper.split_first() else {
            return self.process_of(binary());
        };
        let mut process = self.without_arguments(wrapper);
        process.args(of_wrapper).arg(binary()).args(&self.arguments);
        process
    }

    /// Another program, with this command's arguments and folder.
    pub fn process_of(&self, program: impl AsRef<OsStr>) -> process::Command {
        let mut process = self.without_arguments(program);
        process.args(&self.arguments);
        process
    }

    fn without_arguments(&self, program: impl AsRef<OsStr>) -> process::Command {
        let mut process = process::Command::new(program);
        process.current_dir(self.folder.path()).stdin(Stdio::null());
        process.env_remove("RUST_LOG").env("NO_COLOR", "1");
        process
    }

    /// Runs the command to its end.
    pub fn finish(self) -> Finished {
        let output = self.process().output().expect("the command can be started");
        self.finished(output)
    }

    /// Runs the command, and calls `act` with the process once standard output contains `cue`.
    pub fn finish_after(self, cue: &str, act: impl FnMut(&mut Child)) -> Finished {
        self.finish_after_each(vec![(cue, Box::new(act))])
    }

    /// As [`Self::finish_after`], for several cues in order. Each is looked for in output that is read after the last
    /// one.
    pub fn finish_after_each(self, cues: Vec<Cue<'_>>) -> Finished {
        let mut process = self.process();
        process.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = process.spawn().expect("the command can be started");
        let mut output = child.stdout.take().unwrap();
        let mut said = Vec::new();
        let mut buffer = [0; 4096];
        for (cue, mut act) in cues {
            let heard = said.len();
            while !String::from_utf8_lossy(&said[heard..]).contains(cue) {
                let count = output.read(&mut buffer).unwrap();
                if count == 0 {
                    let output = Output { stdout: said, ..child.wait_with_output().unwrap() };
                    panic!("no `{cue}` in\n{}", self.finished(output));
                }
                said.extend_from_slice(&buffer[..count]);
            }
            act(&mut child);
        }
        output.read_to_end(&mut said).unwrap();
        let output = child.wait_with_output().unwrap();
        self.finished(Output { stdout: said, ..output })
    }

    /// Runs the command, and calls `act` with the process once a vCPU thread exists.
    pub fn finish_once_running(self, act: impl FnOnce(&mut Child)) -> Finished {
        let mut process = self.process();
        let mut child =
            process.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the command can be started");
        while !has_vcpu(&child) {
            if child.try_wait().unwrap().is_some() {
                panic!("the command ended before its guest ran\n{}", self.finished(child.wait_with_output().unwrap()));
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        act(&mut child);
        let output = child.wait_with_output().unwrap();
        self.finished(output)
    }

    /// The result of a process that the test ran itself.
    pub fn finished(self, output: Output) -> Finished {
        Finished { output, folder: self.folder }
    }
}

fn has_vcpu(process: &Child) -> bool {
    let tasks = std::fs::read_dir(format!("/proc/{}/task", process.id())).into_iter().flatten().flatten();
    let mut names = tasks.filter_map(|task| std::fs::read_to_string(task.path().join("comm")).ok());
    names.any(|name| name.trim_end() == "vcpu")
}

/// The result of a run. A failed test prints its `Display`.
pub struct Finished {
    output: Output,
    folder: TempDir,
}

impl Finished {
    pub fn status(&self) -> Option<i32> {
        self.output.status.code()
    }

    pub fn stdout(&self) -> String {
        String::from_utf8_lossy(&self.output.stdout).into_owned()
    }

    pub fn stderr(&self) -> String {
        String::from_utf8_lossy(&self.output.stderr).into_owned()
    }

    /// The path of a file in the folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn read(&self, name: &str) -> String {
        let path = self.path(name);
        std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}\n{self}", path.display()))
    }

    pub fn bytes(&self, name: &str) -> Vec<u8> {
        let path = self.folder.path().join(name);
        std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}\n{self}", path.display()))
    }

    /// The summary that `--summary summary.json` wrote.
    pub fn summary(&self) -> serde_json::Value {
        serde_json::from_str(&self.read("summary.json")).unwrap_or_else(|error| panic!("{error}\n{self}"))
    }

    /// Checks that the command ended with this exit status, and that standard error contains each of `words`.
    #[track_caller]
    pub fn failed_with(self, status: i32, words: &[&str]) -> Self {
        assert_eq!(self.status(), Some(status), "{self}");
        // Diagnostics are wrapped at the width of a terminal.
        let said = self.stderr().split_whitespace().filter(|word| *word != "│").collect::<Vec<_>>().join(" ");
        for word in words {
            assert!(said.contains(word), "no `{word}` in\n{self}");
        }
        self
    }
}

impl fmt::Display for Finished {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "--- {}\n--- stdout\n{}\n--- stderr\n{}", self.output.status, self.stdout(), self.stderr())
    }
}
