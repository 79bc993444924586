//! Good and bad configs, and the messages for the bad ones: file, line, column, the value, and what is allowed.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;
use serde_json::json;
use vector14_hook::{ErrorCode, Fault, Guest, Hook, HookType, OptionDoc, Options, OptionsError, Va, Verdict};

use super::{
    Config, ConfigError, EngineChoice, ErrorCodeFilter, HookConfig, Kernel, Module, ProtocolChoice, parse_option,
};
use crate::commands::display::{Style, diagnostic};
use crate::intercept::chain::{OnError, Trust};

struct Nothing;

impl Hook for Nothing {
    fn on_fault(&self, _: &Fault, _: &mut dyn Guest) -> vector14_hook::Result {
        Ok(Verdict::Pass)
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TraceOptions {
    file: Option<PathBuf>,
    pages: Option<u32>,
}

fn check(options: &Options) -> Result<(), OptionsError> {
    options.parse::<TraceOptions>().map(drop)
}

fn create(options: &Options) -> Result<Box<dyn Hook>, OptionsError> {
    check(options).map(|()| Box::new(Nothing) as Box<dyn Hook>)
}

const fn option(name: &'static str) -> OptionDoc {
    OptionDoc { name, value: "", default: None, help: "" }
}

const TYPES: &[HookType] =
    &[HookType { name: "trace", summary: "", options: &[option("file"), option("pages")], check, create }];

fn parse(text: &str, sets: &[&str]) -> Result<Config, ConfigError> {
    let sets: Vec<_> = sets.iter().map(ToString::to_string).collect();
    Config::parse("guest.toml", text, Path::new("/nowhere"), &sets, TYPES)
}

/// An error as written to a pipe, without the spaces that only align columns.
fn told(error: &ConfigError) -> String {
    let text = diagnostic(error, Style::Plain);
    text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ") + "\n").collect()
}

const TINY: &str = "boot.kernel = 'tiny'\n";

#[test]
fn a_kernel_is_all_that_a_config_needs() {
    let config = parse(TINY, &[]).unwrap();
    assert_eq!((config.vm.memory, config.vm.vcpus, config.vm.timeout), (64 << 20, 1, None));
    assert_eq!((config.boot.kernel, config.boot.cmdline), (Kernel::Tiny, String::new()));
    assert_eq!((config.boot.protocol, config.boot.initrd, config.boot.modules), (ProtocolChoice::Auto, None, vec![]));
    assert_eq!((config.intercept.engine, config.intercept.stub), (EngineChoice::Auto, None));
    assert!(config.hooks.is_empty());
}

#[test]
fn every_key_is_read() {
    let text = "
        [vm]
        memory = '1.5G'
        vcpus = 8
        timeout = '1min 30s'
        [boot]
        kernel = 'tiny'
        cmdline = 'scenario=demand pages=1000'
        [intercept]
        engine = 'gate'
        stub = { start = 0xffff_ffff_8100_0000, end = '0xffff_ffff_8100_0040' }
        [[hook]]
        name = 'trace'
        file = 'a.jsonl'
        [control]
        socket = 'ctl.sock'
        [[hook]]
        name = 'trace'
        pages = 7
        budget = '20ms'
        timeout = '1min'
        on_error = 'stop'";
    let config = parse(text, &[]).unwrap();
    assert_eq!(config.vm.memory, 3 << 29);
    assert_eq!((config.vm.vcpus, config.vm.timeout), (8, Some(Duration::from_secs(90))));
    assert_eq!(config.boot.cmdline, "scenario=demand pages=1000");
    assert_eq!(config.intercept.engine, EngineChoice::Gate);
    assert_eq!(config.intercept.stub, Some(Va(0xffff_ffff_8100_0000)..Va(0xffff_ffff_8100_0040)));
    assert_eq!(config.hooks[1].options.parse::<TraceOptions>().unwrap().pages, Some(7));
    assert_eq!(config.hooks[0].trust, Trust::DEFAULT);
    let (budget, timeout) = (Duration::from_millis(20), Duration::from_secs(60));
    assert_eq!(config.hooks[1].trust, Trust { budget, timeout, on_error: OnError::Stop });
    assert_eq!(config.control.socket, Some(PathBuf::from("/nowhere/ctl.sock")));
    let made = config.create_hooks(TYPES).unwrap();
    assert_eq!(made[1].trust, config.hooks[1].trust);
    assert_eq!(made[1].origin.as_ref().map(HookConfig::kind), Some("trace".to_owned()));
    assert_eq!(made.iter().map(|hook| hook.name.as_str()).collect::<Vec<_>>(), ["trace", "trace"]);
}

#[test]
fn faults_can_be_chosen_by_their_error_code() {
    let config = parse(&format!("{TINY}intercept.error_code = {{ mask = 0x3, match = 0x2 }}\n"), &[]).unwrap();
    let filter = ErrorCodeFilter { mask: ErrorCode::PRESENT | ErrorCode::WRITE, value: ErrorCode::WRITE };
    assert_eq!(config.intercept.error_code, Some(filter));
    let sets = ["intercept.error_code={mask=1, match=0}", "intercept.engine=exception-bitmap"];
    let config = parse(TINY, &sets).unwrap();
    assert_eq!(config.intercept.engine, EngineChoice::ExceptionBitmap);
    assert_eq!(config.intercept.error_code.map(|filter| filter.mask), Some(ErrorCode::PRESENT));
}

#[test]
fn a_bad_value_is_told_with_its_place_and_what_is_allowed() {
    // The value, its place in `KEY = VALUE` on line 2, and the message.
    let cases = [
        ("vm.memory = '7K'", "2:13", "vm.memory = '7K': must be a size from 2M to 1T"),
        ("vm.memory = '99999999999G'", "2:13", "vm.memory = '99999999999G': must be a size from 2M to 1T"),
        ("vm.memory = '999999999999999999G'", "2:13", "must be a size from 2M to 1T"),
        ("vm.memory = '4097K'", "2:13", "vm.memory = '4097K': must be a multiple of 4K"),
        ("vm.memory = '-64M'", "2:13", "must be a size in quotes, such as \"64M\""),
        ("vm.memory = 64", "2:13", "vm.memory = 64: must be a size in quotes, such as \"64M\""),
        ("vm.memory = ''", "2:13", "must be a size in quotes"),
        ("vm.vcpus = 0", "2:12", "vm.vcpus = 0: must be a number from 1 to 8"),
        ("vm.vcpus = -1", "2:12", "vm.vcpus = -1: must be a number from 1 to 8"),
        ("vm.vcpus = 99999999999999999999999999999999999999999", "2:12", "must be a number from 1 to 8"),
        ("vm.vcpus = '2'", "2:12", "must be a number from 1 to 8, without quotes"),
        ("vm.vcpus = 1.5", "2:12", "vm.vcpus = 1.5: must be a number from 1 to 8"),
        ("vm.timeout = 30", "2:14", "vm.timeout = 30: must be a time in quotes"),
        ("vm.timeout = 'soon'", "2:14", "must be a time in quotes, such as \"500ms\", \"30s\" or \"5min\""),
        ("vm.timeout = '0s'", "2:14", "must be longer than 0s and at most 365days"),
        ("vm.timeout = '99999999999999999999years'", "2:14", "must be longer than 0s and at most 365days"),
        ("boot.cmdline = 3", "2:16", "boot.cmdline = 3: must be a string, in quotes"),
        ("boot.cmdline = \"a\\u0000\"", "2:16", "must be a string without NUL bytes"),
        ("boot.protocol = 'pvh'", "2:17", "must be one of \"auto\", \"elf\", \"linux\", \"multiboot\""),
        ("boot.initrd = ''", "2:15", "boot.initrd = '': must be the path of a file, in quotes"),
        ("boot.initrd = 'nothere'", "2:15", "boot.initrd = /nowhere/nothere: No such file"),
        ("boot.modules = 'nothere'", "2:16", "must be a list of paths, in brackets"),
        ("boot.modules = ['nothere']", "2:17", "boot.modules = /nowhere/nothere: No such file"),
        (
            "boot.modules = [' x']",
            "2:17",
            "must be the path of a file, in quotes, with words for the kernel after a space",
        ),
        ("boot.modules = [3]", "2:17", "boot.modules = 3: must be the path of a file"),
        ("intercept.engine = 'gat'", "2:20", "must be one of \"auto\", \"gate\", \"exception-bitmap\", \"off\""),
        ("intercept.error_code = 2", "2:24", "must be a table of two numbers of 32 bits, such as { mask = 0x3"),
        ("intercept.error_code = { mask = 2 }", "2:24", "must be a table of two numbers"),
        ("intercept.error_code = { mask = 2, match = 2, or = 1 }", "2:24", "must be a table of two numbers"),
        ("intercept.error_code = { mask = -1, match = 0 }", "2:24", "must be a table of two numbers"),
        (
            "intercept.error_code = { mask = 1, match = 3 }",
            "2:24",
            "must be a table whose match has no bit that its mask",
        ),
        (
            "intercept = { engine = 'gate', error_code = { mask = 1, match = 1 } }",
            "2:45",
            "must be left out, or engine = \"exception-bitmap\": gate sees every fault",
        ),
        (
            "intercept.stub = 0x1000",
            "2:18",
            "must be a table of two canonical addresses, such as { start = 0xffffffff81",
        ),
        ("intercept.stub = { start = 0x1000 }", "2:18", "must be a table of two canonical addresses"),
        ("intercept.stub = { start = -1, end = '81000000' }", "2:18", "must be a table of two canonical addresses"),
        (
            "intercept.stub = { start = 0, end = 0x0800000000000000 }",
            "2:18",
            "must be a table of two canonical addresses",
        ),
        ("intercept.stub = { start = 0x1000, end = 0x100f }", "2:18", "must be a range of at least 16 bytes"),
        ("disk = [{path = ''}]", "2:17", "disk.path = '': must be the path of a file, in quotes"),
        ("disk = [{readonly = true}]", "2:9", "`path` is missing in [[disk]]"),
        ("disk = [{path = 'a', readonly = 'yes'}]", "2:33", "must be true or false, without quotes"),
        ("vm = 3", "2:6", "vm = 3: must be a table, written [vm]"),
        ("hook = 'trace'", "2:8", "must be written [[hook]], a table for each hook"),
        ("hook = ['trace']", "2:9", "must be written [[hook]], a table for each hook"),
        ("hook = [{}]", "2:9", "`name` is missing in [[hook]]"),
        ("hook = [{name='trace', budget=5}]", "2:31", "hook.budget = 5: must be a time in quotes, such as \"500ms\""),
        ("hook = [{name='trace', budget='0s'}]", "2:31", "hook.budget = '0s': must be a time from 1ms to 1day"),
        (
            "hook = [{name='trace', timeout='99years'}]",
            "2:32",
            "hook.timeout = '99years': must be a time from 1ms to 1day",
        ),
        ("hook = [{name='trace', on_error='die'}]", "2:33", "must be one of \"reinject\", \"stop\""),
        ("hook = [{name='trace', budgte='1s'}]", "2:24", "did you mean `budget`?"),
        ("control.socket = 3", "2:18", "control.socket = 3: must be the path of a file, in quotes"),
        ("control.path = 'a'", "2:9", "unknown key `path` in [control]"),
        ("hook = [{name='trace', pages=1e999}]", "2:30", "hook.pages = 1e999: must be a finite number"),
    ];
    for (line, place, words) in cases {
        let told = told(&parse(&format!("{TINY}{line}\n"), &[]).expect_err(line));
        assert!(told.contains(&format!("[guest.toml:{place}]")), "{line}:\n{told}");
        assert!(told.contains(words), "{line}:\n{told}");
        assert!(told.contains(&format!("2 | {line}")), "{line}:\n{told}");
    }
}

#[test]
fn unknown_names_are_refused_with_the_nearest_known_one() {
    let cases = [
        (
            "vm.memry = '1G'",
            "unknown key `memry` in [vm]",
            "did you mean `memory`? there are: memory, vcpus, timeout, nested",
        ),
        ("zebra = 1", "unknown table `zebra`", "help: there are: vm, boot, disk, intercept, control, hook"),
        ("[[hooks]]\nname = 'trace'", "unknown table `hooks`", "did you mean `hook`?"),
        ("[[hook]]\nname = 'trase'", "unknown hook `trase`", "did you mean `trace`? there are: trace"),
        ("[[hook]]\nname = 'trace'\nfil = 'x'", "unknown option `fil` in hook `trace`", "did you mean `file`?"),
    ];
    for (text, words, help) in cases {
        let told = told(&parse(&format!("{TINY}{text}\n"), &[]).expect_err(text));
        assert!(told.contains(words) && told.contains(help), "{text}:\n{told}");
    }
}

#[test]
fn an_option_that_its_hook_refuses_is_pointed_at() {
    let error = parse(&format!("{TINY}[[hook]]\nname = 'trace'\npages = 'many'\n"), &[]).unwrap_err();
    assert_eq!(
        told(&error),
        "x hook `trace`, option `pages`: invalid type: string \"many\", expected u32\n\
         ,-[guest.toml:4:1]\n\
         3 | name = 'trace'\n\
         4 | pages = 'many'\n\
         : ^^^^^^^^^^^^^^\n\
         `----\n"
    );
}

#[test]
fn all_errors_are_told_at_once_in_the_order_of_the_text() {
    let text = "[[hook]]\nname = 'trase'\n[vm]\nvcpus = 99\nmemory = '7K'\n[boot]\nkernel = 'nothere'\n";
    let told = told(&parse(text, &["vm.timeout=x"]).unwrap_err());
    let at = |words: &str| told.find(words).unwrap_or_else(|| panic!("no `{words}` in:\n{told}"));
    let places =
        ["trase", "vm.vcpus = 99", "vm.memory = '7K'", "boot.kernel = /nowhere/nothere: No such", "vm.timeout = x"];
    assert!(places.map(at).is_sorted(), "{told}");
    assert!(told.ends_with("x guest.toml: 5 errors\n"), "{told}");
}

#[test]
fn what_is_not_toml_is_told_together_with_what_is_wrong_elsewhere() {
    let told = told(&parse("[vm]\nmemory = 64M\nvcpus = 2\nvcpus = 3\ntimeout = 30\n", &[]).unwrap_err());
    for words in ["[guest.toml:2:10]", "string values must be quoted", "duplicate key", "vm.timeout = 30", "3 errors"] {
        assert!(told.contains(words), "no `{words}` in:\n{told}");
    }
    let torn = self::told(&parse("[vm\nmemory = '7K'\n", &[]).unwrap_err());
    assert!(torn.contains("unclosed table") && !torn.contains("must be"), "{torn}");
}

#[test]
fn an_empty_file_lacks_a_kernel() {
    let told = told(&parse("", &[]).unwrap_err());
    assert!(told.contains("`kernel` is missing in [boot]") && told.contains("[guest.toml:1:1]"), "{told}");
    assert!(told.contains("write kernel = \"tiny\""), "{told}");
}

#[test]
fn sets_are_laid_over_the_file() {
    let file = "vm.memory = '7K'\n[[hook]]\nname = 'trace'\n";
    let sets = [
        "vm.memory=1G",
        "boot.kernel=tiny",
        "boot.cmdline=scenario=demand pages=3",
        "intercept.stub={ start = 0x1000, end = 0x1010 }",
        "hook.0.pages=1",
        "hook.trace.file='x y'",
    ];
    let config = parse(file, &sets).unwrap();
    assert_eq!((config.vm.memory, config.boot.kernel), (1 << 30, Kernel::Tiny));
    assert_eq!(config.boot.cmdline, "scenario=demand pages=3");
    assert_eq!(config.intercept.stub, Some(Va(0x1000)..Va(0x1010)));
    let options: TraceOptions = config.hooks[0].options.parse().unwrap();
    assert_eq!((options.pages, options.file), (Some(1), Some("x y".into())));
}

#[test]
fn a_bad_set_is_pointed_at() {
    let file = format!("{TINY}[[hook]]\nname = 'trace'\n[[hook]]\nname = 'trace'\n");
    let cases = [
        ("vm.memory=7K", "[--set:1:11]", "vm.memory = 7K: must be a size from 2M to 1T"),
        ("vm.memry=1G", "[--set:1:4]", "did you mean `memory`?"),
        ("vm", "[--set:1:1]", "must be KEY=VALUE, such as vm.memory=1G"),
        ("=1", "[--set:1:1]", "an empty name in the key"),
        ("vm..memory=1G", "[--set:1:4]", "an empty name in the key"),
        ("boot.kernel.x=1", "[--set:1:6]", "kernel is a string, and has no keys"),
        ("boot.cmdline=\"quiet", "[--set:1:19]", "invalid basic string"),
        ("hook.trace.pages=1", "[--set:1:6]", "2 of [[hook]] are named trace; use a number: 0 (trace), 1 (trace)"),
        ("hook.2.pages=1", "[--set:1:6]", "there is no hook.2; there are: 0 (trace), 1 (trace)"),
        ("hook.1=1", "[--set:1:6]", "must go on with a key of hook.1"),
        ("hook.1.pages=many", "[--set:1:8]", "option `pages`: invalid type: string \"many\""),
    ];
    for (set, place, words) in cases {
        let told = told(&parse(&file, &[set]).expect_err(set));
        assert!(told.contains(place) && told.contains(words) && told.contains(&format!("1 | {set}")), "{set}:\n{told}");
    }
}

#[test]
fn files_that_can_not_be_configs_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, bytes: &[u8]| {
        let path = folder.path().join(name);
        fs::write(&path, bytes).unwrap();
        path
    };
    let cases = [
        (folder.path().join("nothere.toml"), "nothere.toml does not exist", "name a TOML file"),
        (folder.path().to_owned(), "is a directory", "name the TOML file in it"),
        (
            file("huge.toml", &vec![b'#'; 2 << 20]),
            "huge.toml is larger than 1024 KiB",
            "a kernel is named inside of it",
        ),
        (file("latin1.toml", b"[vm]\nmemory = '\xe9'\n"), "byte 0xe9 at offset 15 is not UTF-8", "latin1.toml:2:11]"),
    ];
    for (path, words, also) in cases {
        let told = told(&Config::load(&path, &[], TYPES).unwrap_err());
        assert!(told.contains(words) && told.contains(also), "{}:\n{told}", path.display());
    }
}

#[test]
fn disks_are_told_apart_from_files_that_are_none() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, size: usize| fs::write(folder.path().join(name), vec![0; size]).unwrap();
    for (name, size) in
        [("good.img", 1024), ("empty.img", 0), ("small.img", 511), ("torn.img", 1025), ("kept.img", 512)]
    {
        write(name, size);
    }
    let kept = folder.path().join("kept.img");
    let mut permissions = fs::metadata(&kept).unwrap().permissions();
    permissions.set_readonly(true);
    fs::set_permissions(&kept, permissions).unwrap();

