//! One error in a config: what is wrong, where, and what would be right.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use miette::{Diagnostic, LabeledSpan, SourceCode};

use super::Place;
use crate::intercept::library::LibraryError;

/// One error in a config.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{reason}")]
pub struct Problem {
    /// Where the error is; `None` if the config did not come from text.
    pub place: Option<Place>,
    /// What is wrong at that place.
    pub reason: Reason,
}

/// What can be wrong in a config.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Reason {
    /// The text is not TOML.
    #[error("{0}")]
    Syntax(String),
    /// The file is not text.
    #[error("byte {byte:#04x} at offset {offset} is not UTF-8: a config file is a TOML text")]
    NotUtf8 {
        /// The invalid byte.
        byte: u8,
        /// Offset of the byte in the file, in bytes.
        offset: usize,
    },
    /// A name is unknown.
    #[error("unknown {kind} `{got}`{}", Within(within))]
    Unknown {
        /// What the name should name.
        kind: NameKind,
        /// The unknown name.
        got: String,
        /// The table that the name is in; empty at the top level.
        within: String,
        /// The names that are known there.
        known: Vec<String>,
    },
    /// A key without a default is missing.
    #[error("`{key}` is missing{}", Within(within))]
    Missing {
        /// The missing key.
        key: &'static str,
        /// The table that the key belongs to.
        within: String,
        /// A valid line for the key.
        example: &'static str,
    },
    /// A value has the wrong type, form or size.
    #[error("{key} = {got}: must be {allowed}")]
    NotAllowed {
        /// The key, with its table.
        key: String,
        /// The value, as written.
        got: String,
        /// What is allowed.
        allowed: String,
    },
    /// A file that the config names can't be used.
    #[error("{key} = {}: {error}", .path.display())]
    File {
        /// The key, with its table.
        key: String,
        /// Path of the file.
        path: PathBuf,
        /// The host's error.
        error: Arc<io::Error>,
    },
    /// A hook can't be loaded from its library.
    #[error("hook.path = {}: {}", .0.path.display(), .0.reason)]
    Library(Arc<LibraryError>),
    /// A hook rejects its options.
    #[error("hook `{hook}`{}: {message}", OfOption(option))]
    Hook {
        /// The hook's name.
        hook: String,
        /// The rejected option; `None`: the combination of all of them.
        option: Option<String>,
        /// The hook's message.
        message: String,
    },
    /// A `--set` or a hook's option is not `KEY=VALUE`, or the key of a `--set` leads nowhere.
    #[error("{text}: {message}")]
    Set {
        /// `--set` with its text, or the option.
        text: String,
        /// What is wrong with the text.
        message: String,
    },
}

/// What an unknown name should have named.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the words of the config file")]
pub enum NameKind {
    Table,
    Key,
    Hook,
    Option,
}

impl fmt::Display for NameKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Table => "table",
            Self::Key => "key",
            Self::Hook => "hook",
            Self::Option => "option",
        })
    }
}

/// Displays as ` in [vm]`, or as nothing at the top level.
struct Within<'a>(&'a str);

impl fmt::Display for Within<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() { Ok(()) } else { write!(f, " in {}", self.0) }
    }
}

/// Displays as `, option `pages``, or as nothing.
struct OfOption<'a>(&'a Option<String>);

impl fmt::Display for OfOption<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.as_ref().map_or(Ok(()), |option| write!(f, ", option `{option}`"))
    }
}

impl Reason {
    /// What to do about the error, unless the message already says so.
    pub(crate) fn help(&self) -> Option<String> {
        match self {
            Self::Unknown { got, known, .. } => Some(advice(got, known)),
            Self::Missing { example, .. } => Some(format!("write {example}")),
            Self::File { .. } => Some("a relative path starts at the folder of the config file".to_owned()),
            Self::Library(error) => Some(error.help().to_owned()),
            Self::Syntax(_) | Self::NotUtf8 { .. } | Self::NotAllowed { .. } | Self::Hook { .. } | Self::Set { .. } => {
                None
            }
        }
    }
}

/// What to write instead of `got`, which is not among the `known` names.
pub(crate) fn advice(got: &str, known: &[String]) -> String {
    if known.is_empty() {
        return "there are none".to_owned();
    }
    let all = known.join(", ");
    match nearest(got, known) {
        Some(near) => format!("did you mean `{near}`? there are: {all}"),
        None => format!("there are: {all}"),
    }
}

/// The known name that `got` is most likely a misspelling of, if there is one.
fn nearest<'a>(got: &str, known: &'a [String]) -> Option<&'a String> {
    let likeness = |name: &String| strsim::jaro_winkler(got, name);
    known.iter().filter(|name| likeness(name) > 0.75).max_by(|a, b| likeness(a).total_cmp(&likeness(b)))
}

impl Diagnostic for Problem {
    fn help<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        Some(Box::new(self.reason.help()?))
    }

    fn source_code(&self) -> Option<&dyn SourceCode> {
        Some(&self.place.as_ref()?.source)
    }

    fn labels(&self) -> Option<Box<dyn Iterator<Item = LabeledSpan> + '_>> {
        let label = LabeledSpan::underline(self.place.as_ref()?.span.clone());
        Some(Box::new(std::iter::once(label)))
    }
}
