//! TOML as a tree that records where each key and value was written.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use miette::NamedSource;
use toml::de::{DeInteger, DeTable, DeValue};

use super::problem::{Problem, Reason};
use crate::intercept::config::place::Place;

/// A value, and where it was written.
#[derive(Clone, Debug)]
pub(super) struct Node {
    pub(super) place: Place,
    pub(super) value: Value,
}

/// A TOML value.
#[derive(Clone, Debug)]
pub(super) enum Value {
    String(String),
    /// Saturated: the type is wider than any value that a key may take.
    Integer(i128),
    Float(f64),
    Boolean(bool),
    /// The text, as written.
    Datetime(String),
    Array(Vec<Node>),
    Table(Table),
}

/// A table's entries by key.
pub(super) type Table = BTreeMap<String, KeyValue>;

/// A key of a table, and its value.
#[derive(Clone, Debug)]
pub(super) struct KeyValue {
    pub(super) key: Place,
    pub(super) node: Node,
}

impl KeyValue {
    /// Where the key and the value were written.
    pub(super) fn place(&self) -> Place {
        self.key.to(&self.node.place)
    }
}

impl Value {
    pub(super) fn as_str(&self) -> Option<&str> {
        if let Self::String(text) = self { Some(text) } else { None }
    }

    pub(super) fn as_integer(&self) -> Option<i128> {
        if let Self::Integer(integer) = self { Some(*integer) } else { None }
    }

    /// The kind of value, with its article.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::String(_) => "a string",
            Self::Integer(_) => "an integer",
            Self::Float(_) => "a float",
            Self::Boolean(_) => "a boolean",
            Self::Datetime(_) => "a date",
            Self::Array(_) => "an array",
            Self::Table(_) => "a table",
        }
    }
}

/// Parses a whole TOML text. Returns what could be parsed, together with the errors.
pub(super) fn parse_document(source: &Arc<NamedSource<String>>) -> (Table, Vec<Problem>) {
    let (table, errors) = DeTable::parse_recoverable(source.inner());
    let origin = Origin { source, offset: 0 };
    let problems = errors.iter().map(|error| origin.syntax(error)).collect();
    (origin.table(table.get_ref()), problems)
}

/// Parses the text at `span` as one TOML value.
pub(super) fn parse_value(source: &Arc<NamedSource<String>>, span: Range<usize>) -> Result<Node, Problem> {
    let origin = Origin { source, offset: span.start };
    let text = source.inner().get(span.clone()).unwrap_or_default();
    match DeValue::parse(text) {
        Ok(value) => Ok(Node { place: origin.place(0..text.len()), value: origin.value(value.get_ref()) }),
        Err(error) => Err(origin.syntax(&error)),
    }
}

/// The text that is being parsed, and where in its source it begins.
struct Origin<'a> {
    source: &'a Arc<NamedSource<String>>,
    offset: usize,
}

impl Origin<'_> {
    fn place(&self, span: Range<usize>) -> Place {
        Place { source: Arc::clone(self.source), span: self.offset + span.start..self.offset + span.end }
    }

    fn syntax(&self, error: &toml::de::Error) -> Problem {
        Problem {
            place: error.span().map(|span| self.place(span).visible()),
            reason: Reason::Syntax(error.message().to_owned()),
        }
    }

    fn table(&self, table: &DeTable<'_>) -> Table {
        let entry = |key: &toml::Spanned<_>, value: &toml::Spanned<DeValue<'_>>| KeyValue {
            key: self.place(key.span()),
            node: Node { place: self.place(value.span()), value: self.value(value.get_ref()) },
        };
        table.iter().map(|(key, value)| (key.get_ref().to_string(), entry(key, value))).collect()
    }

    fn value(&self, value: &DeValue<'_>) -> Value {
        match value {
            DeValue::String(text) => Value::String(text.to_string()),
            DeValue::Integer(integer) => Value::Integer(saturated(integer)),
            DeValue::Float(float) => Value::Float(float.as_str().parse().unwrap_or(f64::NAN)),
            DeValue::Boolean(boolean) => Value::Boolean(*boolean),
            DeValue::Datetime(datetime) => Value::Datetime(datetime.to_string()),
            DeValue::Array(array) => Value::Array(
                array
                    .iter()
                    .map(|item| Node { place: self.place(item.span()), value: self.value(item.get_ref()) })
                    .collect(),
            ),
            DeValue::Table(table) => Value::Table(self.table(table)),
        }
    }
}

fn saturated(integer: &DeInteger<'_>) -> i128 {
    let text = integer.as_str();
    let limit = if text.starts_with('-') { i128::MIN } else { i128::MAX };
    i128::from_str_radix(text, integer.radix()).unwrap_or(limit)
}
