//! What a config says of the interception: the engine and the hooks.

pub(crate) mod place;

use std::collections::BTreeMap;
use std::fmt;
use std::ops::{Range, RangeInclusive};
use std::time::Duration;

use vector14_hook::{ErrorCode, Options, Va};

use self::place::Place;
use super::library::Library;
use super::trust::Trust;

/// Default of `intercept.engine`.
pub(crate) const ENGINE: EngineChoice = EngineChoice::Auto;
/// Distance between two stubs in `intercept.stub`, in bytes. No stub is longer.
pub(crate) const STUB_STRIDE: usize = 16;
/// Defaults of `hook.budget`, `hook.timeout` and `hook.on_error`.
pub const TRUST: Trust = Trust::DEFAULT;
/// Allowed values of `hook.budget` and `hook.timeout`: shorter times can't be measured.
pub(crate) const TRUST_RANGE: RangeInclusive<Duration> = Duration::from_millis(1)..=Duration::from_secs(24 * 60 * 60);

/// `[intercept]`: how faults are intercepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InterceptConfig {
    /// The engine that intercepts faults.
    pub engine: EngineChoice,
    /// Where the `gate` engine may put its stubs in the guest; `None`: vector14 looks for room.
    pub stub: Option<Range<Va>>,
    /// Which faults cause an exit with the `exception-bitmap` engine; `None`: all of them.
    pub error_code: Option<ErrorCodeFilter>,
}

impl Default for InterceptConfig {
    fn default() -> Self {
        Self { engine: ENGINE, stub: None, error_code: None }
    }
}

/// `intercept.error_code`: a fault causes an exit if its error code, masked with `mask`, is `value`. Other faults go
/// straight to the guest's own handler.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ErrorCodeFilter {
    /// The bits that are compared.
    pub mask: ErrorCode,
    /// What these bits must be. Every bit set here is also set in `mask`.
    pub value: ErrorCode,
}

impl ErrorCodeFilter {
    /// A filter that matches every fault.
    pub const ALL: Self = Self { mask: ErrorCode::empty(), value: ErrorCode::empty() };
}

/// `intercept.engine`: how faults are intercepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EngineChoice {
    /// The best engine that this host's KVM offers.
    Auto,
    /// IDT entry 14 points to a stub that exits to the host.
    Gate,
    /// Faults cause an exit before they are delivered. This needs a patched KVM.
    ExceptionBitmap,
    /// Faults are not intercepted.
    Off,
}

impl EngineChoice {
    /// All engines, in the order in which messages list them.
    pub const ALL: [Self; 4] = [Self::Auto, Self::Gate, Self::ExceptionBitmap, Self::Off];

    /// The name in the config file.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Gate => "gate",
            Self::ExceptionBitmap => "exception-bitmap",
            Self::Off => "off",
        }
    }
}

impl fmt::Display for EngineChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// `[[hook]]`: one hook of the chain.
#[derive(Clone, Debug)]
pub struct HookConfig {
    /// Name of the hook's type, or the name given to a hook from a library.
    pub name: String,
    /// The library that the hook is loaded from; `None`: the hook is one that is compiled into the program.
    pub library: Option<Library>,
    /// How far the hook is trusted.
    pub trust: Trust,
    /// The hook's own options.
    pub options: Options,
    /// Where the hook's table was written.
    pub(crate) places: HookPlaces,
}

impl HookConfig {
    /// A hook that does not come from a config file.
    pub fn new(name: impl Into<String>, options: Options) -> Self {
        Self { name: name.into(), library: None, trust: TRUST, options, places: HookPlaces::default() }
    }

    /// The name of the hook's type, or the path of its library.
    pub(crate) fn kind(&self) -> String {
        self.library.as_ref().map_or_else(|| self.name.clone(), |library| library.path().display().to_string())
    }
}

/// Where a `[[hook]]` table was written.
#[derive(Clone, Debug, Default)]
pub(crate) struct HookPlaces {
    pub(crate) name: Option<Place>,
    pub(crate) options: BTreeMap<String, OptionPlace>,
}

#[derive(Clone, Debug)]
pub(crate) struct OptionPlace {
    pub(crate) key: Place,
    /// From the beginning of the key to the end of the value.
    pub(crate) whole: Place,
}