    let load = |disks: &str| {
        let path = folder.path().join("guest.toml");
        fs::write(&path, format!("{TINY}{disks}")).unwrap();
        Config::load(&path, &[], TYPES)
    };
    let disks = load("[[disk]]\npath = 'good.img'\n[[disk]]\npath = 'kept.img'\nreadonly = true\n").unwrap().disks;
    let path = |name| folder.path().join(name);
    assert_eq!(
        disks.iter().map(|disk| (disk.path.clone(), disk.readonly)).collect::<Vec<_>>(),
        [(path("good.img"), false), (path("kept.img"), true)]
    );
    let cases = [
        ("nothere.img", "No such file"),
        (".", "is a directory"),
        ("/dev/null", "not a file with a disk's sectors"),
        ("empty.img", "the file has 0 bytes: a disk has at least one sector of 512 bytes"),
        ("small.img", "the file has 511 bytes: a disk has at least one sector"),
        ("torn.img", "the file has 1025 bytes: must be a multiple of the sector size, 512 bytes"),
        ("kept.img", "the file is read-only: give the disk `readonly = true`"),
    ];
    for (name, words) in cases {
        let told = told(&load(&format!("[[disk]]\npath = '{name}'\n")).expect_err(name));
        assert!(told.contains(words) && told.contains("guest.toml:3:8]"), "{name}:\n{told}");
    }
    let told = told(&load(&"[[disk]]\npath = 'good.img'\n".repeat(8)).unwrap_err());
    assert!(told.contains("must be one of at most 7 disks") && told.contains("guest.toml:17:8]"), "{told}");
}

