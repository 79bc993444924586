//! Shared libraries with hooks: those of `tests/hooks`, and others that a test compiles.

use std::path::{Path, PathBuf};
use std::process::Command;

use vector14_hook::abi;

/// Where the lab has put the libraries; it has no compilers.
fn prebuilt() -> Option<PathBuf> {
    std::env::var_os("VECTOR14_TEST_LIBRARIES").map(PathBuf::from)
}

/// Whether libraries can be compiled here.
pub fn can_compile() -> bool {
    prebuilt().is_none()
}

/// `tests/hooks/src/lib.rs`, as cargo has built it beside the tests.
pub fn in_rust() -> PathBuf {
    let folder = prebuilt().unwrap_or_else(|| std::env::current_exe().unwrap().parent().unwrap().to_owned());
    folder.join("libvector14_test_hook.so")
}

/// `tests/hooks/subject.c`.
pub fn in_c() -> Vec<u8> {
    match prebuilt() {
        Some(folder) => std::fs::read(folder.join("libsubject.so")).unwrap(),
        None => compile(SUBJECT, &[]),
    }
}

/// The source of a hook in C.
pub const SUBJECT: &str = include_str!("../hooks/subject.c");

/// What the C compiler makes of a source, with further flags.
pub fn compile(source: &str, flags: &[&str]) -> Vec<u8> {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    std::fs::write(at("vector14_hook.h"), abi::HEADER).unwrap();
    std::fs::write(at("hook.c"), source).unwrap();
    let mut cc = Command::new("cc");
    cc.args(["-D_GNU_SOURCE", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC"]).args(flags);
    let output = cc.arg("-o").args([at("hook.so"), at("hook.c")]).output().expect("cc can be run: install gcc");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    std::fs::read(at("hook.so")).unwrap()
}

/// A `[[hook]]` table for a library.
pub fn table(library: &Path, options: &str) -> String {
    format!("[[hook]]\npath = \"{}\"\n{options}\n", library.display())
}
