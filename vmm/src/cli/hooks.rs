//! `vector14 hooks`: the hooks that a config can name, with their options.

use serde_json::json;
use vector14::display::{Grid, Style};
use vector14_hook::{HookType, OptionDoc};
use vector14_hooks::HOOKS;

use super::{Failure, output};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// As JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &Args) -> Result<u8, Failure> {
    if args.json {
        output::print_json(&HOOKS.iter().map(as_json).collect::<Vec<_>>())?;
    } else {
        output::print(&list(HOOKS, output::style()))?;
    }
    Ok(0)
}

fn list(hooks: &[HookType], style: Style) -> String {
    match style {
        Style::Plain => lines(hooks).render(style),
        Style::Terminal { .. } => hooks.iter().map(|hook| table(hook, style)).collect::<Vec<_>>().join("\n"),
    }
}

/// For a script: a line for each hook and for each option, which is named as `--set` names it.
fn lines(hooks: &[HookType]) -> Grid {
    let mut grid = Grid::default();
    for hook in hooks {
        grid.row([hook.name, hook.summary]);
        for option in hook.options {
            grid.row([&format!("hook.{}.{}", hook.name, option.name), option.value, default(option), option.help]);
        }
    }
    grid
}

fn table(hook: &HookType, style: Style) -> String {
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

fn as_json(hook: &HookType) -> serde_json::Value {
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
    use vector14_hook::OptionsError;

    use super::*;

    const SAMPLE: &[HookType] = &[HookType {
        name: "trace",
        summary: "writes one line a fault",
        options: &[OptionDoc { name: "file", value: "path", default: None, help: "where to" }],
        check: |_| Ok(()),
        create: |_| Err(OptionsError { key: None, message: String::new() }),
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