#[test]
fn relative_paths_start_at_the_folder_of_the_file() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("kernel.elf"), "").unwrap();
    let path = folder.path().join("guest.toml");
    fs::write(&path, "boot.kernel = 'kernel.elf'\n").unwrap();
    let config = Config::load(&path, &[], TYPES).unwrap();
    assert_eq!(config.boot.kernel, Kernel::Path(folder.path().join("kernel.elf")));

    let text =
        "[boot]\nkernel = 'kernel.elf'\nprotocol = 'multiboot'\ninitrd = 'kernel.elf'\nmodules = ['kernel.elf a b']\n";
    fs::write(&path, text).unwrap();
    let boot = Config::load(&path, &[], TYPES).unwrap().boot;
    let file = folder.path().join("kernel.elf");
    assert_eq!((boot.protocol, boot.initrd), (ProtocolChoice::Multiboot, Some(file.clone())));
    assert_eq!(boot.modules, [Module { path: file, string: "kernel.elf a b".to_owned() }]);

    fs::write(&path, "boot.kernel = '.'\n").unwrap();
    let told = told(&Config::load(&path, &[], TYPES).unwrap_err());
    assert!(told.contains("is a directory") && told.contains("guest.toml:1:15]"), "{told}");
}

fn map(value: serde_json::Value) -> serde_json::Map<String, serde_json::Value> {
    let serde_json::Value::Object(map) = value else { panic!("not a table") };
    map
}

