//! Checks and creates the hooks of a config: whether each is known, and whether it accepts its options.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::{Map, Number, Value as Json};
use vector14_hook::{Hook, HookType, OptionDoc, Options, OptionsError};

use crate::intercept::chain::{NamedHook, Trust};
use crate::intercept::library::{Library, LibraryError};

use super::node::{KeyValue, Node, Table, Value};
use super::problem::{NameKind, Problem, Reason};
use super::reader::{Parsed, Reader};
use super::{Config, ConfigError, HookConfig, set, values};
use crate::intercept::config::place::Place;
use crate::intercept::config::{HookPlaces, OptionPlace, TRUST};

/// The keys of a `[[hook]]` table, besides `name`, that the hook itself does not read.
const TRUST_KEYS: [&str; 3] = ["budget", "timeout", "on_error"];

impl Config {
    /// Creates the hooks that the config names, in order. Hooks may open and truncate files when they are created.
    ///
    /// # Errors
    /// [`ConfigError::Invalid`], with every hook that is not among `types` or rejects its options.
    pub fn create_hooks(&self, types: &[HookType]) -> Result<Vec<NamedHook>, ConfigError> {
        let problems = check(&self.hooks, types);
        if !problems.is_empty() {
            return Err(self.invalid(problems));
        }
        let create = |hook: &HookConfig| hook.create(types).map_err(|problem| self.invalid(vec![problem]));
        self.hooks.iter().map(create).collect()
    }

    fn invalid(&self, problems: Vec<Problem>) -> ConfigError {
        ConfigError::Invalid { name: self.name.clone(), problems }
    }
}

/// Finds the errors in hooks that can be found without creating one.
pub(super) fn check(hooks: &[HookConfig], types: &[HookType]) -> Vec<Problem> {
    hooks.iter().flat_map(|hook| hook.check(types)).collect()
}

/// A kind of hook that a config can name.
enum HookSource<'a> {
    Known(&'a HookType),
    Loaded(&'a Library),
}

impl HookSource<'_> {
    fn options(&self) -> &[OptionDoc] {
        match self {
            Self::Known(kind) => kind.options,
            Self::Loaded(library) => library.options(),
        }
    }

    fn check(&self, options: &Options) -> Result<(), OptionsError> {
        match self {
            Self::Known(kind) => (kind.check)(options),
            Self::Loaded(library) => library.check(options),
        }
    }

    fn create(&self, options: &Options) -> Result<Box<dyn Hook>, OptionsError> {
        match self {
            Self::Known(kind) => (kind.create)(options),
            Self::Loaded(library) => library.create(options),
        }
    }
}

impl HookConfig {
    /// A hook from the keys of a `[[hook]]` table other than `name` and `path`, as JSON. Relative paths in it start at
    /// `base`.
    ///
    /// # Errors
    /// A key that says how far the hook is trusted has an invalid value.
    pub(crate) fn from_json(
        name: String,
        library: Option<Library>,
        mut values: Map<String, Json>,
        base: PathBuf,
    ) -> Result<Self, Problem> {
        let trust = TRUST.changed(&mut values)?;
        Ok(Self { name, library, trust, options: Options::new(values, base), places: HookPlaces::default() })
    }

    /// The same hook with some keys of its table changed; null resets a key to its default.
    ///
    /// # Errors
    /// As [`HookConfig::from_json`].
    pub(crate) fn changed(&self, mut changes: Map<String, Json>) -> Result<Self, Problem> {
        let trust = self.trust.changed(&mut changes)?;
        let options = self.options.with(&changes);
        Ok(Self { trust, options, places: HookPlaces::default(), ..self.clone() })
    }

    /// The same hook, with its library reloaded.
    ///
    /// # Errors
    /// [`LibraryError`].
    pub(crate) fn reload(&self, library: &Library) -> Result<Self, LibraryError> {
        Ok(Self { library: Some(Library::load(library.path())?), ..self.clone() })
    }

    /// Creates the hook, which may then open and truncate files.
    fn create(&self, types: &[HookType]) -> Result<NamedHook, Problem> {
        let kind = self.find(types)?;
        let hook = kind.create(&self.options).map_err(|error| self.refused(&error))?;
        Ok(NamedHook { name: self.name.clone(), hook, trust: self.trust, origin: Some(self.clone()) })
    }

    /// Checks the hook's options, and creates the hook.
    pub(crate) fn check_and_create(&self, types: &[HookType]) -> Result<NamedHook, Vec<Problem>> {
        let problems = self.check(types);
        if problems.is_empty() { self.create(types).map_err(|problem| vec![problem]) } else { Err(problems) }
    }

    fn check(&self, types: &[HookType]) -> Vec<Problem> {
        let kind = match self.find(types) {
            Ok(kind) => kind,
            Err(problem) => return vec![problem],
        };
        let unknown = self.unknown_options(&kind);
        if !unknown.is_empty() {
            return unknown;
        }
        kind.check(&self.options).err().map(|error| self.refused(&error)).into_iter().collect()
    }

