//! What a stream can show.

use std::env;
use std::io::IsTerminal;
use std::os::fd::AsFd;

/// What a stream can show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// Plain lines: a pipe, a file.
    Plain,
    /// Tables for a person.
    Terminal {
        /// Columns of the terminal.
        width: u16,
        /// Whether it shows colours.
        colour: Colour,
    },
}

/// Whether there are colours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Colour {
    /// There are.
    On,
    /// There are none: `NO_COLOR` is set, or the terminal knows none.
    Off,
}

impl Style {
    /// What `stream` shows, with regard to `NO_COLOR` (<https://no-color.org>) and `TERM=dumb`.
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

    /// Whether there are colours.
    #[must_use]
    pub const fn colour(self) -> Colour {
        match self {
            Self::Plain => Colour::Off,
            Self::Terminal { colour, .. } => colour,
        }
    }
}