#[test]
fn a_hook_is_made_again_with_other_options() {
    let values = map(json!({"pages": 7, "budget": "20ms", "on_error": "stop"}));
    let made = HookConfig::from_json("trace".to_owned(), None, values, PathBuf::from("/a")).unwrap();
    let made = made.check_and_create(TYPES).unwrap();
    assert_eq!((made.trust.budget, made.trust.on_error), (Duration::from_millis(20), OnError::Stop));
    let origin = made.origin.unwrap();
    let changes = map(json!({"file": "x", "on_error": null, "timeout": "1s"}));
    let again = origin.changed(changes).unwrap();
    let (budget, timeout) = (Duration::from_millis(20), Duration::from_secs(1));
    assert_eq!(again.trust, Trust { budget, timeout, on_error: OnError::Reinject });
    assert_eq!(serde_json::Value::Object(again.options.values().clone()), json!({"pages": 7, "file": "x"}));
    let refused = origin.changed(map(json!({"budget": 5}))).unwrap_err();
    assert!(refused.to_string().contains("hook.budget = 5: must be a time in quotes"), "{refused}");
}

#[test]
fn an_option_on_the_command_line_is_toml_or_text() {
    for (text, key, value) in [
        ("file=a b.jsonl", "file", json!("a b.jsonl")),
        ("top=3", "top", json!(3)),
        ("start=0x1000", "start", json!(0x1000)),
        ("format=\"json\"", "format", json!("json")),
        ("ranges=[{start = 1}]", "ranges", json!([{"start": 1}])),
        ("empty=", "empty", json!("")),
    ] {
        assert_eq!(parse_option(text).unwrap(), (key.to_owned(), value), "{text}");
    }
    for (text, words) in
        [("top", "top: must be KEY=VALUE"), ("=3", "=3: there is no key"), ("a=[1", ""), ("a=inf", "finite")]
    {
        let refused = parse_option(text).expect_err(text).to_string();
        assert!(refused.contains(words), "{text}: {refused}");
    }
}
