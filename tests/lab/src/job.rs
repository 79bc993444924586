//! What is asked of the lab: a fragment of shell that its `init` reads.

use std::io::{IsTerminal, stdout};
use std::time::Duration;

use crate::modules::Kvm;

/// Something that runs in the lab.
#[derive(Debug)]
pub(crate) struct Job {
    script: String,
    attendance: Attendance,
    kvm: Kvm,
    /// What its records and its initial RAM file system are called.
    name: String,
}

/// How long a flat of kvm-unit-tests may take: the tests in the lab are told what those outside would be.
const FLATS_TIMEOUT: &str = "VECTOR14_FLATS_TIMEOUT";

/// The name of a job that has the lab to itself.
const ALONE: &str = "last";

/// Whether somebody sits in front of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Attendance {
    /// The terminal is the lab's, and QEMU obeys Ctrl-A.
    Attended,
    /// Output only.
    Unattended,
}

impl Job {
    /// A shell on the terminal.
    pub(crate) fn shell(kvm: Kvm) -> Self {
        let (columns, rows) = terminal_size::terminal_size().map_or((80, 24), |(width, height)| (width.0, height.0));
        let terminal = std::env::var("TERM").unwrap_or_else(|_| "linux".to_owned());
        let script = format!(
            "export TERM={terminal} PS1='lab:\\w# '\n\
             stty -F /dev/ttyS0 sane rows {rows} cols {columns}\n\
             job() {{ setsid -c busybox sh <>/dev/ttyS0 >&0 2>&1; }}\n",
            terminal = quote(&terminal),
        );
        Self { script, attendance: Attendance::Attended, kvm, name: ALONE.to_owned() }
    }

    /// The integration tests, as strict as in CI, with `engine`; without one, with what `auto` takes.
    pub(crate) fn tests(kvm: Kvm, engine: Option<&str>, arguments: &[String]) -> Self {
        let color = if stdout().is_terminal() { "always" } else { "never" };
        let mut words = vec!["integration".to_owned()];
        if !arguments.iter().any(|argument| argument.starts_with("--color")) {
            words.push(format!("--color={color}"));
        }
        words.extend_from_slice(arguments);
        let engine = engine.map(ToOwned::to_owned);
        let variables = [("VECTOR14_ENGINE", engine), (FLATS_TIMEOUT, std::env::var(FLATS_TIMEOUT).ok())];
        let exports =
            variables.into_iter().filter_map(|(name, value)| Some(format!("export {name}={}\n", quote(&value?))));
        Self::unattended(kvm, &format!("export CI=1\n{}", exports.collect::<String>()), &words)
    }

    /// A command.
    pub(crate) fn command(kvm: Kvm, words: &[String]) -> Self {
        Self::unattended(kvm, if stdout().is_terminal() { "" } else { "export NO_COLOR=1\n" }, words)
    }

    fn unattended(kvm: Kvm, environment: &str, words: &[String]) -> Self {
        let words: Vec<String> = words.iter().map(|word| quote(word)).collect();
        let command = words.join(" ");
        let script = format!(
            "{environment}export VECTOR14_KVM={}\nstty -F /dev/ttyS0 -opost -echo\n\
             job() {{ {command} </dev/null >/dev/ttyS0 2>&1; }}\n",
            kvm.name()
        );
        Self { script, attendance: Attendance::Unattended, kvm, name: ALONE.to_owned() }
    }

    /// Has the lab end this job by itself after a time, with what it can tell of the reason.
    pub(crate) fn limited_to(mut self, limit: Duration) -> Self {
        self.script.push_str(&format!("limit={}\n", limit.as_secs().max(1)));
        self
    }

    /// One of several jobs that run side by side.
    pub(crate) fn named(mut self, name: String) -> Self {
        self.name = name;
        self
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn kvm(&self) -> Kvm {
        self.kvm
    }

    pub(crate) fn script(&self) -> &str {
        &self.script
    }

    pub(crate) fn attendance(&self) -> Attendance {
        self.attendance
    }
}

/// A word that a shell takes as it is.
fn quote(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_reach_the_shell_unchanged() {
        assert_eq!(quote("it's $HOME"), r"'it'\''s $HOME'");
        let job = Job::command(Kvm::Stock, &["echo".to_owned(), "a b".to_owned()]);
        assert!(job.script().contains("job() { 'echo' 'a b' </dev/null"), "{}", job.script());
    }

    #[test]
    fn a_color_that_was_asked_for_is_the_only_one() {
        let job = Job::tests(Kvm::Stock, None, &["--color=always".to_owned()]);
        assert_eq!(job.script().matches("--color").count(), 1, "{}", job.script());
    }
}
