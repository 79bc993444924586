//! How results and errors look: tables and colours on a terminal, plain lines that a script can cut up anywhere else.
//!
//! Every function takes a [`Style`] and returns text; who calls it decides where that goes. Nothing here is on the path
//! of a fault.
//!
//! # Layout
//! - [`style`]: [`Style`], what a stream can show
//! - [`mod@printable`]: text of strangers, made safe for a terminal
//! - [`grid`]: [`Grid`], rows and columns in either style
//! - [`mod@summary`]: a [`Summary`](crate::summary::Summary) and its hooks' reports
//! - [`mod@status`]: a VM while it runs
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
