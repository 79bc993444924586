//! Tests that keep `docs/reference/` in step with the code. Generated files are compared with what the code generates
//! now; the others must name what the code has. `UPDATE_REFERENCE=1 cargo test -p vector14 --lib reference` rewrites
//! the generated files.

use std::fmt::Write;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};
use vector14_hook::{Report, Table};

use crate::commands::config::{Config, ConfigError, Reason};
use crate::commands::ctl::{Command, Refusal, Response};
use crate::intercept::chain::ReportJson;
use crate::machine::stop::{Stop, StopJson};
use crate::vm::summary::Summary;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/reference")
}

fn read(name: &str) -> String {
    std::fs::read_to_string(folder().join(name)).unwrap_or_else(|error| panic!("docs/reference/{name}: {error}"))
}

/// Compares a generated file with what it should be. If `UPDATE_REFERENCE` is set, rewrites it first.
fn check(name: &str, expected: &str) {
    if std::env::var_os("UPDATE_REFERENCE").is_some() {
        std::fs::create_dir_all(folder()).unwrap();
        std::fs::write(folder().join(name), expected).unwrap();
    }
    assert!(read(name) == expected, "docs/reference/{name} is stale: run this test with UPDATE_REFERENCE=1");
}

fn check_schema(name: &str, schema: &Value) {
    check(name, &format!("{schema:#}\n"));
}

/// A page with one table for the schema's own fields and one for those of each definition.
fn tables(title: &str, introduction: &str, schema: &Value) -> String {
    let mut text = format!("# {title}\n\n{introduction}\n");
    section(&mut text, None, schema);
    definitions(&mut text, schema);
    text
}

fn definitions(text: &mut String, schema: &Value) {
    for (name, definition) in schema["$defs"].as_object().into_iter().flatten() {
        section(text, Some(name), definition);
    }
}

fn section(text: &mut String, name: Option<&str>, schema: &Value) {
    if let Some(name) = name {
        write!(text, "\n## {name}\n").unwrap();
        let description = schema["description"].as_str().unwrap_or_default();
        write!(text, "\n{}\n", sentence(description)).unwrap();
    }
    let values: Vec<_> = names(schema).collect();
    if !values.is_empty() {
        write!(text, "\nOne of {}.\n", values.join(", ")).unwrap();
    }
    if let Some(fields) = schema["properties"].as_object() {
        text.push_str("\n| field | type | meaning |\n| --- | --- | --- |\n");
        for (field, of) in fields {
            let meaning = sentence(of["description"].as_str().unwrap_or_default());
            writeln!(text, "| `{field}` | {} | {meaning} |", kind(of)).unwrap();
        }
    }
}

/// The values of an enumeration.
fn names(schema: &Value) -> impl Iterator<Item = String> {
    let listed = schema["enum"].as_array().into_iter().flatten().map(Value::to_string);
    let described =
        schema["oneOf"].as_array().into_iter().flatten().filter_map(|one| Some(one.get("const")?.to_string()));
    listed.chain(described).map(|value| format!("`{value}`"))
}

fn kind(schema: &Value) -> String {
    let reference = |schema: &Value| {
        let name = schema["$ref"].as_str()?.rsplit('/').next()?.to_owned();
        Some(format!("[{name}](#{})", name.to_lowercase()))
    };
    if let Some(name) = reference(schema) {
        return name;
    }
    match &schema["type"] {
        Value::String(kind) if kind == "array" => format!("array of {}", self::kind(&schema["items"])),
        Value::String(kind) => kind.clone(),
        Value::Array(kinds) => kinds.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(" or "),
        _ => "any".to_owned(),
    }
}

/// A description on one line, without rustdoc's links.
fn sentence(description: &str) -> String {
    let plain = description.replace(['\n', '|'], " ").replace("[`", "`").replace("`]", "`").replace("`None`", "`null`");
    match plain.split_once("(crate::") {
        Some((before, link)) => [before, link.split_once(')').unwrap_or_default().1].concat(),
        None => plain,
    }
}

#[test]
fn the_summary_matches_the_reference() {
    let schema = json!(schemars::schema_for!(Summary));
    check_schema("summary.schema.json", &schema);
    let introduction = "What `vector14 run --summary FILE` writes: one JSON object. [summary.schema.json](summary.schema.json) is its\n\
                        JSON Schema. Both are generated from the code; [the changelog](../../CHANGELOG.md) says what stays compatible.";
    check("summary.md", &tables("The summary", introduction, &schema));
}

