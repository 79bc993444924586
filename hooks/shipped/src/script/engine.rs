//! Rhai as it is set up for scripts, and what is said about their errors.

use rhai::module_resolvers::DummyModuleResolver;
use rhai::{AST, CallFnOptions, Dynamic, Engine, EvalAltResult, FuncArgs, Scope};

use super::functions;

/// Bytes of a string, entries of an array or a map: a script must not use up the host's memory.
const MOST_ELEMENTS: usize = 64 * 1024;
/// Calls inside of each other, and brackets: a script must not use up the stack of a vCPU's thread, of 2 MiB.
const MOST_CALLS: usize = 16;
const MOST_BRACKETS: usize = 64;

/// An engine whose scripts do at most so many operations a call.
pub(super) fn new(operations: u64) -> Engine {
    let mut engine = Engine::new();
    engine.set_module_resolver(DummyModuleResolver::new());
    engine.disable_symbol("eval");
    engine.set_max_operations(operations).set_max_call_levels(MOST_CALLS);
    engine.set_max_expr_depths(MOST_BRACKETS, MOST_BRACKETS);
    engine.set_max_string_size(MOST_ELEMENTS).set_max_array_size(MOST_ELEMENTS).set_max_map_size(MOST_ELEMENTS);
    functions::register(&mut engine);
    engine
}

/// Calls a function of a script with `this`.
pub(super) fn call(
    engine: &Engine,
    ast: &AST,
    this: &mut Dynamic,
    function: &str,
    arguments: impl FuncArgs,
) -> Result<Dynamic, Box<EvalAltResult>> {
    let options = CallFnOptions::new().bind_this_ptr(this);
    engine.call_fn_with_options(options, &mut Scope::new(), ast, function, arguments)
}

/// `explore.rhai:3:14: what is wrong`
pub(super) fn describe(file: &str, error: &EvalAltResult) -> String {
    let inner = error.unwrap_inner();
    let text = inner.to_string();
    // Rhai puts the place at the end, in words.
    let text = text.split(" (line ").next().unwrap_or_default();
    let place = inner.position();
    match (place.line(), place.position()) {
        (Some(line), Some(column)) => format!("{file}:{line}:{column}: {text}"),
        (Some(line), None) => format!("{file}:{line}: {text}"),
        (None, _) => format!("{file}: {text}"),
    }
}
