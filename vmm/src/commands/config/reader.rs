//! Takes keys off a table one by one. Errors are collected; keys that are left at the end are unknown.

use super::node::{KeyValue, Node, Table, Value};
use super::problem::{NameKind, Problem, Reason};
use crate::intercept::config::place::Place;

/// A valid value, or a description of what is allowed.
pub(super) type Parsed<T> = Result<T, String>;

/// A table that is being read.
pub(super) struct Reader<'a> {
    /// The table's name in messages, such as `[vm]`; empty at the top level.
    name: String,
    /// Prefix of its keys in messages, such as `vm.`.
    prefix: String,
    /// Where the table is; `None` if the value is not a table, which has been reported.
    place: Option<Place>,
    table: Table,
    known: Vec<&'static str>,
    problems: &'a mut Vec<Problem>,
}

impl<'a> Reader<'a> {
    /// A reader of the whole file.
    pub(super) fn root(table: Table, place: Place, problems: &'a mut Vec<Problem>) -> Self {
        Self { name: String::new(), prefix: String::new(), place: Some(place), table, known: Vec::new(), problems }
    }

    /// A reader of the table `key`; of an empty table if `key` is missing or not a table.
    pub(super) fn table(&mut self, key: &'static str) -> Reader<'_> {
        let name = format!("[{key}]");
        let (table, place) = match self.take_node(key) {
            Some(Node { value: Value::Table(table), place }) => (table, Some(place)),
            Some(Node { place, .. }) => {
                self.refuse(key, place, format!("a table, written {name}"));
                (Table::new(), None)
            }
            None => (Table::new(), self.place.clone()),
        };
        Reader { name, prefix: format!("{key}."), place, table, known: Vec::new(), problems: self.problems }
    }

    /// A reader of each table of the array `key`, in order.
    pub(super) fn each_table(&mut self, key: &'static str, mut read: impl FnMut(Reader<'_>)) {
        let Some(node) = self.take_node(key) else { return };
        let allowed = format!("written [[{key}]], a table for each {key}");
        let Value::Array(items) = node.value else { return self.refuse(key, node.place, allowed) };
        for Node { value, place } in items {
            if let Value::Table(table) = value {
                let (name, prefix) = (format!("[[{key}]]"), format!("{key}."));
                read(Reader { name, prefix, place: Some(place), table, known: Vec::new(), problems: self.problems });
            } else {
                self.refuse(key, place, allowed.clone());
            }
        }
    }

    /// Takes `key` and parses its value; `None` if the key is missing or its value is not allowed.
    pub(super) fn take<T>(&mut self, key: &'static str, parse: impl FnOnce(&Value) -> Parsed<T>) -> Option<T> {
        Some(self.take_placed(key, parse)?.0)
    }

    /// As [`Reader::take`], with the place of the value.
    pub(super) fn take_placed<T>(
        &mut self,
        key: &'static str,
        parse: impl FnOnce(&Value) -> Parsed<T>,
    ) -> Option<(T, Place)> {
        let Node { value, place } = self.take_node(key)?;
        match parse(&value) {
            Ok(value) => Some((value, place)),
            Err(allowed) => {
                self.refuse(key, place, allowed);
                None
            }
        }
    }

    /// Takes `key`, an array, and parses each of its values; `allowed` names what the array should contain.
    pub(super) fn take_each<T>(
        &mut self,
        key: &'static str,
        allowed: &str,
        parse: impl Fn(&Value) -> Parsed<T>,
    ) -> Vec<(T, Place)> {
        let mut values = Vec::new();
        match self.take_node(key) {
            Some(Node { value: Value::Array(items), .. }) => {
                for Node { value, place } in items {
                    match parse(&value) {
                        Ok(value) => values.push((value, place)),
                        Err(allowed) => self.refuse(key, place, allowed),
                    }
                }
            }
            Some(Node { place, .. }) => self.refuse(key, place, format!("a list of {allowed}, in brackets")),
            None => {}
        }
        values
    }

    /// As [`Reader::take_placed`], for a key that must be there. `example` is a valid line.
    pub(super) fn require<T>(
        &mut self,
        key: &'static str,
        example: &'static str,
        parse: impl FnOnce(&Value) -> Parsed<T>,
    ) -> Option<(T, Place)> {
        if let Some(place) = self.place.clone().filter(|_| !self.table.contains_key(key)) {
            let within = self.name.clone();
            self.report(place, Reason::Missing { key, within, example });
        }
        self.take_placed(key, parse)
    }

    /// Reports an error at a place.
    pub(super) fn report(&mut self, place: Place, reason: Reason) {
        self.problems.push(Problem { place: Some(place), reason });
    }

    /// Reports the keys that are left as unknown.
    pub(super) fn finish(self) {
        let kind = if self.name.is_empty() { NameKind::Table } else { NameKind::Key };
        let known: Vec<_> = self.known.iter().map(ToString::to_string).collect();
        for (got, entry) in self.table {
            let reason = Reason::Unknown { kind, got, within: self.name.clone(), known: known.clone() };
            self.problems.push(Problem { place: Some(entry.key), reason });
        }
    }

    /// Takes all remaining keys, for another reader.
    pub(super) fn take_rest(&mut self) -> Table {
        std::mem::take(&mut self.table)
    }

    /// Reports that the value of `key` is not what is allowed.
    pub(super) fn refuse(&mut self, key: &str, place: Place, allowed: String) {
        let key = format!("{}{key}", self.prefix);
        let got = place.quoted();
        self.report(place, Reason::NotAllowed { key, got, allowed });
    }

    fn take_node(&mut self, key: &'static str) -> Option<Node> {
        self.known.push(key);
        self.table.remove(key).map(|KeyValue { node, .. }| node)
    }
}
