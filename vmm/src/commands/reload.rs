//! `vector14 run --watch`: reloads a hook whenever its library is rebuilt, and replaces the old hook while the guest
//! goes on.

use std::time::Duration;

use vector14_hook::HookType;

use crate::commands::config::{HookConfig, Problem};
use crate::intercept::library::{Library, LibraryError, Stamp};
use crate::vm::{HandleError, RunState, VmError, VmHandle};

/// Interval between two checks of the libraries' files. A file that did not change between two checks can be loaded.
const BEAT: Duration = Duration::from_millis(200);

/// Watches `hooks`, which the VM's chain begins with, until the VM ends. A hook that was loaded from a library is
/// replaced when its library changes. `tell` gets one line per attempt. If a library can't be loaded, the old hook
/// stays.
///
/// # Errors
/// The host can't start a thread.
pub fn spawn(
    vm: VmHandle,
    hooks: &[HookConfig],
    types: &'static [HookType],
    tell: impl Fn(&str) + Send + 'static,
) -> Result<(), VmError> {
    let names = vm.hooks().into_iter().map(|hook| hook.name);
    let mut watched: Vec<_> = names.zip(hooks).filter_map(|(name, hook)| Watched::new(name, hook)).collect();
    if watched.is_empty() {
        tell("no hook of the config is loaded from a library, so there is nothing to watch");
        return Ok(());
    }
    let look_after = move || {
        while vm.state() != RunState::Ended && !watched.is_empty() {
            std::thread::sleep(BEAT);
            watched.retain_mut(|hook| hook.look(&vm, types, &tell));
        }
    };
    let spawned = std::thread::Builder::new().name("watch".to_owned()).spawn(look_after);
    spawned.map(drop).map_err(|source| VmError::Host { what: "a thread that watches libraries", source })
}

/// A hook whose library may be rebuilt.
struct Watched {
    /// The hook's name in the chain.
    name: String,
    library: Library,
    /// State of the file at the last attempt to load it, successful or not.
    tried: Stamp,
    /// State of the file at the last beat.
    last: Option<Stamp>,
}

/// Why a hook was not replaced.
#[derive(Debug, thiserror::Error)]
enum Stays {
    #[error("{0}; {help}", help = .0.help())]
    Library(LibraryError),
    #[error("{}", all(.0))]
    Options(Vec<Problem>),
    #[error("another hook has taken its place")]
    Displaced,
    #[error(transparent)]
    Vm(#[from] HandleError),
}

impl Watched {
    fn new(name: String, hook: &HookConfig) -> Option<Self> {
        let library = hook.library.clone()?;
        let tried = library.stamp();
        Some(Self { name, library, tried, last: Some(tried) })
    }

    /// Checks the file, and replaces the hook if the file has changed and is stable. Returns whether there is still
    /// something to watch.
    fn look(&mut self, vm: &VmHandle, types: &[HookType], tell: &impl Fn(&str)) -> bool {
        let now = Stamp::of(self.library.path());
        let holds_still = std::mem::replace(&mut self.last, now) == now;
        let Some(now) = now.filter(|now| holds_still && *now != self.tried) else { return true };
        self.tried = now;
        let (name, path) = (&self.name, self.library.path().display());
        match self.replace(vm, types) {
            Ok(0) => tell(&format!("hook `{name}` was reloaded from {path}")),
            Ok(_) => {
                tell(&format!("hook `{name}` was reloaded from {path}; the old one is still busy, and ends later"))
            }
            Err(gone @ (Stays::Displaced | Stays::Vm(HandleError::Edit(_)))) => {
                tell(&format!("stopped watching {path}: {gone}"));
                return false;
            }
            Err(stays) => tell(&format!("hook `{name}` stays as it was: {stays}")),
        }
        true
    }

    /// Replaces the hook. Returns how many old hooks have not ended yet.
    fn replace(&self, vm: &VmHandle, types: &[HookType]) -> Result<usize, Stays> {
        // Keeps the hook's current options.
        let hook = vm.origin(&self.name)?;
        if hook.library.as_ref().map(Library::path) != Some(self.library.path()) {
            return Err(Stays::Displaced);
        }
        let hook = hook.reload(&self.library).map_err(Stays::Library)?;
        let made = hook.check_and_create(types).map_err(Stays::Options)?;
        Ok(vm.replace(&self.name, made)?)
    }
}

fn all(problems: &[Problem]) -> String {
    problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}
