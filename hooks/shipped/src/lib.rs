//! The hooks that ship with vector14.
