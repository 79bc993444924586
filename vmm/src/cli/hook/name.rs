//! Which names cargo accepts for a hook's package.

/// Rust's keywords, strict and reserved, and names that would shadow a crate that every hook uses.
const TAKEN: &[&str] = &[
    "Self",
    "abstract",
    "alloc",
    "as",
    "async",
    "await",
    "become",
    "box",
    "break",
    "const",
    "continue",
    "core",
    "crate",
    "do",
    "dyn",
    "else",
    "enum",
    "extern",
    "false",
    "final",
    "fn",
    "for",
    "gen",
    "if",
    "impl",
    "in",
    "let",
    "loop",
    "macro",
    "match",
    "mod",
    "move",
    "mut",
    "override",
    "priv",
    "proc_macro",
    "pub",
    "ref",
    "return",
    "self",
    "static",
    "std",
    "struct",
    "super",
    "test",
    "trait",
    "true",
    "try",
    "type",
    "typeof",
    "union",
    "unsafe",
    "unsized",
    "use",
    "vector14-hook",
    "vector14_hook",
    "virtual",
    "where",
    "while",
    "yield",
];

/// Why cargo would refuse `name` for a package; `None` if it would accept it.
pub(super) fn objection(name: &str) -> Option<String> {
    let starts_well = name.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_');
    let bad = name.chars().find(|letter| !letter.is_ascii_alphanumeric() && *letter != '-' && *letter != '_');
    if name.is_empty() {
        Some("it is empty".to_owned())
    } else if let Some(bad) = bad {
        Some(format!("it has the character {bad:?}; only letters, digits, - and _ are allowed"))
    } else if !starts_well {
        Some("it must begin with a letter or _".to_owned())
    } else if TAKEN.contains(&name) {
        Some("Rust or vector14 reserves it".to_owned())
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_that_cargo_takes() {
        for good in ["mine", "my-hook", "my_hook2", "_x", "Hook"] {
            assert_eq!(objection(good), None, "{good}");
        }
        for (bad, why) in [
            ("", "empty"),
            ("2nd", "begin"),
            ("-x", "begin"),
            ("a b", "' '"),
            ("a.b", "'.'"),
            ("härte", "'ä'"),
            ("fn", "Rust"),
            ("std", "Rust"),
            ("vector14-hook", "Rust"),
        ] {
            assert!(objection(bad).is_some_and(|objection| objection.contains(why)), "{bad}");
        }
    }
}
