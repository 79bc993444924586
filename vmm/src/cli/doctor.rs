//! `vector14 doctor`: reports what this host's KVM offers, which engines can run, and how to fix what is missing.

use vector14::display::{Grid, Style};
use vector14::doctor::{self, Diagnosis, Host};

use super::args::KvmArgs;
use super::{Failure, output};

/// The exit status if no guest can run on this host.
const CAN_NOT_RUN: u8 = 3;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    kvm: KvmArgs,
}

pub(super) fn run(args: &Args) -> Result<u8, Failure> {
    let diagnosis = doctor::examine(&args.kvm.path, &Host::default());
    if args.json {
        output::print_json(&diagnosis)?;
    } else {
        output::print(&describe(&diagnosis, output::style()))?;
    }
    Ok(if diagnosis.runs { 0 } else { CAN_NOT_RUN })
}

fn describe(diagnosis: &Diagnosis, style: Style) -> String {
    let mut grid = Grid::default();
    let or_none = |words: Vec<&str>| if words.is_empty() { "none".to_owned() } else { words.join(", ") };
    grid.row(["device", &diagnosis.device.path.display().to_string(), &diagnosis.device.state.to_string()]);
    grid.row(["modules", &or_none(diagnosis.modules.iter().map(String::as_str).collect()), ""]);
    grid.row(["processor", &diagnosis.cpu.model, &or_none(diagnosis.cpu.flags.clone())]);
    for capability in &diagnosis.capabilities {
        let verdict = if capability.sufficient { "" } else { "MISSING: " };
        let answer = format!("{verdict}{}", capability.purpose);
        grid.row([capability.name, &capability.value.to_string(), &answer]);
    }
    for engine in &diagnosis.engines {
        let available = if engine.available { "can run" } else { "can't run" };
        grid.row([&format!("engine {}", engine.name), available, &engine.reason]);
    }
    let auto = match diagnosis.auto {
        Some(name) => format!("selects {name}, the first of these that can run"),
        None => "selects none of them".to_owned(),
    };
    grid.row(["engine auto", "", &auto]);
    let advice: String = diagnosis.advice.iter().map(|advice| format!("to do: {advice}\n")).collect();
    let verdict = if diagnosis.runs { "guests can run here" } else { "guests can't run here" };
    format!("{}{advice}{verdict}\n", grid.render(style))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn what_is_missing_is_told_with_what_to_do() {
        let diagnosis = doctor::examine(Path::new("/nowhere/kvm"), &Host::default());
        let text = describe(&diagnosis, Style::Plain);
        assert!(text.starts_with("device\t/nowhere/kvm\tdoes not exist\n"), "{text}");
        assert!(text.contains("engine gate\tcan't run\tdoes not exist\n") && text.contains("to do: "), "{text}");
        assert!(text.ends_with("guests can't run here\n"), "{text}");
    }
}
