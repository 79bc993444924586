//! A hook's options, as its user wrote them.

use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

/// The options of one `[[hook]]` table, without `name`.
#[derive(Clone, Debug, Default)]
pub struct Options {
    values: Map<String, Value>,
    base: PathBuf,
}

/// An error in a hook's options.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct OptionsError {
    /// The key that caused the error; `None` if the error is about the whole table.
    pub key: Option<String>,
    /// The value that was given, and what is allowed.
    pub message: String,
}

impl OptionsError {
    /// An error about the option `key`.
    pub fn new(key: &str, message: impl Into<String>) -> Self {
        Self { key: Some(key.to_owned()), message: message.into() }
    }
}

impl Options {
    /// Options from a table; relative paths among them are relative to `base`.
    pub fn new(values: Map<String, Value>, base: impl Into<PathBuf>) -> Self {
        Self { values, base: base.into() }
    }

    /// The options as they were written.
    #[must_use]
    pub fn values(&self) -> &Map<String, Value> {
        &self.values
    }

    /// A copy with some options changed; a null value removes the option.
    #[must_use]
    pub fn with(&self, changes: &Map<String, Value>) -> Self {
        let mut values = self.values.clone();
        values.extend(changes.clone());
        values.retain(|_, value| !value.is_null());
        Self { values, base: self.base.clone() }
    }

    /// Options from a JSON object.
    pub(crate) fn from_json(json: &str, base: impl Into<PathBuf>) -> Result<Self, OptionsError> {
        let values = serde_json::from_str(json).map_err(|error| OptionsError {
            key: None,
            message: format!("the options are not a JSON object: {error}"),
        })?;
        Ok(Self::new(values, base))
    }

    /// The options as a JSON object.
    pub(crate) fn to_json(&self) -> String {
        Value::Object(self.values.clone()).to_string()
    }

    /// The folder that relative paths are relative to.
    pub(crate) fn folder(&self) -> &Path {
        &self.base
    }

    /// Reads the options into the hook's own struct, which should carry `#[serde(deny_unknown_fields)]`.
    ///
    /// # Errors
    /// The error that serde reports, with its key.
    pub fn parse<T: DeserializeOwned>(&self) -> Result<T, OptionsError> {
        serde_path_to_error::deserialize(Value::Object(self.values.clone())).map_err(|error| {
            let (path, cause) = (error.path().to_string(), error.inner().to_string());
            let key = self.key_of(&path, &cause).cloned();
            let inside = key.as_ref().is_some_and(|key| path.len() > key.len());
            OptionsError { key, message: if inside { format!("{path}: {cause}") } else { cause } }
        })
    }

    /// The top-level key of `path` (`top`, `ranges[0].start`), or the key that `cause` calls unknown.
    fn key_of(&self, path: &str, cause: &str) -> Option<&String> {
        let leads_there =
            |key: &str| path.strip_prefix(key).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']));
        let is_unknown = |key: &str| cause.contains(&format!("unknown field `{key}`"));
        let mut keys = self.values.keys();
        keys.clone().find(|key| leads_there(key)).or_else(|| keys.find(|key| is_unknown(key)))
    }

    /// A path option, made absolute against the folder of the config file.
    #[must_use]
    pub fn path(&self, path: &Path) -> PathBuf {
        self.base.join(path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;
    use serde_json::json;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Mine {
        pages: u32,
        #[serde(default)]
        ranges: Vec<Mine>,
    }

    fn options(value: Value) -> Options {
        let Value::Object(values) = value else { panic!("not a table") };
        Options::new(values, "/etc/v14")
    }

    #[test]
    fn an_unknown_or_ill_typed_key_is_named() {
        let error = options(json!({"pages": 1, "page": 2})).parse::<Mine>().unwrap_err();
        assert_eq!(error.key.as_deref(), Some("page"));
        let error = options(json!({"pages": "many"})).parse::<Mine>().unwrap_err();
        assert_eq!(error.key.as_deref(), Some("pages"));
        assert!(error.message.contains("many"), "{error}");
        assert_eq!(
            options(json!({"pages": 3})).parse::<Mine>().map(|mine| (mine.pages, mine.ranges.len())),
            Ok((3, 0))
        );
    }

    #[test]
    fn an_error_inside_of_a_value_names_the_key_and_the_place() {
        for (inner, place) in [(json!({"pages": "x"}), "ranges[0].pages"), (json!({"pages": 1, "start": 1}), "start")] {
            let error = options(json!({"pages": 1, "ranges": [inner]})).parse::<Mine>().unwrap_err();
            assert_eq!(error.key.as_deref(), Some("ranges"));
            assert!(error.message.contains(place), "{error}");
        }
    }

    #[test]
    fn changes_replace_add_and_with_null_remove() {
        let Value::Object(changes) = json!({"pages": 2, "top": null, "file": "b"}) else { panic!("not a table") };
        let changed = options(json!({"pages": 1, "top": 7})).with(&changes);
        assert_eq!(Value::Object(changed.values().clone()), json!({"pages": 2, "file": "b"}));
        assert_eq!(changed.path(Path::new("b")), PathBuf::from("/etc/v14/b"));
    }

    #[test]
    fn paths_are_relative_to_the_config_file() {
        assert_eq!(options(json!({})).path(Path::new("a.jsonl")), PathBuf::from("/etc/v14/a.jsonl"));
    }
}
