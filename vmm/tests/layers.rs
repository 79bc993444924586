//! The layers that `vmm/src/lib.rs` draws, and files that need each other: what each file imports is read from the sources.

#![expect(clippy::unwrap_used, reason = "a file that cannot be read fails the test")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// The layers of vmm/src, from the top. A file may import from its own layer and from those below it.
const LAYERS: [&str; 5] = ["commands", "vm", "intercept", "machine", "sys"];

/// Packages whose files must not need each other in a circle, relative to this package.
const PACKAGES: [&str; 4] = ["src", "../hooks/sdk/src", "../hooks/shipped/src", "../guest/tiny/src"];

/// A module's path from the root of its crate.
type Module = Vec<String>;

/// The modules of one package that are files, and their texts without tests and comments.
struct Package(BTreeMap<Module, String>);

impl Package {
    fn read(source: &Path) -> Self {
        let mut files = Vec::new();
        list(source, &mut files);
        let code = |path: &PathBuf| without_tests_and_comments(&fs::read_to_string(path).unwrap());
        Self(files.iter().filter_map(|path| Some((module(path.strip_prefix(source).unwrap())?, code(path)))).collect())
    }

    /// The files that `module` imports from.
    fn imports(&self, module: &Module) -> BTreeSet<Module> {
        let needed = Use::all(&self.0[module]).into_iter().filter(|import| !import.is_re_export);
        let files = needed.filter_map(|import| self.file(module, &import.path));
        files.filter(|file| file != module).collect()
    }

    /// The file that defines what `path` means in `module`. Re-exports are followed to where the item comes from.
    fn file(&self, module: &Module, path: &[String]) -> Option<Module> {
        let absolute = self.absolute(module, path)?;
        let known = (0..=absolute.len()).rev().map(|length| absolute[..length].to_vec());
        let file = known.into_iter().find(|prefix| self.0.contains_key(prefix))?;
        let Some(item) = absolute.get(file.len()) else { return Some(file) };
        let re_exported = Use::all(&self.0[&file]).into_iter().filter(|import| import.is_re_export);
        let origin =
            re_exported.filter(|import| import.path.last() == Some(item) && import.path != path).find_map(|import| {
                let target = self.absolute(&file, &import.path)?;
                (target != absolute).then(|| self.file(&file, &import.path)).flatten()
            });
        Some(origin.unwrap_or(file))
    }

    /// `path` from the root of the crate; `None` if it leads into another crate.
    fn absolute(&self, module: &Module, path: &[String]) -> Option<Module> {
        let mut base = module.clone();
        let mut rest = path;
        match rest.first()?.as_str() {
            "crate" => (base, rest) = (Module::new(), &rest[1..]),
            "self" => rest = &rest[1..],
            "super" => {}
            child => {
                base.push(child.to_owned());
                return self.0.contains_key(&base).then(|| [module.as_slice(), path].concat());
            }
        }
        while let Some(("super", after)) = rest.split_first().map(|(first, after)| (first.as_str(), after)) {
            base.pop()?;
            rest = after;
        }
        base.extend_from_slice(rest);
        Some(base)
    }
}

/// One path that a file imports or names.
struct Use {
    path: Vec<String>,
    is_re_export: bool,
}

impl Use {
    fn all(code: &str) -> Vec<Self> {
        let mut found = Vec::new();
        let mut rest = code;
        while let Some((before, is_use, after)) = next_path(rest) {
            let (paths, end) = tree(after);
            let head = before.rsplit(['\n', ';']).next().unwrap_or_default().trim_start();
            let is_re_export = is_use && head.starts_with("pub");
            found.extend(paths.into_iter().map(|path| Self { path, is_re_export }));
            rest = &after[end.max(1)..];
        }
        found
    }
}

/// What comes before the next path, whether a `use` leads to it, and the text from the path on.
fn next_path(code: &str) -> Option<(&str, bool, &str)> {
    let mut at = 0;
    while at < code.len() {
        let word = code[at..].find(|next: char| next.is_alphabetic() || next == '_')? + at;
        let end =
            code[word..].find(|next: char| !next.is_alphanumeric() && next != '_').map_or(code.len(), |end| word + end);
        match &code[word..end] {
            "use" => {
                let start = code[end..].find(|next: char| !next.is_whitespace()).map_or(code.len(), |skip| end + skip);
                return Some((&code[..word], true, &code[start..]));
            }
            // `pub(in crate::a)` names who may see an item.
            "crate" | "super" | "self" if code[end..].starts_with("::") && !code[..word].ends_with("(in ") => {
                return Some((&code[..word], false, &code[word..]));
            }
            _ => at = end,
        }
    }
    None
}

