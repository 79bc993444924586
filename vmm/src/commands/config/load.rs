//! From a file to a [`Config`], top down.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::string::FromUtf8Error;
use std::sync::Arc;

use miette::NamedSource;
use vector14_hook::HookType;

use super::error::FILE_MAX;
use super::problem::{Problem, Reason};
use super::reader::Reader;
use super::{ConfigError, hooks, node, sections, set};
use crate::intercept::config::place::Place;
use crate::vm::config::Config;

impl Config {
    /// Reads the config file at `path` and applies `sets` to it, each a `KEY=VALUE`. Relative paths start at the file's
    /// folder. Hooks are looked up in `types` and checked, but not created.
    ///
    /// # Errors
    /// [`ConfigError::Invalid`] lists everything that is wrong; the other variants say why the file was not read.
    pub fn load(path: &Path, sets: &[String], types: &[HookType]) -> Result<Self, ConfigError> {
        let name = path.display().to_string();
        let base = path.parent().unwrap_or(Path::new(""));
        match String::from_utf8(read(path)?) {
            Ok(text) => Self::parse(&name, text, base, sets, types),
            Err(error) => Err(ConfigError::Invalid { problems: vec![not_utf8(&name, &error)], name }),
        }
    }

    /// As [`Config::load`], from a text that messages call `name`. Relative paths start at `base`.
    ///
    /// # Errors
    /// [`ConfigError::Invalid`].
    pub fn parse(
        name: &str,
        text: impl Into<String>,
        base: &Path,
        sets: &[String],
        types: &[HookType],
    ) -> Result<Self, ConfigError> {
        let source = Arc::new(NamedSource::new(name, text.into()));
        let (mut root, mut syntax) = node::parse_document(&source);
        syntax.sort_by_key(|problem| position(problem, &source));
        let mut problems: Vec<_> = sets.iter().filter_map(|text| set::apply(&mut root, text).err()).collect();
        let sections = sections::read(Reader::root(root, Place::start(&source), &mut problems), base);
        problems.extend(hooks::check(&sections.hooks, types));

        let mut problems = without_consequences(syntax, problems);
        problems.sort_by_key(|problem| position(problem, &source));
        match sections.boot {
            Some(boot) if problems.is_empty() => Ok(Self {
                name: name.to_owned(),
                vm: sections.vm,
                boot,
                disks: sections.disks,
                intercept: sections.intercept,
                control: sections.control,
                hooks: sections.hooks,
            }),
            Some(_) | None => Err(ConfigError::Invalid { name: name.to_owned(), problems }),
        }
    }
}

fn read(path: &Path) -> Result<Vec<u8>, ConfigError> {
    let mut bytes = Vec::new();
    let read = File::open(path).and_then(|file| file.take(FILE_MAX + 1).read_to_end(&mut bytes));
    let path = path.to_owned();
    match read {
        Ok(length) if length as u64 > FILE_MAX => Err(ConfigError::TooLarge { path }),
        Ok(_) => Ok(bytes),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err(ConfigError::NotFound { path }),
        Err(error) if error.kind() == io::ErrorKind::IsADirectory => Err(ConfigError::Directory { path }),
        Err(error) => Err(ConfigError::Unreadable { path, error }),
    }
}

fn not_utf8(name: &str, error: &FromUtf8Error) -> Problem {
    let offset = error.utf8_error().valid_up_to();
    let byte = error.as_bytes().get(offset).copied().unwrap_or_default();
    // Up to `offset` the text equals the file. The bad byte is replaced there, and the place has the length of its
    // replacement.
    let text = String::from_utf8_lossy(error.as_bytes()).into_owned();
    let span = offset..offset + char::REPLACEMENT_CHARACTER.len_utf8();
    let place = Place { source: Arc::new(NamedSource::new(name, text)), span };
    Problem { place: Some(place), reason: Reason::NotUtf8 { byte, offset } }
}

/// All problems, without those that may only be consequences of a syntax error.
fn without_consequences(mut syntax: Vec<Problem>, mut problems: Vec<Problem>) -> Vec<Problem> {
    // One mistake can cause several syntax errors on its line.
    syntax.dedup_by(|next, first| shares_line(next, first));
    let breaks_table = |problem: &Problem| problem.place.as_ref().is_some_and(Place::on_table_head);
    if syntax.iter().any(breaks_table) {
        // It is unclear which table the next lines belong to.
        problems.clear();
    } else if !syntax.is_empty() {
        let is_missing = |problem: &Problem| matches!(problem.reason, Reason::Missing { .. });
        let is_invented = |problem: &Problem| problem.place.as_ref().is_some_and(Place::is_empty);
        problems.retain(|problem| {
            !is_missing(problem) && !is_invented(problem) && !syntax.iter().any(|broken| shares_line(problem, broken))
        });
    }
    problems.extend(syntax);
    problems
}

fn shares_line(one: &Problem, other: &Problem) -> bool {
    one.place.as_ref().zip(other.place.as_ref()).is_some_and(|(one, other)| one.shares_line(other))
}

/// Sort key: a file's problems by line, then those of `--set`s in the order in which they were given.
fn position(problem: &Problem, file: &Arc<NamedSource<String>>) -> usize {
    match &problem.place {
        Some(place) if Arc::ptr_eq(&place.source, file) => place.span.start,
        Some(_) | None => usize::MAX,
    }
}
