//! One thing that is wrong with a config: what, where, and what would be right.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use miette::{Diagnostic, LabeledSpan, SourceCode};

use super::Place;
use crate::library::LibraryError;

/// One thing that is wrong with a config.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{reason}")]
pub struct Problem {
    /// Where it was written; `None` where the config did not come from text.
    pub place: Option<Place>,
    /// What is wrong.
    pub reason: Reason,
}

/// What can be wrong.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Reason {
    /// The text is not TOML.
    #[error("{0}")]
    Syntax(String),
    /// The file is not text.
    #[error("byte {byte:#04x} at offset {offset} is not UTF-8: a config file is a TOML text")]
    NotUtf8 {
        /// The byte that no text has there.
        byte: u8,
        /// Its offset in the file, in bytes.
        offset: usize,
    },
    /// A name that means nothing.
    #[error("unknown {kind} `{got}`{}", Within(within))]
    Unknown {
        /// What kind of name it is.
        kind: NameKind,
        /// The name.
        got: String,
        /// The table that it is in; empty at the top level.
        within: String,
        /// The names that mean something there.
        known: Vec<String>,
    },
    /// A key that has no default is not there.
    #[error("`{key}` is missing{}", Within(within))]
    Missing {
        /// The key.
        key: &'static str,
        /// The table that it belongs into.
        within: String,
        /// A line that would do.
        example: &'static str,
    },
    /// A value of the wrong type, form or size.
    #[error("{key} = {got}: must be {allowed}")]
    NotAllowed {
        /// The key, with its table.
        key: String,
        /// The value, as it was written.
        got: String,
        /// What may stand there.
        allowed: String,
    },
    /// A file that the config names can't be used.
    #[error("{key} = {}: {error}", .path.display())]
    File {
        /// The key, with its table.
        key: String,
        /// The file.
        path: PathBuf,
        /// Why not.
        error: Arc<io::Error>,
    },
    /// A hook can't be loaded from its library.
    #[error("hook.path = {}: {}", .0.path.display(), .0.reason)]
    Library(Arc<LibraryError>),
    /// A hook does not take its options.
    #[error("hook `{hook}`{}: {message}", OfOption(option))]
    Hook {
        /// The hook's name.
        hook: String,
        /// The option at fault; `None`: all of them together.
        option: Option<String>,
        /// What the hook says.
        message: String,
    },
    /// A `--set` that is not `KEY=VALUE`, or whose key leads nowhere; or such an option of a hook.
    #[error("{text}: {message}")]
    Set {
        /// `--set` and what stands behind it; or the option.
        text: String,
        /// What is wrong with it.
        message: String,
    },
}

/// What a name that was not known was meant to name.
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

/// ` in [vm]`, or nothing at the top level.
struct Within<'a>(&'a str);

impl fmt::Display for Within<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() { Ok(()) } else { write!(f, " in {}", self.0) }
    }
}

/// `, option `pages``, or nothing.
struct OfOption<'a>(&'a Option<String>);

impl fmt::Display for OfOption<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.as_ref().map_or(Ok(()), |option| write!(f, ", option `{option}`"))
    }
}

impl Reason {
    /// What to do about it, where the message itself does not say so.
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

/// What to write in the place of `got`, which is none of the `known` names.
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

/// The known name that `got` is most likely a slip of, if there is one.
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
