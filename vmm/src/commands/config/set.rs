//! `--set KEY=VALUE`, applied to the tree of the config file.

use std::ops::Range;
use std::sync::Arc;

use miette::NamedSource;

use super::node::{self, KeyValue, Node, Table, Value};
use super::problem::{Problem, Reason};
use crate::intercept::config::place::Place;

/// Applies `text`, a `KEY=VALUE`.
pub(super) fn apply(root: &mut Table, text: &str) -> Result<(), Problem> {
    let set = Set { what: "--set ", source: Arc::new(NamedSource::new("--set", text.to_owned())) };
    let equals = set.equals("vm.memory=1G")?;
    let node = set.value(equals + 1..text.len())?;
    set.insert(root, 0..equals, node)
}

/// The key and the value of `text`, a `KEY=VALUE` that is a hook's option.
pub(super) fn parse_pair(text: &str) -> Result<(String, Node), Problem> {
    let set = Set { what: "", source: Arc::new(NamedSource::new("option", text.to_owned())) };
    let equals = set.equals("file=a.jsonl")?;
    let key = text[..equals].to_owned();
    if key.is_empty() {
        return Err(set.problem(0..text.len(), "there is no key".to_owned()));
    }
    Ok((key, set.value(equals + 1..text.len())?))
}

/// The text after `--set`, or a hook's option.
struct Set {
    what: &'static str,
    source: Arc<NamedSource<String>>,
}

impl Set {
    /// Where the key ends.
    fn equals(&self, example: &str) -> Result<usize, Problem> {
        let text = self.source.inner();
        text.find('=').ok_or_else(|| self.problem(0..text.len(), format!("must be KEY=VALUE, such as {example}")))
    }

    /// The value, parsed as TOML if possible, and otherwise as plain text. A value that begins like a TOML string,
    /// array or table must be valid TOML.
    fn value(&self, span: Range<usize>) -> Result<Node, Problem> {
        let place = self.place(span.clone());
        let text = place.text();
        let value = Value::String(text.to_owned());
        match node::parse_value(&self.source, span) {
            Err(problem) if text.starts_with(['"', '\'', '[', '{']) => Err(problem),
            Err(_) => Ok(Node { place, value }),
            Ok(node) => Ok(node),
        }
    }

    /// Inserts `node` at the dotted key at `key`, and creates the tables that are missing on the way.
    fn insert(&self, table: &mut Table, key: Range<usize>, node: Node) -> Result<(), Problem> {
        let (first, rest) = self.split(key);
        let place = self.place(first.clone());
        let name = place.text().to_owned();
        if name.is_empty() {
            return Err(self.problem(first, "an empty name in the key; it must be like vm.memory".to_owned()));
        }
        let Some(rest) = rest else {
            table.insert(name, KeyValue { key: place, node });
            return Ok(());
        };
        let empty =
            || KeyValue { key: place.clone(), node: Node { place: place.clone(), value: Value::Table(Table::new()) } };
        match &mut table.entry(name.clone()).or_insert_with(empty).node.value {
            Value::Table(inner) => self.insert(inner, rest, node),
            Value::Array(items) => self.insert_into_item(items, &name, rest, node),
            other => Err(self.problem(first, format!("{name} is {}, and has no keys", other.kind()))),
        }
    }

    /// As `insert`, into one of the tables of an array, which the key selects by its index or its `name`.
    fn insert_into_item(&self, items: &mut [Node], array: &str, key: Range<usize>, node: Node) -> Result<(), Problem> {
        let (first, rest) = self.split(key);
        let wanted = self.place(first.clone()).text().to_owned();
        let found: Vec<usize> = match wanted.parse::<usize>() {
            Ok(number) => (0..items.len()).filter(|index| *index == number).collect(),
            Err(_) => (0..items.len()).filter(|index| name_of(&items[*index]) == Some(&wanted)).collect(),
        };
        let have = || {
            let names =
                items.iter().enumerate().map(|(index, item)| format!("{index} ({})", name_of(item).unwrap_or("?")));
            names.collect::<Vec<_>>().join(", ")
        };
        let [index] = found[..] else {
            let message = match found.len() {
                0 => format!("there is no {array}.{wanted}; there are: {}", have()),
                many => format!("{many} of [[{array}]] are named {wanted}; use a number: {}", have()),
            };
            return Err(self.problem(first, message));
        };
        match (&mut items[index].value, rest) {
            (Value::Table(inner), Some(rest)) => self.insert(inner, rest, node),
            (Value::Table(_), None) => Err(self.problem(first, format!("must go on with a key of {array}.{wanted}"))),
            (other, _) => Err(self.problem(first, format!("{array}.{wanted} is {}, and has no keys", other.kind()))),
        }
    }

    /// The first part of the dotted key at `key`, and the rest of it.
    fn split(&self, key: Range<usize>) -> (Range<usize>, Option<Range<usize>>) {
        match self.place(key.clone()).text().find('.') {
            Some(dot) => (key.start..key.start + dot, Some(key.start + dot + 1..key.end)),
            None => (key, None),
        }
    }

    fn place(&self, span: Range<usize>) -> Place {
        Place { source: Arc::clone(&self.source), span }
    }

    fn problem(&self, span: Range<usize>, message: String) -> Problem {
        let text = format!("{}{}", self.what, self.source.inner());
        Problem { place: Some(self.place(span)), reason: Reason::Set { text, message } }
    }
}

/// The `name` of a table, or the path that it names.
fn name_of(node: &Node) -> Option<&str> {
    let Value::Table(table) = &node.value else { return None };
    table.get("name").or_else(|| table.get("path"))?.node.value.as_str()
}
