//! Files that are not usable hook libraries: each is refused with an error that names it and says what to do.

use libtest_mimic::Trial;

use crate::harness::command::binary;
use crate::harness::libraries::{self, SUBJECT, compile, table};
use crate::harness::{Command, test};

pub fn tests() -> Vec<Trial> {
    if !libraries::can_compile() {
        return Vec::new();
    }
    vec![
        test("loaded-refused::files", files),
        test("loaded-refused::other_kinds_and_versions", other_kinds_and_versions),
        test("loaded-refused::what_the_linker_refuses", what_the_linker_refuses),
        test("loaded-refused::cut_short", cut_short),
        test("loaded-refused::lies", lies),
        test("loaded-refused::damaged", damaged),
        test("loaded-refused::constructors_that_do_not_return", constructors),
    ]
}

/// Checks that `vector14 check` refuses a library with this content, with an error that contains `words`.
#[track_caller]
fn refused(content: &[u8], words: &[&str]) {
    let config = format!("boot.kernel = \"tiny\"\n{}", table("libmine.so".as_ref(), ""));
    let command = Command::new(&["check", "config.toml"]).file("config.toml", config.as_bytes());
    let finished = command.file("libmine.so", content).finish().failed_with(2, words);
    finished.failed_with(2, &["config.toml:3:8", "hook.path = libmine.so"]);
}

fn files() {
    refused(b"", &["empty, not a shared library", "name the library that was built"]);
    refused(b"[boot]\n", &["begins with 5b 62 6f 6f, not a shared library", "crate-type = [\"cdylib\"]"]);
    refused(b"!<arch>\nlib.o/", &["a static library", "crate-type = [\"cdylib\"]"]);
    refused(&std::fs::read(binary()).unwrap(), &["a program, not a shared library"]);
    for (path, words) in
        [("nowhere.so", "No such file"), (".", "not a regular file"), ("/dev/zero", "not a regular file")]
    {
        let config = format!("boot.kernel = \"tiny\"\n{}", table(path.as_ref(), ""));
        let command = Command::new(&["check", "config.toml"]).file("config.toml", config.as_bytes());
        command.finish().failed_with(2, &["config.toml:3:8", path, words]);
    }
}

fn other_kinds_and_versions() {
    refused(&compile("int answer = 42;", &[]), &["exports no symbol `vector14_hook`", "vector14_hook::export!"]);
    let version = SUBJECT.replace("VECTOR14_PREFIX", "{ VECTOR14_MAGIC, 7, VECTOR14_SIZES }");
    let rebuild = "rebuild it against this vector14";
    refused(&compile(&version, &[]), &["made for version 7 of the hook interface", "has version 2", rebuild]);
    let magic = SUBJECT.replace("VECTOR14_PREFIX", "{ 14, VECTOR14_VERSION, VECTOR14_SIZES }");
    refused(&compile(&magic, &[]), &["not a descriptor: it begins with 0xe", rebuild]);
    let smaller = "{ VECTOR14_MAGIC, VECTOR14_VERSION, { sizeof(vector14_descriptor), 8 } }";
    let size = "its `vector14_text` has 8 bytes, ours has 16";
    refused(
        &compile(&SUBJECT.replace("VECTOR14_PREFIX", smaller), &["-Wno-missing-field-initializers"]),
        &[size, rebuild],
    );
    let mut other = compile(SUBJECT, &[]);
    // e_machine: AArch64.
    other[18] = 183;
    refused(&other, &["built for", "this vector14 runs on x86-64", "rebuild it for x86-64 Linux"]);
}

fn what_the_linker_refuses() {
    let needs = format!("int nowhere(void);\n{}", SUBJECT.replacen("(void)guest;", "(void)guest; nowhere();", 1));
    let words = ["can't be loaded: it: undefined symbol: nowhere", "if a symbol is missing"];
    refused(&compile(&needs, &[]), &words);
    let lost = compile(SUBJECT, &["-Wl,--no-as-needed", "-Wl,-soname,libmine.so"]);
    // The name of the C library, where the linker reads it.
    let at = lost.windows(9).position(|bytes| bytes == b"libc.so.6").unwrap();
    let mut lost = lost;
    lost[at..at + 9].copy_from_slice(b"libz9.so.");
    refused(&lost, &["can't be loaded: libz9.so.", "cannot open shared object file", "LD_LIBRARY_PATH"]);
}

