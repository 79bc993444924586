//! Where a piece of a config was written.

use std::ops::Range;
use std::sync::Arc;

use miette::NamedSource;

/// A piece of text that the user wrote, in the config file or after `--set`.
#[derive(Clone, Debug)]
pub struct Place {
    pub(crate) source: Arc<NamedSource<String>>,
    pub(crate) span: Range<usize>,
}

impl Place {
    /// The text at this place.
    #[must_use]
    pub fn text(&self) -> &str {
        self.source.inner().get(self.span.clone()).unwrap_or_default()
    }

    /// The text's first line, shortened to fit into a message.
    pub(crate) fn quoted(&self) -> String {
        const LENGTH: usize = 40;
        let line = self.text().lines().next().unwrap_or_default();
        match line.char_indices().nth(LENGTH) {
            Some((cut, _)) => format!("{}...", &line[..cut]),
            None => line.to_owned(),
        }
    }

    /// From the beginning of this place to the end of `other`; this place alone if the two are in different sources.
    pub(crate) fn to(&self, other: &Self) -> Self {
        if Arc::ptr_eq(&self.source, &other.source) && self.span.start <= other.span.end {
            Self { source: Arc::clone(&self.source), span: self.span.start..other.span.end }
        } else {
            self.clone()
        }
    }

    /// The beginning of a source.
    pub(crate) fn start(source: &Arc<NamedSource<String>>) -> Self {
        Self { source: Arc::clone(source), span: 0..0 }
    }

    /// Whether there is any text here.
    pub(crate) fn is_empty(&self) -> bool {
        self.span.is_empty()
    }

    /// This place, or the character before it if this is the empty end of a line, so that a caret has something to
    /// point to.
    pub(crate) fn visible(self) -> Self {
        let text = self.source.inner();
        let at_end = self.is_empty()
            && text.get(self.span.start..).is_some_and(|rest| rest.is_empty() || rest.starts_with('\n'));
        match text.get(..self.span.start).and_then(|before| before.chars().next_back()) {
            Some(last) if at_end && last != '\n' => {
                Self { span: self.span.start - last.len_utf8()..self.span.start, ..self }
            }
            Some(_) | None => self,
        }
    }

    /// Whether parts of both places are on the same line.
    pub(crate) fn shares_line(&self, other: &Self) -> bool {
        let (mine, theirs) = (self.lines(), other.lines());
        Arc::ptr_eq(&self.source, &other.source) && mine.start <= theirs.end && theirs.start <= mine.end
    }

    /// Whether this is on a line such as `[vm]`, which names the table of the lines below it.
    pub(crate) fn on_table_head(&self) -> bool {
        self.source.inner().get(self.lines()).is_some_and(|lines| lines.trim_start().starts_with('['))
    }

    /// The whole lines that this place covers, without the last newline.
    fn lines(&self) -> Range<usize> {
        let text = self.source.inner().as_bytes();
        let newline = |byte: &u8| *byte == b'\n';
        let start = text.iter().take(self.span.start).rposition(newline).map_or(0, |before| before + 1);
        let end = text.iter().skip(self.span.end).position(newline).map_or(text.len(), |after| self.span.end + after);
        start..end
    }
}
