//! Compares what a kernel prints with interception on and with it off.

use std::collections::BTreeMap;

/// Lines, and how many times each was printed. Their order is not compared, because CPUs take turns in any order.
type Lines<'a> = BTreeMap<&'a str, usize>;

fn lines(console: &str) -> Lines<'_> {
    let mut lines = Lines::new();
    for line in console.lines() {
        *lines.entry(line).or_default() += 1;
    }
    lines
}

/// The lines that both runs with interception off printed and `on` did not. Lines that only `on` printed count if those
/// two runs printed the same lines: a kernel that prints times prints other lines in each run.
pub fn differences(off: [&str; 2], on: &str) -> Vec<String> {
    let [first, second, on] = [off[0], off[1], on].map(lines);
    let count = |lines: &Lines<'_>, line: &str| lines.get(line).copied().unwrap_or_default();
    let lacking = first.iter().filter(|(line, times)| (**times).min(count(&second, line)) > count(&on, line));
    let mut found: Vec<_> = lacking.map(|(line, _)| format!("has not said `{line}`")).collect();
    if first == second {
        let further = on.iter().filter(|(line, times)| **times > count(&first, line));
        found.extend(further.map(|(line, _)| format!("has said `{line}`")));
    }
    found
}

/// Tests [`differences`].
pub fn are_told_from_noise() {
    let noisy = ["PASS: a\ntime 12\nPASS: b\n", "time 13\nPASS: a\nPASS: b\n"];
    assert_eq!(differences(noisy, "PASS: b\nPASS: a\ntime 99\n"), [""; 0]);
    assert_eq!(differences(noisy, "PASS: b\nFAIL: a\ntime 99\n"), ["has not said `PASS: a`"]);
    assert_eq!(differences(["a\n"; 2], "a\nb\n"), ["has said `b`"]);
    assert_eq!(differences(["a\na\n"; 2], "a\n"), ["has not said `a`"]);
}
