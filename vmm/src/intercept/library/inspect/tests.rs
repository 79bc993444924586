//! Files that are not hook libraries, and a hook library that is truncated at every length. None of them is loaded.

use std::path::Path;
use std::process::Command;

use elf::abi::{EM_AARCH64, EM_X86_64};
use vector14_hook::abi::{HEADER, Mismatch};

use super::*;

const HOOK: &str = r#"
#include "vector14_hook.h"
static vector14_status on_fault(void *hook, const vector14_fault *fault, vector14_guest *guest, vector14_verdict *verdict,
                                vector14_sink *text) {
    return VECTOR14_STATUS_OK;
}
const vector14_descriptor vector14_hook = {
    .prefix = VECTOR14_PREFIX,
    .name = VECTOR14_TEXT("c"),
    .summary = VECTOR14_TEXT("does nothing"),
    .on_fault = on_fault,
};
"#;

/// What the C compiler makes of `source`.
fn compile(source: &str, flags: &[&str]) -> Vec<u8> {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    std::fs::write(at("vector14_hook.h"), HEADER).unwrap();
    std::fs::write(at("hook.c"), source).unwrap();
    let output = Command::new("cc").args(flags).arg("-o").args([at("out"), at("hook.c")]).output().expect("cc");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    std::fs::read(at("out")).unwrap()
}

fn library(source: &str) -> Vec<u8> {
    compile(source, &["-shared", "-fPIC"])
}

fn refused(image: &[u8]) -> Reason {
    check(image).expect_err("the file must be refused")
}

#[test]
fn a_library_of_our_version_passes() {
    check(&library(HOOK)).unwrap();
}

#[test]
fn files_that_are_not_libraries_are_named() {
    let kind = |image: &[u8]| match refused(image) {
        Reason::NotLibrary(kind) => kind,
        other => panic!("{other}"),
    };
    assert_eq!(kind(b""), "empty");
    assert_eq!(kind(b"#!/bin/sh\n"), "a file that begins with 23 21 2f 62");
    assert!(kind(b"!<arch>\n").starts_with("a static library"));
    assert_eq!(kind(&compile("int main(void) { return 0; }", &[])), "a program");
    assert_eq!(kind(&compile("int main(void) { return 0; }", &["-static"])), "a program");
    assert_eq!(kind(&compile(HOOK, &["-c"])), "an object file that was not linked");
    assert_eq!(kind(&std::fs::read(Path::new("/proc/self/exe")).unwrap()), "a program");
}

#[test]
fn other_machines_versions_and_layouts_are_told() {
    let good = library(HOOK);
    let with = |offset: usize, bytes: &[u8]| {
        let mut image = good.clone();
        image[offset..offset + bytes.len()].copy_from_slice(bytes);
        image
    };
    // e_ident[EI_CLASS] and [EI_DATA], e_machine (ELF-64 Object File Format, 1.4).
    assert!(matches!(refused(&with(4, &[1])), Reason::Architecture(name) if name == "a 32-bit CPU"));
    assert!(matches!(refused(&with(5, &[2])), Reason::Architecture(name) if name == "a big-endian CPU"));
    assert_eq!(good[18..20], EM_X86_64.to_le_bytes());
    assert!(
        matches!(refused(&with(18, &EM_AARCH64.to_le_bytes())), Reason::Architecture(name) if name.contains("AARCH64") || name.contains("ARM"))
    );

    let magic = good.windows(8).position(|bytes| bytes == Prefix::OURS.magic.to_le_bytes()).unwrap();
    assert!(matches!(refused(&with(magic, b"V")), Reason::Descriptor(Mismatch::Magic(_))));
    assert!(matches!(refused(&with(magic + 8, &[9])), Reason::Descriptor(Mismatch::Version(9))));
    let size = Mismatch::Size { name: "text", found: 17, expected: 16 };
    assert!(matches!(refused(&with(magic + 16, &[17])), Reason::Descriptor(found) if found == size));
}

#[test]
fn a_library_of_another_kind_lacks_the_symbol() {
    assert!(matches!(refused(&library("int answer = 42;")), Reason::NoSymbol));
    assert!(matches!(refused(&library("extern char vector14_hook; char *p = &vector14_hook;")), Reason::NoSymbol));
    assert!(matches!(refused(&library("static int vector14_hook = 1; int *p = &vector14_hook;")), Reason::NoSymbol));
    assert!(matches!(refused(&library("char vector14_hook = 1;")), Reason::Descriptor(_) | Reason::Damaged(_)));
    let zeroes = "char vector14_hook[4096];";
    assert!(matches!(refused(&library(zeroes)), Reason::Damaged(why) if why.contains("outside")));
}

#[test]
fn a_file_that_is_cut_short_anywhere_is_refused() {
    let good = library(HOOK);
    for length in 0..good.len() {
        refused(&good[..length]);
    }
}

#[test]
fn changed_bytes_are_no_reason_to_panic() {
    let good = library(HOOK);
    // A small pseudorandom generator with a fixed seed.
    let mut state = 0x1234_5678_9abc_def1_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        usize::try_from(state >> 1).unwrap()
    };
    for round in 0..20_000 {
        let mut image = good.clone();
        for _ in 0..1 + round % 4 {
            // Half of the changes hit the headers, at both ends of the file.
            let span = [64 + 56 * 11, image.len(), 1024, image.len()][next() % 4];
            let at = if next() % 4 == 0 { image.len() - 1 - next() % span } else { next() % span };
            image[at] = next().to_le_bytes()[0];
        }
        let _ = check(&image);
    }
}
