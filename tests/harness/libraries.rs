//! Hooks in shared libraries: those in `tests/hooks`, and those that a test compiles.

use std::path::{Path, PathBuf};
use std::process::Command;

use vector14_hook::abi;

/// The folder of prebuilt libraries, which only the lab has: it has no compilers.
fn prebuilt() -> Option<PathBuf> {
    std::env::var_os("VECTOR14_TEST_LIBRARIES").map(PathBuf::from)
}

/// Whether libraries can be compiled here.
pub fn can_compile() -> bool {
    prebuilt().is_none()
}

/// The path of the library that cargo built from `tests/hooks/src/lib.rs`.
pub fn in_rust() -> PathBuf {
    let folder = prebuilt().unwrap_or_else(|| std::env::current_exe().unwrap().parent().unwrap().to_owned());
    folder.join("libvector14_test_hook.so")
}

/// The contents of the library made from `tests/hooks/subject.c`.
pub fn in_c() -> Vec<u8> {
    match prebuilt() {
        Some(folder) => std::fs::read(folder.join("libsubject.so")).unwrap(),
        None => compile(SUBJECT, &[]),
    }
}

/// The source of a hook in C.
pub const SUBJECT: &str = include_str!("../hooks/subject.c");

/// Compiles C source to a shared library, with further compiler flags.
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

/// A `[[hook]]` table that loads a library.
pub fn table(library: &Path, options: &str) -> String {
    format!("[[hook]]\npath = \"{}\"\n{options}\n", library.display())
}
