//! Makes untrusted text safe for a terminal. Text from configs, hooks, guests and whoever answers on a control socket
//! could otherwise move the cursor, change the title, or make the terminal send input.
//!
//! All output passes through here first. Colours are added later.

use std::borrow::Cow;

/// Escapes every control character, including line breaks, so that the result is one line.
#[must_use]
pub fn printable(text: &str) -> String {
    escape(text, |c| c.is_control())
}

/// Escapes every control character except line breaks.
pub(super) fn printable_lines(text: &str) -> String {
    escape(text, |c| c.is_control() && c != '\n')
}

fn escape(text: &str, is_escaped: impl Fn(char) -> bool) -> String {
    let mut clean = String::with_capacity(text.len());
    for c in text.chars() {
        if is_escaped(c) { clean.extend(c.escape_default()) } else { clean.push(c) }
    }
    clean
}

/// A source text with unchanged offsets: line breaks and tabs are kept, and every byte of another control character
/// becomes a question mark.
pub(super) fn masked(source: &[u8]) -> String {
    let text = String::from_utf8_lossy(source);
    let mut clean = String::with_capacity(text.len());
    let mut rest = text.chars().peekable();
    while let Some(c) = rest.next() {
        let is_kept = match c {
            '\n' | '\t' => true,
            '\r' => rest.peek() == Some(&'\n'),
            _ => !c.is_control(),
        };
        if is_kept { clean.push(c) } else { clean.extend(std::iter::repeat_n('?', c.len_utf8())) }
    }
    clean
}

/// JSON with all control characters escaped: serde_json escapes those of ASCII except for DEL, and this escapes the
/// others.
#[must_use]
pub fn printable_json(json: &str) -> Cow<'_, str> {
    let is_escaped = |c: char| c.is_control() && c != '\n';
    if !json.contains(is_escaped) {
        return Cow::Borrowed(json);
    }
    let escape = |c: char| if is_escaped(c) { format!("\\u{:04x}", u32::from(c)) } else { c.to_string() };
    Cow::Owned(json.chars().map(escape).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_are_escaped_and_others_are_not() {
        assert_eq!(printable("é\u{1b}[2J\r\n\u{9b}2J\u{7f}"), "é\\u{1b}[2J\\r\\n\\u{9b}2J\\u{7f}");
        assert_eq!(printable_lines("a\u{1b}\nb"), "a\\u{1b}\nb");
    }

    #[test]
    fn a_masked_source_keeps_its_offsets() {
        let source = "a\u{1b}[2J\r\n\tb\r\u{9b}é = 1\n";
        let clean = masked(source.as_bytes());
        assert_eq!(clean, "a?[2J\r\n\tb???é = 1\n");
        assert_eq!(clean.len(), source.len());
    }

    #[test]
    fn json_stays_json_of_the_same_value() {
        let value = serde_json::json!({"\u{9b}\u{1b}": ["\u{7f}", "é\n"]});
        let text = serde_json::to_string_pretty(&value).unwrap();
        let clean = printable_json(&text);
        assert!(!clean.contains(|c: char| c.is_control() && c != '\n'), "{clean}");
        assert_eq!(serde_json::from_str::<serde_json::Value>(&clean).unwrap(), value);
    }
}
