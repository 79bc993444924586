//! `vector14 hooks`: the hooks that a config can name, with their options.

use std::path::PathBuf;

use clap::ValueHint;
use serde_json::json;
use vector14::display::{Grid, Style};
use vector14::library::Library;
use vector14_hook::{HookType, OptionDoc};
use vector14_hooks::HOOKS;

use super::{Failure, output};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// List the hook of this library instead of the shipped ones
    #[arg(long, value_name = "LIBRARY", value_hint = ValueHint::FilePath)]
    path: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &Args) -> Result<u8, Failure> {
    let library = args.path.as_deref().map(Library::load).transpose().map_err(Failure::Library)?;
    let hooks: Vec<Listed<'_>> = match &library {
        Some(library) => vec![library.into()],
        None => HOOKS.iter().map(Listed::from).collect(),
    };
    if args.json {
        output::print_json(&hooks.iter().map(as_json).collect::<Vec<_>>())?;
    } else {
        output::print(&list(&hooks, output::style()))?;
    }
    Ok(0)
}

/// What is listed for a hook.
struct Listed<'a> {
    name: &'a str,
    summary: &'a str,
    options: &'a [OptionDoc],
}

impl<'a> From<&'a HookType> for Listed<'a> {
    fn from(hook: &'a HookType) -> Self {
        Self { name: hook.name, summary: hook.summary, options: hook.options }
    }
}

impl<'a> From<&'a Library> for Listed<'a> {
    fn from(library: &'a Library) -> Self {
        Self { name: library.name(), summary: library.summary(), options: library.options() }
    }
}

fn list(hooks: &[Listed<'_>], style: Style) -> String {
    match style {
        Style::Plain => lines(hooks).render(style),
        Style::Terminal { .. } => hooks.iter().map(|hook| table(hook, style)).collect::<Vec<_>>().join("\n"),
    }
}

/// Output for scripts: one line per hook and one per option, which is named as in `--set`.
fn lines(hooks: &[Listed<'_>]) -> Grid {
    let mut grid = Grid::default();
    for hook in hooks {
        grid.row([hook.name, hook.summary]);
        for option in hook.options {
            grid.row([&format!("hook.{}.{}", hook.name, option.name), option.value, default(option), option.help]);
        }
    }
    grid
}

fn table(hook: &Listed<'_>, style: Style) -> String {
    let mut head = Grid::default();
    head.row([hook.name, hook.summary]);
    let mut grid = Grid::new(&["option", "value", "default", ""]);
    for option in hook.options {
        grid.row([option.name, option.value, default(option), option.help]);
    }
    let options = if hook.options.is_empty() { String::new() } else { grid.render(style) };
    [head.render(style), options].concat()
}

fn default(option: &OptionDoc) -> &'static str {
    option.default.unwrap_or("(required)")
}

fn as_json(hook: &Listed<'_>) -> serde_json::Value {
    let option = |option: &OptionDoc| json!({"name": option.name, "value": option.value, "default": option.default, "help": option.help});
    json!({
        "name": hook.name,
        "summary": hook.summary,
        "options": hook.options.iter().map(option).collect::<Vec<_>>(),
    })
}

#[cfg(test)]
mod tests {
    use vector14::display::Colour;

    use super::*;

    const SAMPLE: &[Listed<'_>] = &[Listed {
        name: "trace",
        summary: "writes one line a fault",
        options: &[OptionDoc { name: "file", value: "path", default: None, help: "where to" }],
    }];

    #[test]
    fn a_pipe_gets_a_line_for_each_hook_and_option() {
        let text = list(SAMPLE, Style::Plain);
        assert_eq!(text, "trace\twrites one line a fault\nhook.trace.file\tpath\t(required)\twhere to\n");
    }

    #[test]
    fn a_terminal_gets_a_table_for_each_hook() {
        let text = list(SAMPLE, Style::Terminal { width: 80, colour: Colour::Off });
        assert!(text.starts_with("trace  writes one line a fault\noption"), "{text}");
    }
}
