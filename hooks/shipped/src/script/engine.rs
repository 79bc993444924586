//! The setup of Rhai for scripts, and the format of their errors.

use rhai::module_resolvers::DummyModuleResolver;
use rhai::{AST, CallFnOptions, Dynamic, Engine, EvalAltResult, FuncArgs, Scope};

use vector14_hook::Fault;

use super::functions;

/// Maximum entries of an array or a map, including nested ones, and bytes of a string. A script must not exhaust the
/// host's memory in one call, nor the stack, on which nested values are dropped.
const MOST_ELEMENTS: usize = 2 * 1024;
const MOST_TEXT: usize = 16 * 1024;
/// Maximum bytes that a `this` may keep between calls, checked after every call.
const MOST_KEPT: usize = 256 * 1024;
/// Maximum nesting of arrays and maps in a `this`.
const MOST_NESTED: usize = 16;
/// Maximum nesting of calls and of expressions. A script must not exhaust the 2 MiB stack of a vCPU's thread.
const MOST_CALLS: usize = 16;
const MOST_BRACKETS: usize = 64;

/// Creates an engine that limits scripts to a number of operations per call.
pub(super) fn new(operations: u64) -> Engine {
    let mut engine = Engine::new();
    engine.set_module_resolver(DummyModuleResolver::new());
    engine.disable_symbol("eval");
    engine.set_max_operations(operations).set_max_call_levels(MOST_CALLS);
    engine.set_max_expr_depths(MOST_BRACKETS, MOST_BRACKETS);
    engine.set_max_string_size(MOST_TEXT).set_max_array_size(MOST_ELEMENTS).set_max_map_size(MOST_ELEMENTS);
    functions::register(&mut engine);
    engine
}

/// Calls a function of a script with `this`, and checks the size of `this` afterwards.
pub(super) fn call(
    engine: &Engine,
    ast: &AST,
    this: &mut Dynamic,
    function: &str,
    arguments: impl FuncArgs,
) -> Result<Dynamic, Box<EvalAltResult>> {
    let options = CallFnOptions::new().bind_this_ptr(this);
    let answer = engine.call_fn_with_options(options, &mut Scope::new(), ast, function, arguments)?;
    let kept = weigh(engine, this, MOST_NESTED)?;
    if kept > MOST_KEPT {
        return Err(format!("`this` has {kept} bytes, and may have {MOST_KEPT}: keep less in it").into());
    }
    Ok(answer)
}

/// Approximate size of a value in bytes. Rhai's own limits apply to one value in one call, and do not count keys.
fn weigh(engine: &Engine, value: &Dynamic, nested: usize) -> Result<usize, Box<EvalAltResult>> {
    let inside = || nested.checked_sub(1).ok_or_else(|| format!("`this` is nested deeper than {MOST_NESTED} levels"));
    let mut bytes = size_of::<Dynamic>();
    if let Ok(map) = value.as_map_ref() {
        let inside = inside()?;
        for (key, value) in &*map {
            bytes += size_of_val(key) + key.len() + weigh(engine, value, inside)?;
        }
    } else if let Ok(array) = value.as_array_ref() {
        let inside = inside()?;
        for value in &*array {
            bytes += weigh(engine, value, inside)?;
        }
    } else if let Ok(blob) = value.as_blob_ref() {
        bytes += blob.len();
    } else if let Ok(text) = value.as_immutable_string_ref() {
        bytes += text.len();
    } else if !is_small(value) {
        return Err(format!(
            "`this` holds a value of type {}: it can hold only numbers, texts, arrays, maps and faults",
            engine.map_type_name(value.type_name())
        )
        .into());
    }
    Ok(bytes)
}

/// Whether a value's type can't hold other values.
fn is_small(value: &Dynamic) -> bool {
    value.is_unit() || value.is_bool() || value.is_int() || value.is_float() || value.is_char() || value.is::<Fault>()
}

/// Formats an error as `explore.rhai:3:14: what is wrong`.
pub(super) fn describe(file: &str, error: &EvalAltResult) -> String {
    let inner = error.unwrap_inner();
    let text = inner.to_string();
    // Rhai appends the position as text.
    let text = text.split(" (line ").next().unwrap_or_default();
    let place = inner.position();
    match (place.line(), place.position()) {
        (Some(line), Some(column)) => format!("{file}:{line}:{column}: {text}"),
        (Some(line), None) => format!("{file}:{line}: {text}"),
        (None, _) => format!("{file}: {text}"),
    }
}
