//! The command line: `scenario=NAME key=value ...`, checked against the ABI's list of scenarios.

use vector14_guest_abi::{SCENARIOS, Scenario};

use crate::console::{self, Status};
use crate::probe::Ring;
use crate::say;

/// A valid command line.
pub struct Cmdline {
    scenario: &'static Scenario,
    line: &'static str,
}

impl Cmdline {
    /// Parses `line`. Anything unknown in it ends the VM, after a list of all scenarios and parameters.
    pub fn parse(line: &'static str) -> Self {
        let name = words(line).find_map(|(key, value)| (key == "scenario").then_some(value)).unwrap_or("");
        let Some(scenario) = SCENARIOS.iter().find(|s| s.name == name) else {
            say!("scenario={name}: there is no such scenario");
            usage();
        };
        for (key, _) in words(line).filter(|(key, _)| *key != "scenario") {
            if !scenario.parameters.iter().any(|p| p.name == key) {
                say!("{key}: {name} has no such parameter");
                usage();
            }
        }
        Self { scenario, line }
    }

    /// The scenario's name.
    pub fn scenario(&self) -> &'static str {
        self.scenario.name
    }

    /// What it does, in one line.
    pub fn summary(&self) -> &'static str {
        self.scenario.summary
    }

    /// The value of a parameter, or its default.
    pub fn value(&self, name: &str) -> &'static str {
        let given = words(self.line).find_map(|(key, value)| (key == name).then_some(value));
        let default = || self.scenario.parameters.iter().find(|p| p.name == name).map(|p| p.default);
        given.or_else(default).expect("a parameter of this scenario")
    }

    /// The value of a parameter that is a number, decimal, or hexadecimal with the prefix 0x.
    pub fn number(&self, name: &str) -> u64 {
        let value = self.value(name);
        let number = match value.strip_prefix("0x") {
            Some(digits) => u64::from_str_radix(digits, 16),
            None => value.parse(),
        };
        number.unwrap_or_else(|_| self.refuse(name, "a number"))
    }

    /// The value of a parameter that is a ring.
    pub fn ring(&self) -> Ring {
        match self.value("ring") {
            "0" => Ring::Zero,
            "3" => Ring::Three,
            _ => self.refuse("ring", "0 or 3"),
        }
    }

    /// Ends the VM because of a parameter's value.
    pub fn refuse(&self, name: &str, allowed: &str) -> ! {
        say!("{name}={}: must be {allowed}", self.value(name));
        console::exit(Status::Usage)
    }
}

fn words(line: &'static str) -> impl Iterator<Item = (&'static str, &'static str)> {
    line.split_ascii_whitespace().map(|word| word.split_once('=').unwrap_or((word, "")))
}

fn usage() -> ! {
    for scenario in SCENARIOS {
        say!("scenario={}: {}", scenario.name, scenario.summary);
        for parameter in scenario.parameters {
            say!("    {}={}: {}", parameter.name, parameter.default, parameter.summary);
        }
    }
    console::exit(Status::Usage)
}
