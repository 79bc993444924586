//! Translates Rust definitions to C, as far as `abi/types.rs` needs.

use std::fmt::Write;

use syn::{
    Attribute, Expr, Fields, GenericArgument, ImplItem, Item, ItemConst, ItemImpl, ItemStruct, Lit, Meta, NamedArg,
    PathArguments, PointerMutability, ReturnType, Type, TypeFnPtr, TypePtr,
};

const HEAD: &str = "\
/* The interface between vector14 and hooks that it loads from shared libraries.
 *
 * Generated from hooks/sdk/src/abi/types.rs of vector14; `vector14 hook header` prints it.
 * Build a hook with `cc -shared -fPIC -o libmine.so mine.c`, and name it in a config: [[hook]] path = \"libmine.so\"
 */
#ifndef VECTOR14_HOOK_H
#define VECTOR14_HOOK_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern \"C\" {
#endif
";

const TAIL: &str = "
/* A text from a literal. */
#define VECTOR14_TEXT(literal) { literal, sizeof(literal) - 1 }

/* What a descriptor begins with. */
#define VECTOR14_PREFIX { VECTOR14_MAGIC, VECTOR14_VERSION, VECTOR14_SIZES }

/* What a library exports. */
#if defined(__GNUC__)
__attribute__((visibility(\"default\")))
#endif
extern const vector14_descriptor vector14_hook;

#ifdef __cplusplus
}
#endif

#endif
";

/// The header for these definitions, in their order.
pub(crate) fn header(items: impl Iterator<Item = Item>) -> String {
    let (mut names, mut text) = (String::new(), String::new());
    for item in items {
        match item {
            Item::Const(item) => constant(&mut text, &item),
            Item::Struct(item) => structure(&mut names, &mut text, &item),
            Item::Impl(item) => values(&mut text, &item),
            Item::Use(_) => {}
            _ => panic!("abi/types.rs holds constants, structs and their values, and nothing else"),
        }
    }
    format!("{HEAD}\n{names}{text}{TAIL}")
}

fn constant(text: &mut String, item: &ItemConst) {
    docs(text, "", &item.attrs);
    let name = item.ident.to_string();
    let suffix = if c_type(&item.ty) == "uint64_t" { "u" } else { "" };
    writeln!(text, "#define VECTOR14_{name} {}{suffix}", number(&item.expr)).unwrap();
}

/// A literal in C.
fn number(expr: &Expr) -> String {
    let Expr::Lit(literal) = expr else { panic!("a constant is a literal") };
    let Lit::Int(literal) = &literal.lit else { panic!("a constant is an integer") };
    literal.to_string().replace('_', "")
}

/// A struct; its name is declared before all structs, so that each can point to any other.
fn structure(names: &mut String, text: &mut String, item: &ItemStruct) {
    let name = c_name(&item.ident.to_string());
    docs(text, "", &item.attrs);
    match &item.fields {
        Fields::Unnamed(fields) => {
            writeln!(text, "typedef {} {name};", c_type(&fields.unnamed[0].ty)).unwrap();
        }
        Fields::Named(fields) => {
            writeln!(names, "typedef struct {name} {name};").unwrap();
            writeln!(text, "struct {name} {{").unwrap();
            for field in &fields.named {
                docs(text, "    ", &field.attrs);
                let ident = field.ident.as_ref().unwrap().to_string();
                writeln!(text, "    {};", declaration(&field.ty, &ident)).unwrap();
            }
            text.push_str("};\n");
            if item.ident == "Sizes" {
                let names = fields.named.iter().map(|field| field.ident.as_ref().unwrap());
                let sizes: Vec<_> = names.map(|name| format!("sizeof(vector14_{name})")).collect();
                text.push_str("\n/* The sizes of all structs, as this header has them. */\n");
                writeln!(text, "#define VECTOR14_SIZES {{ \\\n    {} }}", sizes.join(", \\\n    ")).unwrap();
            }
        }
        Fields::Unit => panic!("{name} is empty"),
    }
}

/// The constants of a type.
fn values(text: &mut String, item: &ItemImpl) {
    let Type::Path(path) = &*item.self_ty else { panic!("values belong to a type") };
    let prefix = c_name(&path.path.segments[0].ident.to_string()).to_uppercase();
    let prefix = prefix.trim_end_matches("_KIND");
    for item in &item.items {
        let ImplItem::Const(item) = item else { panic!("a type has values and nothing else") };
        let Expr::Call(call) = &item.expr else { panic!("a value is `Self(0)`") };
        let comment = doc_lines(&item.attrs).join(" ");
        writeln!(text, "#define {prefix}_{} {} /* {comment} */", item.ident, number(&call.args[0])).unwrap();
    }
}

fn docs(text: &mut String, indent: &str, attributes: &[Attribute]) {
    let lines = doc_lines(attributes);
    if indent.is_empty() {
        text.push('\n');
    }
    if !lines.is_empty() {
        writeln!(text, "{indent}/* {} */", lines.join(&format!("\n{indent} * "))).unwrap();
    }
}

fn doc_lines(attributes: &[Attribute]) -> Vec<String> {
    let line = |attribute: &Attribute| {
        let Meta::NameValue(meta) = &attribute.meta else { return None };
        let Expr::Lit(literal) = &meta.value else { return None };
        match &literal.lit {
            Lit::Str(line) if meta.path.is_ident("doc") => Some(line.value().trim().to_owned()),
            _ => None,
        }
    };
    attributes.iter().filter_map(line).collect()
}

/// `GuestCalls` -> `vector14_guest_calls`.
fn c_name(rust: &str) -> String {
    let mut name = String::from("vector14");
    for letter in rust.chars() {
        if letter.is_uppercase() {
            name.push('_');
        }
        name.extend(letter.to_lowercase());
    }
    name
}

/// A field or a parameter.
fn declaration(ty: &Type, name: &str) -> String {
    match ty {
        Type::FnPtr(function) => pointer_to_function(function, name),
        Type::Array(array) => format!("{} {name}[{}]", c_type(&array.elem), number(&array.len)),
        Type::Path(path) if path.path.segments[0].ident == "Option" => {
            let PathArguments::AngleBracketed(arguments) = &path.path.segments[0].arguments else { panic!("{name}") };
            let GenericArgument::Type(inner) = &arguments.args[0] else { panic!("{name}") };
            declaration(inner, name)
        }
        _ => {
            let c = c_type(ty);
            if c.ends_with('*') { format!("{c}{name}") } else { format!("{c} {name}") }
        }
    }
}

fn pointer_to_function(function: &TypeFnPtr, name: &str) -> String {
    let parameter = |argument: &NamedArg| declaration(&argument.ty, &argument.name.as_ref().unwrap().0.to_string());
    let parameters: Vec<_> = function.inputs.iter().map(parameter).collect();
    let result = match &function.output {
        ReturnType::Default => "void ".to_owned(),
        ReturnType::Type(_, ty) => declaration(ty, ""),
    };
    format!("{result}(*{name})({})", parameters.join(", "))
}

fn c_type(ty: &Type) -> String {
    match ty {
        Type::Ptr(TypePtr { elem, mutability, .. }) => {
            let inner = c_type(elem);
            let space = if inner.ends_with('*') { "" } else { " " };
            let constant = if matches!(mutability, PointerMutability::Const(_)) { "const " } else { "" };
            format!("{constant}{inner}{space}*")
        }
        Type::Path(path) => match path.path.segments[0].ident.to_string().as_str() {
            "u8" => "uint8_t".to_owned(),
            "u16" => "uint16_t".to_owned(),
            "u32" => "uint32_t".to_owned(),
            "u64" => "uint64_t".to_owned(),
            "usize" => "size_t".to_owned(),
            "c_char" => "char".to_owned(),
            "c_void" => "void".to_owned(),
            name => c_name(name),
        },
        _ => panic!("a type that C has no word for here"),
    }
}
