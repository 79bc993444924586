//! Errors, with the piece of config that each is about.

use std::fmt;

use miette::{Diagnostic, GraphicalReportHandler, GraphicalTheme, LabeledSpan, NamedSource, SourceCode, SourceSpan};

use super::printable::{masked, printable, printable_lines};
use super::{Colour, Style};

/// Renders an error and its help. If it stands for several errors, they come first, each with its piece of text and a
/// caret.
#[must_use]
pub fn diagnostic(error: &dyn Diagnostic, style: Style) -> String {
    let (mut theme, width) = match style {
        Style::Plain => (GraphicalTheme::none(), usize::from(u16::MAX)),
        Style::Terminal { width, colour: Colour::On } => (GraphicalTheme::unicode(), usize::from(width)),
        Style::Terminal { width, colour: Colour::Off } => (GraphicalTheme::unicode_nocolor(), usize::from(width)),
    };
    theme.characters.underline = '^';
    let handler = GraphicalReportHandler::new_themed(theme).with_width(width).with_links(false);
    let render = |error: &dyn Diagnostic| {
        let mut text = String::new();
        let error = Printable::new(error);
        match handler.render_report(&mut text, &error) {
            Ok(()) => text,
            // The place is not in its source. The message is still worth showing.
            Err(fmt::Error) => format!("{error}\n"),
        }
    };
    let parts: Vec<_> = error.related().into_iter().flatten().map(render).collect();
    match &parts[..] {
        [] => render(error),
        [only] => only.clone(),
        [_, ..] => format!("{}\n{}", parts.join("\n"), render(&Head(error))),
    }
}

/// An error without the errors that it stands for.
#[derive(Debug)]
struct Head<'a>(&'a dyn Diagnostic);

impl fmt::Display for Head<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self.0, f)
    }
}

impl std::error::Error for Head<'_> {}

impl Diagnostic for Head<'_> {
    fn help<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        self.0.help()
    }
}

/// An error with the control characters in its texts escaped.
#[derive(Debug)]
struct Printable<'a> {
    error: &'a dyn Diagnostic,
    source: Option<NamedSource<String>>,
}

impl<'a> Printable<'a> {
    fn new(error: &'a dyn Diagnostic) -> Self {
        let all = |source: &'a dyn SourceCode| source.read_span(&SourceSpan::from((0, 0)), 0, usize::MAX).ok();
        let source = error.source_code().and_then(all).map(|all| {
            let name = printable(all.name().unwrap_or_default());
            NamedSource::new(name, masked(all.data()))
        });
        Self { error, source }
    }
}

impl fmt::Display for Printable<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&printable_lines(&self.error.to_string()))
    }
}

impl std::error::Error for Printable<'_> {}

impl Diagnostic for Printable<'_> {
    fn help<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        Some(Box::new(printable_lines(&self.error.help()?.to_string())))
    }

    fn source_code(&self) -> Option<&dyn SourceCode> {
        Some(self.source.as_ref()?)
    }

    fn labels(&self) -> Option<Box<dyn Iterator<Item = LabeledSpan> + '_>> {
        self.error.labels()
    }
}
