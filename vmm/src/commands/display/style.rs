//! What an output stream can show.

use std::env;
use std::io::IsTerminal;
use std::os::fd::AsFd;

/// What an output stream can show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// Plain lines, for a pipe or a file.
    Plain,
    /// Tables and colours, for a person.
    Terminal {
        /// Number of columns of the terminal.
        width: u16,
        /// Whether the terminal shows colours.
        colour: Colour,
    },
}

/// Whether colours are used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Colour {
    /// Colours are used.
    On,
    /// Colours are off: `NO_COLOR` is set, or the terminal does not support them.
    Off,
}

impl Style {
    /// What `stream` can show, given `NO_COLOR` (<https://no-color.org>) and `TERM=dumb`.
    pub fn of(stream: &(impl IsTerminal + AsFd)) -> Self {
        const USUAL_WIDTH: u16 = 80;
        if !stream.is_terminal() {
            return Self::Plain;
        }
        let width = terminal_size::terminal_size_of(stream).map_or(USUAL_WIDTH, |(width, _)| width.0);
        let monochrome = env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty())
            || env::var_os("TERM").is_none_or(|term| term == "dumb");
        Self::Terminal { width, colour: if monochrome { Colour::Off } else { Colour::On } }
    }

    /// Whether colours are used.
    #[must_use]
    pub const fn colour(self) -> Colour {
        match self {
            Self::Plain => Colour::Off,
            Self::Terminal { colour, .. } => colour,
        }
    }
}