    fn find<'a>(&'a self, types: &'a [HookType]) -> Result<HookSource<'a>, Problem> {
        if let Some(library) = &self.library {
            return Ok(HookSource::Loaded(library));
        }
        types.iter().find(|kind| kind.name == self.name).map(HookSource::Known).ok_or_else(|| {
            let known = types.iter().map(|kind| kind.name.to_owned()).collect();
            let (kind, got) = (NameKind::Hook, self.name.clone());
            Problem {
                place: self.places.name.clone(),
                reason: Reason::Unknown { kind, got, within: String::new(), known },
            }
        })
    }

    /// Every option that is not in the hook's own list.
    fn unknown_options(&self, kind: &HookSource<'_>) -> Vec<Problem> {
        let of_hook = kind.options().iter().map(|option| option.name);
        let known: Vec<_> = of_hook.chain(TRUST_KEYS).map(str::to_owned).collect();
        let unknown = self.options.values().keys().filter(|name| !known.contains(name));
        unknown
            .map(|name| {
                let place = self.places.options.get(name).map(|place| place.key.clone());
                let (kind, got, within) = (NameKind::Option, name.clone(), format!("hook `{}`", self.name));
                Problem { place, reason: Reason::Unknown { kind, got, within, known: known.clone() } }
            })
            .collect()
    }

    fn refused(&self, error: &OptionsError) -> Problem {
        let option = error.key.as_ref().and_then(|key| self.places.options.get(key));
        let place = option.map(|option| option.whole.clone()).or_else(|| self.places.name.clone());
        Problem {
            place,
            reason: Reason::Hook { hook: self.name.clone(), option: error.key.clone(), message: error.message.clone() },
        }
    }
}

impl Trust {
    /// The same trust settings with the changes that `from` contains, which are removed from it.
    fn changed(self, from: &mut Map<String, Json>) -> Result<Self, Problem> {
        Ok(Self {
            budget: take(from, "budget", (self.budget, TRUST.budget), values::hook_time)?,
            timeout: take(from, "timeout", (self.timeout, TRUST.timeout), values::hook_time)?,
            on_error: take(from, "on_error", (self.on_error, TRUST.on_error), values::on_error)?,
        })
    }
}

/// Takes `key` out of `from`. The result is `was` if the key is missing, and `usual` if its value is null.
fn take<T>(
    from: &mut Map<String, Json>,
    key: &str,
    (was, usual): (T, T),
    parse: impl FnOnce(Option<&str>) -> Parsed<T>,
) -> Result<T, Problem> {
    let value = match from.remove(key) {
        None => return Ok(was),
        Some(Json::Null) => return Ok(usual),
        Some(value) => value,
    };
    parse(value.as_str()).map_err(|allowed| {
        let (key, got) = (format!("hook.{key}"), value.to_string());
        Problem { place: None, reason: Reason::NotAllowed { key, got, allowed } }
    })
}

/// A hook from the keys of its table other than `name`, `path` and those that say how far it is trusted.
pub(super) fn from_rest(
    (name, place): (String, Place),
    library: Option<Library>,
    trust: Trust,
    mut hook: Reader<'_>,
    base: &Path,
) -> Option<HookConfig> {
    let mut values = Map::new();
    let mut options = BTreeMap::new();
    for (key, entry) in hook.take_rest() {
        match json(&entry.node) {
            Ok(value) => {
                values.insert(key.clone(), value);
            }
            Err((place, allowed)) => hook.refuse(&key, place, allowed.to_owned()),
        }
        options.insert(key, OptionPlace { whole: entry.place(), key: entry.key });
    }
    let places = HookPlaces { name: Some(place), options };
    Some(HookConfig { name, library, trust, options: Options::new(values, base), places })
}

/// The value as JSON, which hooks read their options from; or the part that JSON can't express, and what is allowed
/// there.
fn json(node: &Node) -> Result<Json, (Place, &'static str)> {
    let refused = |allowed| (node.place.clone(), allowed);
    Ok(match &node.value {
        Value::String(text) | Value::Datetime(text) => Json::String(text.clone()),
        Value::Integer(integer) => {
            let number = Number::from_i128(*integer).ok_or_else(|| refused("a number of at most 64 bits"))?;
            Json::Number(number)
        }
        Value::Float(float) => Json::Number(Number::from_f64(*float).ok_or_else(|| refused("a finite number"))?),
        Value::Boolean(boolean) => Json::Bool(*boolean),
        Value::Array(items) => Json::Array(items.iter().map(json).collect::<Result<_, _>>()?),
        Value::Table(table) => Json::Object(json_table(table)?),
    })
}

fn json_table(table: &Table) -> Result<Map<String, Json>, (Place, &'static str)> {
    table.iter().map(|(key, KeyValue { node, .. })| Ok((key.clone(), json(node)?))).collect()
}

/// Parses a hook's option from a `KEY=VALUE`. VALUE is TOML if it can be parsed as such, and otherwise text.
///
/// # Errors
/// The text is not `KEY=VALUE`, or its value begins like TOML and is not valid TOML.
pub fn parse_option(text: &str) -> Result<(String, Json), Problem> {
    let (key, node) = set::parse_pair(text)?;
    let value = json(&node).map_err(|(place, allowed)| {
        let reason = Reason::NotAllowed { key: key.clone(), got: place.quoted(), allowed: allowed.to_owned() };
        Problem { place: Some(place), reason }
    })?;
    Ok((key, value))
}
