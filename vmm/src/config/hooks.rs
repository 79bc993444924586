//! What needs the list of hooks that there are: are those that the config names among them, do they take their options?

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Map, Number, Value as Json};
use vector14_hook::{Hook, HookType, OptionDoc, Options, OptionsError};

use crate::chain::{NamedHook, Origin, Trust};
use crate::library::Library;

use super::node::{Entry, Node, Table, Value};
use super::place::Place;
use super::problem::{NameKind, Problem, Reason};
use super::reader::Reader;
use super::{Config, ConfigError, HookConfig};

/// The keys of a `[[hook]]` table that are not its hook's own, besides `name`.
const TRUST_KEYS: [&str; 3] = ["budget", "timeout", "on_error"];

/// Where a `[[hook]]` table was written.
#[derive(Clone, Debug, Default)]
pub(super) struct HookPlaces {
    name: Option<Place>,
    options: BTreeMap<String, OptionPlace>,
}

#[derive(Clone, Debug)]
struct OptionPlace {
    key: Place,
    /// From the key to the value's end.
    whole: Place,
}

impl Config {
    /// Makes the hooks that the config names, in its order. Hooks may open and truncate files when they are made.
    ///
    /// # Errors
    /// [`ConfigError::Invalid`] with every hook that is not among `types` or refuses its options.
    pub fn create_hooks(&self, types: &[HookType]) -> Result<Vec<NamedHook>, ConfigError> {
        let problems = check(&self.hooks, types);
        if !problems.is_empty() {
            return Err(self.invalid(problems));
        }
        let create = |hook: &HookConfig| hook.create(types).map_err(|problems| self.invalid(problems));
        self.hooks.iter().map(create).collect()
    }

    fn invalid(&self, problems: Vec<Problem>) -> ConfigError {
        ConfigError::Invalid { name: self.name.clone(), problems }
    }
}

/// What is wrong with the hooks, as far as it can be told without making one.
pub(super) fn check(hooks: &[HookConfig], types: &[HookType]) -> Vec<Problem> {
    hooks.iter().flat_map(|hook| hook.check(types)).collect()
}

/// A kind of hook that a config can name.
enum Kind<'a> {
    Known(&'a HookType),
    Loaded(&'a Library),
}

impl Kind<'_> {
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
    /// The hook as it is by now in a chain, made from another library.
    pub(crate) fn remade(&self, origin: Origin, trust: Trust, library: Library) -> Self {
        Self { library: Some(library), trust, options: origin.options, ..self.clone() }
    }

    /// Makes the hook. It may open and truncate files.
    ///
    /// # Errors
    /// It is not among `types`, or refuses its options.
    pub fn create(&self, types: &[HookType]) -> Result<NamedHook, Vec<Problem>> {
        let problems = self.check(types);
        if !problems.is_empty() {
            return Err(problems);
        }
        let kind = self.find(types).map_err(|problem| vec![problem])?;
        let hook = kind.create(&self.options).map_err(|error| vec![self.refused(&error)])?;
        let (kind, library, options) = (self.name.clone(), self.library.clone(), self.options.clone());
        let origin = Origin { kind, library, options };
        Ok(NamedHook { name: self.name.clone(), hook, trust: self.trust, origin: Some(origin) })
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

    fn find<'a>(&'a self, types: &'a [HookType]) -> Result<Kind<'a>, Problem> {
        if let Some(library) = &self.library {
            return Ok(Kind::Loaded(library));
        }
        types.iter().find(|kind| kind.name == self.name).map(Kind::Known).ok_or_else(|| {
            let known = types.iter().map(|kind| kind.name.to_owned()).collect();
            let (kind, got) = (NameKind::Hook, self.name.clone());
            Problem {
                place: self.places.name.clone(),
                reason: Reason::Unknown { kind, got, within: String::new(), known },
            }
        })
    }

    /// Every option that the hook's own list does not name.
    fn unknown_options(&self, kind: &Kind<'_>) -> Vec<Problem> {
        let of_hook = kind.options().iter().map(|option| option.name);
        let known: Vec<_> = of_hook.chain(TRUST_KEYS).map(str::to_owned).collect();
        let unknown = self.places.options.iter().filter(|(name, _)| !known.contains(name));
        unknown
            .map(|(name, place)| {
                let (kind, got, within) = (NameKind::Option, name.clone(), format!("hook `{}`", self.name));
                let reason = Reason::Unknown { kind, got, within, known: known.clone() };
                Problem { place: Some(place.key.clone()), reason }
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

/// A hook from what its table holds besides its name, its library's path and how far it is trusted. `name` is `None` where there
/// is no hook to be had; that has been reported then.
pub(super) fn from_rest(
    name: Option<(String, Place)>,
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
    let (name, place) = name?;
    let places = HookPlaces { name: Some(place), options };
    Some(HookConfig { name, library, trust, options: Options::new(values, base), places })
}

/// The value as JSON, in which hooks read their options; or what does not go into JSON, and what would.
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
    table.iter().map(|(key, Entry { node, .. })| Ok((key.clone(), json(node)?))).collect()
}
