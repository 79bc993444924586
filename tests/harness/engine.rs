//! The engine that the suite runs with: the one that `VECTOR14_ENGINE` names, or else the one that `auto` selects on
//! this host.

use std::path::Path;
use std::sync::OnceLock;

use libtest_mimic::Trial;
use vector14::config::EngineChoice;
use vector14::doctor::{self, Diagnosis, Host, device};

/// The engine that `VECTOR14_ENGINE` names; `auto` if it is not set.
fn chosen() -> EngineChoice {
    let name = std::env::var("VECTOR14_ENGINE").unwrap_or_else(|_| EngineChoice::Auto.name().to_owned());
    let engine = EngineChoice::ALL.into_iter().find(|engine| engine.name() == name);
    engine.filter(|engine| *engine != EngineChoice::Off).unwrap_or_else(|| {
        panic!("VECTOR14_ENGINE={name}: must be auto, gate or exception-bitmap");
    })
}

fn diagnosis() -> &'static Diagnosis {
    static DIAGNOSIS: OnceLock<Diagnosis> = OnceLock::new();
    DIAGNOSIS.get_or_init(|| doctor::examine(Path::new(device::DEFAULT_PATH), &Host::default()))
}

/// The engine that tests run with unless they choose one themselves.
pub fn engine() -> EngineChoice {
    match chosen() {
        EngineChoice::Auto if diagnosis().auto == Some(EngineChoice::ExceptionBitmap.name()) => {
            EngineChoice::ExceptionBitmap
        }
        EngineChoice::Auto => EngineChoice::Gate,
        engine => engine,
    }
}

/// The engines for tests that compare them: the suite's, or every one that runs on this host if none was chosen.
pub fn engines() -> Vec<EngineChoice> {
    match chosen() {
        EngineChoice::Auto if lacks_exception_bitmap().is_none() => {
            vec![EngineChoice::Gate, EngineChoice::ExceptionBitmap]
        }
        _ => vec![engine()],
    }
}

/// Why the engine `exception-bitmap` can't run here; `None` if it can.
pub fn lacks_exception_bitmap() -> Option<&'static str> {
    let engine = diagnosis().engines.iter().find(|engine| engine.name == EngineChoice::ExceptionBitmap.name())?;
    (!engine.available).then_some(&engine.reason)
}

/// Tests of the stub or of arming, which only the engine `gate` has: none if the suite runs with the other.
pub fn of_gate(tests: Vec<Trial>) -> Vec<Trial> {
    if engine() == EngineChoice::Gate { tests } else { Vec::new() }
}

/// A test of what only the engine `exception-bitmap` can do. No stock KVM offers that, not even CI's: there the test is
/// ignored, with a message. With `VECTOR14_ENGINE=gate` it is left out.
pub fn exception_bitmap_test(name: &str, body: fn()) -> Option<Trial> {
    if chosen() == EngineChoice::Gate {
        return None;
    }
    let test = super::test(name, body);
    Some(match lacks_exception_bitmap() {
        None => test,
        Some(lacks) => {
            eprintln!("SKIPPED {name}: {lacks}");
            test.with_ignored_flag(true)
        }
    })
}