/// A library that is truncated at the end of any of its parts, and at many places between, is refused.
fn cut_short() {
    let good = compile(SUBJECT, &["-g"]);
    for length in [1, 5, 17, 63, 64, 200, 4095, 4096, 8192, good.len() / 2, good.len() - 64, good.len() - 1] {
        refused(&good[..length], &["hook.path = libmine.so"]);
    }
}

/// A library whose description of itself is wrong is refused.
fn lies() {
    let text = SUBJECT.replace("VECTOR14_TEXT(\"subject-c\")", "{ \"\\xff\", 1 }");
    refused(&compile(&text, &[]), &["the name in `vector14_hook` is not UTF-8 text", "fix and rebuild it"]);
    let none =
        SUBJECT.replace(".on_fault = on_fault,", "").replace("vector14_hook = {", "vector14_hook = { .on_fault = 0,");
    refused(&compile(&none, &["-Wno-unused-function"]), &["`vector14_hook` has no `on_fault`"]);
}

/// Random bytes are changed in what the dynamic linker reads: headers, symbols, relocations, the dynamic table.
/// Whatever that makes of the library, it is loaded or refused, and vector14 goes on.
fn damaged() {
    const MUTANTS: u64 = 600;
    let good = compile(SUBJECT, &[]);
    let config = format!("boot.kernel = \"tiny\"\n{}", table("libmine.so".as_ref(), ""));
    let code = section_offset(&good, ".init")..section_offset(&good, ".init_array");
    let read: Vec<_> = (0..good.len()).filter(|at| !code.contains(at)).collect();
    let (mut refused, mut ended) = (0, 0);
    for seed in 0..MUTANTS {
        let mut random = seed + 1;
        let mut next = |below: usize| {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            usize::try_from(random >> 33).unwrap() % below
        };
        let mut mutant = good.clone();
        for _ in 0..=next(8) {
            mutant[read[next(read.len())]] = u8::try_from(next(256)).unwrap();
        }
        let command = Command::new(&["check", "config.toml"]).file("config.toml", config.as_bytes());
        let finished = command.file("libmine.so", &mutant).finish();
        assert!(matches!(finished.status(), Some(0 | 2)), "mutant {seed}: {finished}");
        refused += u64::from(finished.status() == Some(2));
        ended += u64::from(finished.stderr().contains("ends the process that loads it: SIG"));
    }
    assert!(refused < MUTANTS, "some mutants can be loaded");
    assert!(ended > 0, "some mutants crash the dynamic linker");
}

fn section_offset(image: &[u8], name: &str) -> usize {
    let file = elf::ElfBytes::<elf::endian::AnyEndian>::minimal_parse(image).unwrap();
    let section = file.section_header_by_name(name).unwrap().unwrap();
    usize::try_from(section.sh_offset).unwrap()
}

/// A library whose constructor or destructor would end vector14, or make it wait forever, is refused.
fn constructors() {
    let with = |body: &str| {
        format!("{SUBJECT}\n#include <stdlib.h>\n__attribute__((constructor)) static void begin(void) {{ {body} }}\n")
    };
    refused(&compile(&with("exit(3);"), &[]), &["ends the process that loads it: exit status: 3", "build it again"]);
    refused(&compile(&with("abort();"), &[]), &["ends the process that loads it: SIGABRT"]);
    refused(&compile(&with("for (volatile int go = 1; go;) {}"), &[]), &["did not load within 10s"]);
    let end = "\n#include <stdlib.h>\n__attribute__((destructor)) static void end(void) { abort(); }\n";
    refused(&compile(&[SUBJECT, end].concat(), &[]), &["ends the process that loads it: SIGABRT"]);
}
