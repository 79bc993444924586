//! The hooks that ship with vector14.

use vector14_hook::HookType;

/// The hooks that a config file can name, in the order in which `vector14 hooks` lists them.
pub const HOOKS: &[HookType] = &[];
