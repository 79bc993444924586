//! How results and errors look: tables and colours on a terminal, and elsewhere plain lines that scripts can parse.
//!
//! Every function takes a [`Style`] and returns text; the caller decides where to write it. Nothing here is on the path
//! of a fault.
//!
//! # Layout
//! - [`style`]: [`Style`], what an output stream can show
//! - [`mod@printable`]: untrusted text, made safe for a terminal
//! - [`grid`]: [`Grid`], rows and columns in either style
//! - [`mod@summary`]: a [`Summary`](crate::vm::summary::Summary) and its hooks' reports
//! - [`mod@status`]: a running VM
//! - [`mod@diagnostic`]: errors, with the piece of config that they are about

pub mod diagnostic;
pub mod grid;
pub mod printable;
pub mod status;
pub mod style;
pub mod summary;

pub use diagnostic::diagnostic;
pub use grid::Grid;
pub use printable::{printable, printable_json};
pub use status::{hooks, stats, stats_head, status};
pub use style::{Colour, Style};
pub use summary::{remarks, reports, summary};
