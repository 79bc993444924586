//! Messages about hooks that misbehaved, for the summary: the first ones, and a count of the rest.

/// The messages so far.
#[derive(Default)]
pub(super) struct Notes {
    first: Vec<String>,
    more: u64,
}

impl Notes {
    const FIRST_MAX: usize = 100;

    pub(super) fn add(&mut self, note: String) {
        if self.first.len() < Self::FIRST_MAX { self.first.push(note) } else { self.more += 1 }
    }

    pub(super) fn into_sentences(mut self) -> Vec<String> {
        if self.more > 0 {
            self.first.push(format!("{} more notes about hooks were only logged", self.more));
        }
        self.first
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notes_are_bounded_and_none_is_uncounted() {
        let mut notes = Notes::default();
        (0..1000).for_each(|n| notes.add(n.to_string()));
        let sentences = notes.into_sentences();
        assert_eq!(sentences.len(), 101);
        assert_eq!(sentences[99..], ["99", "900 more notes about hooks were only logged"]);
    }
}
