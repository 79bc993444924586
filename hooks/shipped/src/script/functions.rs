//! The functions that a script can call. The guest is in thread-local storage while a script runs, because Rhai's
//! values can't borrow.

use rhai::{Engine, EvalAltResult};
use scoped_tls_hkt::scoped_thread_local;
use vector14_hook::{ErrorCode, Exception, Fault, Guest, Registers, Va, Verdict, VerdictKind};

scoped_thread_local!(static mut GUEST: for<'a> &'a mut (dyn Guest + 'a));

type Thrown<T> = Result<T, Box<EvalAltResult>>;

/// Runs `script` with `guest` as the target of its calls.
pub(super) fn with<R>(guest: &mut dyn Guest, script: impl FnOnce() -> R) -> R {
    GUEST.set(guest, script)
}

fn guest<R>(call: impl FnOnce(&mut dyn Guest) -> R) -> R {
    GUEST.with(|guest| call(guest))
}

pub(super) fn register(engine: &mut Engine) {
    register_fault(engine);
    register_verdicts(engine);
    register_guest(engine);
    engine.register_fn("hex", |number: i64| format!("{number:#x}"));
    engine.on_print(|text| eprintln!("{text}"));
    engine.on_debug(|text, _, _| eprintln!("{text}"));
    engine.register_fn("log", |text: &str| guest(|guest| guest.log(text)));
    // The vCPU would be stopped meanwhile.
    engine.register_fn("sleep", |_: i64| -> Thrown<()> { Err("a script can't sleep".into()) });
    engine.register_fn("sleep", |_: f64| -> Thrown<()> { Err("a script can't sleep".into()) });
}

fn register_fault(engine: &mut Engine) {
    type Number = fn(&Fault) -> u64;
    let numbers: [(&str, Number); 10] = [
        ("sequence", |fault| fault.sequence),
        ("vcpu", |fault| fault.vcpu.into()),
        ("address", |fault| fault.address.0),
        ("error_code", |fault| fault.error_code.bits().into()),
        ("rip", |fault| fault.rip.0),
        ("rsp", |fault| fault.rsp.0),
        ("cs", |fault| fault.cs.into()),
        ("ss", |fault| fault.ss.into()),
        ("rflags", |fault| fault.rflags),
        ("cr3", |fault| fault.cr3.0),
    ];
    let flags = [
        ("write", ErrorCode::WRITE),
        ("fetch", ErrorCode::FETCH),
        ("present", ErrorCode::PRESENT),
        ("reserved", ErrorCode::RESERVED),
    ];
    engine.register_type_with_name::<Fault>("Fault");
    for (name, number) in numbers {
        engine.register_get(name, move |fault: &mut Fault| number(fault).cast_signed());
    }
    for (name, flag) in flags {
        engine.register_get(name, move |fault: &mut Fault| fault.error_code.contains(flag));
    }
    engine.register_get("user", |fault: &mut Fault| fault.from_user());
}

fn register_verdicts(engine: &mut Engine) {
    engine.register_type_with_name::<Verdict>("Verdict");
    engine.register_fn("pass", || Verdict::Pass);
    for kind in VerdictKind::ALL {
        register_verdict(engine, kind);
    }
}

fn register_verdict(engine: &mut Engine, kind: VerdictKind) {
    let name = kind.name();
    match kind {
        VerdictKind::Reinject => {
            engine.register_fn(name, || Verdict::Reinject);
            engine.register_fn("reinject_as", |address: i64, code: i64| -> Thrown<Verdict> {
                let error_code = ErrorCode::from_bits_retain(narrow(code, "an error code")?);
                Ok(Verdict::ReinjectAs { address: Va(address.cast_unsigned()), error_code })
            });
        }
        VerdictKind::Resolve => {
            engine.register_fn(name, || Verdict::Resolve);
        }
        VerdictKind::Skip => {
            engine.register_fn(name, || Verdict::Skip);
        }
        VerdictKind::Raise => {
            engine.register_fn(name, |vector: i64| -> Thrown<Verdict> {
                Ok(Verdict::Raise(Exception { vector: narrow(vector, "a vector")?, error_code: None }))
            });
            engine.register_fn(name, |vector: i64, code: i64| -> Thrown<Verdict> {
                let error_code = Some(narrow(code, "an error code")?);
                Ok(Verdict::Raise(Exception { vector: narrow(vector, "a vector")?, error_code }))
            });
        }
        VerdictKind::Stop => {
            engine.register_fn(name, |why: &str| Verdict::Stop(why.to_owned().into()));
        }
    }
}

fn register_guest(engine: &mut Engine) {
    engine.register_fn("reg", |name: &str| -> Thrown<i64> {
        guest(|guest| Ok(register_named(&mut { *guest.registers() }, name)?.cast_signed()))
    });
    engine.register_fn("set_reg", |name: &str, value: i64| -> Thrown<()> {
        guest(|guest| {
            *register_named(guest.registers_mut(), name)? = value.cast_unsigned();
            Ok(())
        })
    });
    for (name, size) in [("read_u8", 1), ("read_u16", 2), ("read_u32", 4), ("read_u64", 8)] {
        engine.register_fn(name, move |address: i64| read(address, size));
    }
    engine.register_fn("translate", |address: i64| -> Thrown<i64> {
        let translated = guest(|guest| guest.translate(Va(address.cast_unsigned())));
        Ok(translated.map_err(throw)?.address.0.cast_signed())
    });
    engine.register_fn("instruction", || -> Thrown<String> {
        guest(|guest| guest.instruction()).map(|text| text.to_string()).map_err(throw)
    });
}

fn read(address: i64, size: usize) -> Thrown<i64> {
    let mut bytes = [0; 8];
    guest(|guest| guest.read(Va(address.cast_unsigned()), &mut bytes[..size])).map_err(throw)?;
    Ok(i64::from_le_bytes(bytes))
}

fn register_named<'a>(registers: &'a mut Registers, name: &str) -> Thrown<&'a mut u64> {
    Ok(match name {
        "rax" => &mut registers.rax,
        "rbx" => &mut registers.rbx,
        "rcx" => &mut registers.rcx,
        "rdx" => &mut registers.rdx,
        "rsi" => &mut registers.rsi,
        "rdi" => &mut registers.rdi,
        "rbp" => &mut registers.rbp,
        "rsp" => &mut registers.rsp,
        "r8" => &mut registers.r8,
        "r9" => &mut registers.r9,
        "r10" => &mut registers.r10,
        "r11" => &mut registers.r11,
        "r12" => &mut registers.r12,
        "r13" => &mut registers.r13,
        "r14" => &mut registers.r14,
        "r15" => &mut registers.r15,
        "rip" => &mut registers.rip,
        "rflags" => &mut registers.rflags,
        _ => return Err(format!("`{name}` is not a register; use rax to r15, rip or rflags").into()),
    })
}

fn narrow<T: TryFrom<i64>>(number: i64, what: &str) -> Thrown<T> {
    T::try_from(number).map_err(|_| format!("{number} is not {what}").into())
}

fn throw(error: impl std::fmt::Display) -> Box<EvalAltResult> {
    error.to_string().into()
}
