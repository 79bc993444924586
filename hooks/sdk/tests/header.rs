//! Tests that `vector14_hook.h` is up to date with `abi/types.rs`, and that a C compiler lays it out as Rust does.
//!
//! With `UPDATE_HEADER` set, the header is rewritten instead of compared.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod c;

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use vector14_hook::abi;

fn sources() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

/// The header that `abi/types.rs` requires.
fn generate() -> String {
    let parse = |file: &str| syn::parse_file(&std::fs::read_to_string(sources().join(file)).unwrap()).unwrap();
    let registers = parse("guest.rs").items.into_iter().filter(|item| match item {
        syn::Item::Struct(item) => item.ident == "Registers",
        _ => false,
    });
    c::header(registers.chain(parse("abi/types.rs").items))
}

#[test]
fn the_header_is_what_the_rust_definitions_say() {
    let generated = generate();
    if std::env::var_os("UPDATE_HEADER").is_some() {
        std::fs::write(sources().join("../include/vector14_hook.h"), generated).unwrap();
        return;
    }
    let stale = "include/vector14_hook.h is stale: UPDATE_HEADER=1 cargo test -p vector14-hook --test header";
    let lines = generated.lines().zip(abi::HEADER.lines()).enumerate();
    for (number, (expected, found)) in lines {
        assert_eq!(found, expected, "line {}: {stale}", number + 1);
    }
    assert_eq!(abi::HEADER, generated, "{stale}");
}

/// The sizes of all structs, and the offsets of the fields on which the layout of the others depends.
#[test]
fn c_and_cpp_lay_the_structs_out_as_rust_does() {
    let mut program = String::from("#include \"vector14_hook.h\"\n#include <stddef.h>\n");
    let mut same =
        |what: String, value: usize| writeln!(program, "_Static_assert({what} == {value}, \"{what}\");").unwrap();
    macro_rules! structs {
        ($($rust:ident $c:ident { $($field:ident)* })*) => {$(
            same(format!("sizeof(vector14_{})", stringify!($c)), size_of::<abi::$rust>());
            $(same(
                format!("offsetof(vector14_{}, {})", stringify!($c), stringify!($field)),
                std::mem::offset_of!(abi::$rust, $field),
            );)*
        )*};
    }
    structs! {
        Text text { length }
        Sink sink { context }
        Fault fault { address cr3 vcpu error_code cs ss }
        Verdict verdict { error_code address vector has_error_code }
        GuestResult guest_result { value }
        Translation translation { page_size access }
        Mapping mapping { slot entry access dirty }
        TableEntry table_entry { entry level }
        Walk walk { count end translation }
        Code code { count bits bytes }
        SystemRegisters system_registers { cr4 gs_base }
        Guest guest { context }
        GuestCalls guest_calls { read map elapsed explain }
        Options options { folder }
        OptionsError options_error { message }
        OptionDoc option_doc { default_value help }
        Sizes sizes { option_doc }
        Prefix prefix { version sizes }
        Descriptor descriptor { name options option_count check create on_fault on_end destroy }
    }
    same("sizeof(vector14_registers)".to_owned(), size_of::<vector14_hook::Registers>());
    same("VECTOR14_VERSION".to_owned(), usize::try_from(abi::VERSION).unwrap());
    program.push_str("vector14_prefix prefix = VECTOR14_PREFIX; vector14_text text = VECTOR14_TEXT(\"text\");\n");

    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("layout.c");
    std::fs::write(&file, &program).unwrap();
    for language in [&["-x", "c", "-std=c11"][..], &["-x", "c++", "-std=c++17", "-D_Static_assert=static_assert"]] {
        let mut cc = Command::new("cc");
        cc.args(["-Wall", "-Wextra", "-Werror", "-pedantic", "-fsyntax-only"]).args(language);
        cc.arg("-I").arg(sources().join("../include")).arg(&file);
        let output = cc.output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        // A machine may have a C compiler but no C++ compiler.
        if language.contains(&"c++") && said.contains("cc1plus") {
            continue;
        }
        assert!(output.status.success(), "{said}");
    }
}
