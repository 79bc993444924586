//! `vector14 run --watch`: the hook of a rebuilt library replaces the old one while the guest runs.

use std::fs;
use std::process::Child;
use std::thread::sleep;
use std::time::Duration;

use libtest_mimic::Trial;

use crate::harness::libraries::{self, SUBJECT, compile, table};
use crate::harness::{Command, kvm_test};

pub fn tests() -> Vec<Trial> {
    if libraries::can_compile() { vec![kvm_test("loaded-watch", watch)] } else { Vec::new() }
}

/// Ends the guest as its user would.
pub fn terminate(child: &mut Child) {
    let ended = std::process::Command::new("kill").arg(child.id().to_string()).status().unwrap();
    assert!(ended.success());
}

fn filled_with(fill: &str) -> Vec<u8> {
    compile(SUBJECT, &[&format!("-DFILL={fill}")])
}

fn ends_process() -> Vec<u8> {
    let end = "#include <stdlib.h>\n__attribute__((constructor)) static void end(void) { abort(); }\n";
    compile(&[SUBJECT, end].concat(), &[])
}

fn watch() {
    let command = Command::run_config(&format!(
        "[boot]\nkernel = \"tiny\"\ncmdline = \"scenario=drip pages=10000 cycles=10000000\"\n[vm]\ntimeout = \"120s\"\n{}",
        table("libmine.so".as_ref(), "everywhere = true")
    ));
    let command = command.file("libmine.so", &filled_with("0x11")).argument("--watch");
    let (library, new) = (command.path("libmine.so"), command.path("new.so"));
    let finished = command.finish_after_each(vec![
        // As cargo writes it: another file under the same name.
        (
            "from outside, 0x1111111111111111",
            Box::new(|_| {
                fs::write(&new, filled_with("0x22")).unwrap();
                fs::rename(&new, &library).unwrap();
            }),
        ),
        // As linkers write it: in place, and in pieces. Before that, a file that is not a library, and a library that
        // would end vector14.
        (
            "from outside, 0x2222222222222222",
            Box::new(|_| {
                fs::write(&library, "/* GNU ld script */").unwrap();
                sleep(Duration::from_secs(2));
                fs::write(&library, ends_process()).unwrap();
                sleep(Duration::from_secs(2));
                let whole = filled_with("0x33");
                fs::write(&library, &whole[..whole.len() / 2]).unwrap();
                sleep(Duration::from_millis(100));
                fs::write(&library, &whole).unwrap();
            }),
        ),
        ("from outside, 0x3333333333333333", Box::new(terminate)),
    ]);
    assert_eq!(finished.status(), Some(128 + libc::SIGTERM), "{finished}");
    let told = finished.stderr();
    let reloads = told.matches("hook `subject-c` was reloaded from libmine.so").count();
    assert_eq!(reloads, 2, "{finished}");
    for why in ["a file that begins with 2f 2a 20 47", "ends the process that loads it: SIGABRT"] {
        let stays = format!("hook `subject-c` stays as it was: hook library libmine.so: {why}");
        assert!(told.contains(&stays), "no `{stays}` in\n{finished}");
    }

    // Each fault was seen by exactly one of the three hooks.
    let summary = finished.summary();
    let hooks = summary["hooks"].as_array().unwrap();
    let calls: Vec<_> = hooks.iter().map(|hook| hook["calls"].as_u64().unwrap()).collect();
    let mapped = |hook: &serde_json::Value| hook["report"]["tables"][0]["rows"][0][0].as_str().map(str::to_owned);
    assert_eq!(hooks.iter().filter_map(mapped).map(|pages| pages.parse().unwrap()).collect::<Vec<u64>>(), calls);
    assert!(calls.len() == 3 && !calls.contains(&0), "{finished}");
    assert_eq!(summary["faults"]["total"], calls.iter().sum::<u64>(), "{finished}");
    assert_eq!(summary["verdicts"]["resolve"], summary["faults"]["total"], "{finished}");
}
