//! `vector14 hook`: the README's steps lead from an empty folder to a hook that runs.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command as Process;

use libtest_mimic::Trial;

use crate::harness::{Command, Finished, kvm_test, libraries, test};
use crate::loaded_watch::terminate;

pub fn tests() -> Vec<Trial> {
    let mut tests = vec![test("hook-project::header", header)];
    // A host without compilers does not have the SDK's sources either.
    if libraries::can_compile() {
        tests.push(test("hook-project::refused", refused));
        tests.push(kvm_test("hook-project::newcomer", newcomer));
    }
    tests
}

fn header() {
    let finished = Command::new(&["hook", "header"]).finish();
    assert_eq!((finished.status(), finished.stdout().as_str()), (Some(0), vector14_hook::abi::HEADER));
}

fn refused() {
    let new = |name: &str| Command::new(&["hook", "new", name]);
    new("2nd").finish().failed_with(2, &["a hook can't be called `2nd`: it must begin with a letter", "mine"]);
    new("fn").finish().failed_with(2, &["`fn`"]);
    new("a/b c").finish().failed_with(2, &["`b c`", "' '"]);
    new("mine").file("mine", b"").finish().failed_with(2, &["mine exists already"]);
    let elsewhere = new("mine").argument("--sdk").argument("nowhere");
    let folder = elsewhere.path("mine");
    elsewhere.finish().failed_with(2, &["no SDK for hooks in nowhere", "--sdk PATH"]);
    assert!(!folder.exists());
}

/// The edit that the README asks for: this replaces the last line of `on_fault`.
const EDIT: &str = "        let page = guest.allocate_page()?;
        guest.write_physical(page, &[0x14; 4096])?;
        guest.map(fault.address.page(), page, vector14_hook::Access::USER)?;
        Ok(Verdict::Resolve)
";

fn newcomer() {
    assert!(include_str!("../README.md").contains(EDIT), "the README asks for a different edit");
    let run = Command::new(&["run", "--watch", "mine/mine.toml", "--set", "boot.cmdline=scenario=drip pages=5000"]);
    let run = run.argument("--set").argument("vm.timeout=300s");
    let project = run.path("mine");
    let new = Command::new(&["hook", "new"]).argument(project.to_str().unwrap()).finish();
    assert_eq!(new.status(), Some(0), "{new}");
    assert!(new.stdout().contains("cargo build\n"), "{new}");
    // All projects share a target folder, so that their dependencies are built once.
    let built = Path::new(env!("CARGO_TARGET_TMPDIR")).join("hook-project");
    fs::create_dir_all(&built).unwrap();
    std::os::unix::fs::symlink(&built, project.join("target")).unwrap();
    cargo(&project, "build");
    cargo(&project, "test");

    let source = project.join("src/lib.rs");
    let edit = |from: &str, to: &str| {
        let text = fs::read_to_string(&source).unwrap();
        assert!(text.contains(from), "no `{from}` in\n{text}");
        fs::write(&source, text.replacen(from, to, 1)).unwrap();
        cargo(&project, "build");
    };
    let finished: Finished = run.finish_after_each(vec![
        (
            "page 1: from my own handler",
            Box::new(|_| {
                edit("        Ok(Verdict::Pass)\n", EDIT);
            }),
        ),
        ("from outside, 0x1414141414141414", Box::new(|_| edit("0x14;", "0x15;"))),
        ("from outside, 0x1515151515151515", Box::new(terminate)),
    ]);
    assert_eq!(finished.status(), Some(128 + libc::SIGTERM), "{finished}");
    assert_eq!(finished.stderr().matches("hook `mine` was reloaded").count(), 2, "{finished}");
}

/// Runs cargo offline in the project.
fn cargo(project: &PathBuf, command: &str) {
    let mut cargo = Process::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(project).args([command, "--offline", "--quiet"]).env_remove("CARGO_TARGET_DIR");
    let output = cargo.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "cargo {command} in {} (offline: run `cargo fetch` if a crate is missing):\n{said}",
        project.display()
    );
}