#[test]
fn stops_and_reports_are_what_the_reference_says() {
    let (detail, hook) = (String::new(), String::new());
    let stops = [
        Stop::Exit { status: 1 },
        Stop::PowerOff,
        Stop::Reset,
        Stop::Crash { detail: detail.clone() },
        Stop::Hook { hook, detail },
        Stop::Deadline,
        Stop::Request,
        Stop::Signal { signal: 2 },
    ];
    let statuses = read("exit-status.md");
    for stop in stops {
        let reason = json!(stop)["reason"].as_str().unwrap().to_owned();
        let signal = matches!(stop, Stop::Signal { .. });
        let status = if signal { "128+n".to_owned() } else { stop.exit_status().to_string() };
        let row = statuses.lines().find(|line| line.starts_with(&format!("| {status} |")));
        assert!(row.is_some_and(|row| row.contains(&format!("`{reason}`"))), "exit-status.md: {stop:?} is {status}");
        serde_json::from_value::<StopJson>(json!(stop)).unwrap_or_else(|error| panic!("{stop:?}: {error}"));
    }
    let table = Table { title: "t".to_owned(), columns: vec!["c".to_owned()], rows: vec![vec!["1".to_owned()]] };
    let report = Report { tables: vec![table], warnings: vec!["w".to_owned()] };
    serde_json::from_value::<ReportJson>(json!(report)).unwrap();
}

#[test]
fn the_control_protocol_matches_the_reference() {
    let schema = json!({
        "command": schemars::schema_for!(Command),
        "result": schemars::schema_for!(Response),
        "error": schemars::schema_for!(Refusal),
    });
    check_schema("ctl.schema.json", &schema);
    let commands = schema["command"]["oneOf"].as_array().unwrap();
    let mut text = "# The control protocol\n\n\
        Each side of the socket sends one JSON object per line. The VM first sends\n\
        `{\"vector14\":{\"version\":…,\"protocol\":1,\"pid\":…}}`. A request has a `command`, the command's arguments beside it, and an `id`\n\
        of any value, which its answer repeats. An answer has a `result`, or an `error` with a `message` and a `help` that may be null.\n\
        [ctl.schema.json](ctl.schema.json) has the JSON Schemas of all three. This page and the schemas are generated from the code;\n\
        [the changelog](../../CHANGELOG.md) says what stays compatible.\n\n\
        | command | arguments | what it does: its result |\n| --- | --- | --- |\n"
        .to_owned();
    for command in commands {
        let name = command["properties"]["command"]["const"].as_str().unwrap();
        let required: Vec<_> = command["required"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        let arguments = command["properties"].as_object().unwrap().iter().filter(|(name, _)| *name != "command");
        let arguments: Vec<_> = arguments
            .map(|(name, schema)| {
                let mark = if required.contains(&name.as_str()) { "" } else { "?" };
                format!("`{name}{mark}`: {}", kind(schema))
            })
            .collect();
        let meaning = sentence(command["description"].as_str().unwrap_or_default()).replace("Response::", "");
        writeln!(text, "| `{name}` | {} | {meaning} |", arguments.join("<br>")).unwrap();
    }
    text.push_str("\nArguments with a question mark may be left out.\n\n| result | fields |\n| --- | --- |\n");
    for result in schema["result"]["anyOf"].as_array().unwrap() {
        let meaning = sentence(result["description"].as_str().unwrap_or_default());
        let fields = match result["properties"].as_object() {
            Some(fields) => {
                let field = |(name, schema): (&String, &Value)| format!("`{name}`: {}", kind(schema));
                fields.iter().map(field).collect::<Vec<_>>().join("<br>")
            }
            None if result["$ref"].is_string() => format!("those of {}", kind(result)),
            None => "none".to_owned(),
        };
        writeln!(text, "| {meaning} | {fields} |").unwrap();
    }
    definitions(&mut text, &schema["result"]);
    check("ctl.md", &text);
}

/// The keys of each section, as the error for an unknown key lists them.
#[test]
fn every_key_of_a_config_is_in_the_reference() {
    let text = "[vm]\nx = 1\n[boot]\nkernel = \"tiny\"\nx = 1\n[[disk]]\nx = 1\n[intercept]\nx = 1\n[control]\nx = 1\n";
    let folder = tempfile::TempDir::new().unwrap();
    let path = folder.path().join("c.toml");
    std::fs::write(&path, text).unwrap();
    let Err(ConfigError::Invalid { problems, .. }) = Config::load(&path, &[], &[]) else {
        panic!("unknown keys are errors")
    };
    let mut documented: Map<String, Value> = Map::new();
    for problem in &problems {
        if let Reason::Unknown { within, known, .. } = &problem.reason {
            documented.insert(within.clone(), json!(known));
        }
    }
    assert_eq!(documented.len(), 5, "{documented:?}");
    let reference = read("config.md");
    for (section, keys) in documented {
        for key in keys.as_array().unwrap() {
            let row = format!("| `{}` |", key.as_str().unwrap());
            let heading = format!("## `{section}`");
            let part =
                reference.split("\n## ").map(|part| format!("## {part}")).find(|part| part.starts_with(&heading));
            let part = part.unwrap_or_else(|| panic!("docs/reference/config.md has no `{heading}`"));
            assert!(part.contains(&row), "docs/reference/config.md, {section}: no row `{row}`");
        }
    }
}