/// The paths of a `use` tree, and the length of its text.
fn tree(code: &str) -> (Vec<Vec<String>>, usize) {
    let mut prefix = Vec::new();
    let mut at = 0;
    loop {
        let rest = &code[at..];
        let space = rest.len() - rest.trim_start().len();
        at += space;
        let rest = &code[at..];
        if let Some(group) = rest.strip_prefix('{') {
            let mut paths = Vec::new();
            let mut inner = 0;
            while !group[inner..].trim_start().starts_with('}') && inner < group.len() {
                let (found, length) = tree(&group[inner..]);
                paths.extend(found.into_iter().map(|path| [prefix.as_slice(), &path].concat()));
                inner += length;
                let comma = group[inner..].find([',', '}']).unwrap_or(group.len() - inner);
                inner += comma + usize::from(group[inner + comma..].starts_with(','));
            }
            let close = group[inner..].find('}').map_or(group.len(), |close| inner + close + 1);
            return (paths, at + 1 + close);
        }
        let length =
            rest.find(|next: char| !next.is_alphanumeric() && next != '_' && next != '*').unwrap_or(rest.len());
        if length > 0 {
            prefix.push(rest[..length].to_owned());
        }
        at += length;
        match code[at..].strip_prefix("::") {
            Some(_) if length > 0 => at += 2,
            _ => {
                // `self` in a group is the module before it.
                if prefix.len() > 1 || prefix.first().is_some_and(|first| first != "self") {
                    prefix.retain(|segment| segment != "*");
                }
                return (vec![prefix], at);
            }
        }
    }
}

fn list(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap().flatten() {
        let path = entry.path();
        if path.is_dir() && entry.file_name() != "tests" {
            list(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
}

/// The module that a file is; `None` for a file of tests, and for the command, which is a crate of its own.
fn module(path: &Path) -> Option<Module> {
    let mut module: Module = path.with_extension("").iter().map(|part| part.to_string_lossy().into_owned()).collect();
    match module.last()?.as_str() {
        "mod" | "lib" | "main" => module.pop().map(drop)?,
        "tests" => return None,
        _ => {}
    }
    (module.first().is_none_or(|first| first != "cli")).then_some(module)
}

fn without_tests_and_comments(text: &str) -> String {
    let code = text.split("\nmod tests {").next().unwrap_or_default();
    let lines = code.lines().map(|line| line.split("//").next().unwrap_or_default());
    lines.map(|line| format!("{line}\n")).collect()
}

fn name(module: &Module) -> String {
    module.join("/")
}

/// Imports that go up, as `from -> to`.
fn upward(package: &Package) -> Vec<String> {
    let layer = |module: &Module| LAYERS.iter().position(|layer| module.first().is_some_and(|first| first == layer));
    let imports = package.0.keys().flat_map(|from| package.imports(from).into_iter().map(move |to| (from, to)));
    let up = imports.filter(|(from, to)| layer(from).zip(layer(to)).is_some_and(|(from, to)| to < from));
    up.map(|(from, to)| format!("{} -> {}", name(from), name(&to))).collect()
}

/// Files that need each other, each circle as the set of its files.
fn circles(package: &Package) -> Vec<String> {
    let imports: BTreeMap<_, _> = package.0.keys().map(|module| (module, package.imports(module))).collect();
    let reach = |from: &Module| {
        let mut seen = BTreeSet::new();
        let mut next: Vec<Module> = imports[from].iter().cloned().collect();
        while let Some(module) = next.pop() {
            if seen.insert(module.clone()) {
                next.extend(imports[&module].iter().cloned());
            }
        }
        seen
    };
    let reached: BTreeMap<_, _> = package.0.keys().map(|module| (module, reach(module))).collect();
    let circle = |module: &Module| {
        let mutual = reached[module].iter().filter(|other| reached[*other].contains(module));
        mutual.map(name).collect::<Vec<_>>().join(", ")
    };
    let found: BTreeSet<_> = package.0.keys().map(circle).filter(|circle| !circle.is_empty()).collect();
    found.into_iter().collect()
}

fn package(source: &str) -> Package {
    Package::read(&Path::new(env!("CARGO_MANIFEST_DIR")).join(source))
}

fn of(files: &[(&str, &str)]) -> Package {
    let file = |(path, code): &(&str, &str)| (module(Path::new(path)).unwrap(), without_tests_and_comments(code));
    Package(files.iter().map(file).collect())
}

#[test]
fn no_import_goes_up() {
    assert_eq!(upward(&package("src")), [""; 0], "a layer uses only those below it: {LAYERS:?}");
}

#[test]
fn no_files_need_each_other() {
    for source in PACKAGES {
        assert_eq!(circles(&package(source)), [""; 0], "in {source}");
    }
}

#[test]
fn planted_imports_are_found() {
    let files = [
        ("lib.rs", "mod vm; mod machine;"),
        ("vm/mod.rs", "pub(crate) mod run;\npub(crate) use self::run::Shared;\nuse crate::machine::Memory;"),
        ("vm/run.rs", "pub(crate) struct Shared;"),
        ("machine/mod.rs", "mod memory;\npub(crate) use self::memory::{Memory, Owner};"),
        (
            "machine/memory.rs",
            "use crate::{machine::Owner, vm::{Shared, other}}; // crate::commands\npub(in crate::vm) fn f() {}",
        ),
    ];
    assert_eq!(upward(&of(&files)), ["machine/memory -> vm", "machine/memory -> vm/run"]);
    let files = [
        ("lib.rs", "mod a;"),
        ("a/mod.rs", "mod b;\nmod c;\nfn f() { self::b::g() }"),
        ("a/b.rs", "fn g() { super::c::h() }"),
        ("a/c.rs", "use super::b;\n#[cfg(test)]\nmod tests {\nuse crate::a;}"),
    ];
    assert_eq!(circles(&of(&files)), ["a/b, a/c"]);
}
