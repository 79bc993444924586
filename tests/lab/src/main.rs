//! The lab: a QEMU machine with nested SVM, in which a Debian kernel loads its own kvm-amd and vector14 runs for real.
//!
//! For hosts without a usable /dev/kvm, and for what only a stock KVM can do: boot unmodified Linux guests. Only QEMU, xz
//! and a compiler are installed. Everything else is unpacked into a cache folder; a run with a full cache needs no network.
//!
//! # Layout
//! - [`wanted`], [`apt`], [`cache`]: which Debian packages, where they come from, where they are kept
//! - [`modules`]: KVM's modules with exception exits, for a kernel of the lab
//! - [`programs`]: vector14, its integration tests with their libraries, and the guest's workloads
//! - [`archive`], [`guest`], [`initrd`]: the initramfs for Linux guests, and the lab's own with all of it inside
//! - [`job`]: what is asked of the lab, as the script that runs in it
//! - [`machine`], [`run`]: QEMU's command line, and a run of it up to its end or its deadline
//! - [`suites`]: the integration tests on every KVM and with every engine, side by side

mod apt;
mod archive;
mod cache;
mod guest;
mod initrd;
mod job;
mod machine;
mod modules;
mod programs;
mod run;
mod suites;
mod wanted;

use std::path::Path;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::cache::Cache;
use crate::initrd::Parts;
use crate::job::Job;
use crate::machine::Clock;
use crate::modules::Kvm;
use crate::run::{Machine, Show};
use crate::wanted::{LAB_KERNELS, LabKernel};

/// Exit status of a lab that could not be built or gave no verdict.
const NO_VERDICT: u8 = 125;

/// Runs vector14 and its tests in a QEMU machine, on a kvm-amd of its own.
#[derive(Debug, Parser)]
#[command(version, max_term_width = 120, after_help = ENVIRONMENT)]
struct Cli {
    /// Which KVM the lab's kernel loads: stock, but for `test`, which then takes every KVM with every engine that runs there
    #[arg(long, value_name = "KVM")]
    kvm: Option<Kvm>,
    /// The kernel that the lab runs
    #[arg(long, value_name = "KERNEL", default_value = LAB_KERNELS[0].key, value_parser = parse_kernel)]
    kernel: &'static LabKernel,
    /// What the lab's clock follows. With `instructions`, deadlines inside the lab come later, too
    #[arg(long, value_name = "CLOCK", default_value = "host")]
    clock: Clock,
    #[command(subcommand)]
    command: Command,
}

const ENVIRONMENT: &str = "\
Environment:
    VECTOR14_LAB          the cache folder (default: target/lab)
    VECTOR14_ENGINE       the engine that `--kvm KVM test` runs with: auto, gate or exception-bitmap
    VECTOR14_XV6, VECTOR14_FLATS  kernels for the tests of these names: a file and a folder, which are copied into the lab
    VECTOR14_LAB_TIMEOUT  when a run is ended, as `90s` or `20m` (default: 15m; a shell has all the time)

A run leaves its output, the lab's kernel log and QEMU's command line in the folder `last` of the cache, or in one folder a
suite. One that hangs is ended with status 124, and leaves KVM's exit statistics and QEMU's state there too.
Exit status: that of what ran inside; 124 a deadline; 125 there is no lab, or it ended without a verdict.";

#[derive(Debug, Subcommand)]
enum Command {
    /// Download, unpack and compile all that the lab is made of
    Build,
    /// Build KVM's modules with exception exits for the kernel, and say where they are
    KvmModule,
    /// Forget which packages the cache holds, so that the next build takes the newest ones
    Update,
    /// A shell inside, with vector14 in the PATH; Ctrl-A x ends it
    Shell,
    /// The integration tests inside; arguments as for the test binary
    Test {
        /// Filters and options of the test binary
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// A command inside
    Run {
        /// The command and its arguments
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, required = true)]
        command: Vec<String>,
    },
}

fn main() -> ExitCode {
    match execute(&Cli::parse()) {
        Ok(status) => ExitCode::from(status),
        Err(error) => {
            eprintln!("lab: {error}");
            ExitCode::from(NO_VERDICT)
        }
    }
}

fn parse_kernel(name: &str) -> Result<&'static LabKernel, String> {
    const KERNELS: &[LabKernel] = &LAB_KERNELS;
    let known = || KERNELS.iter().map(|kernel| kernel.key).collect::<Vec<_>>().join(", ");
    KERNELS.iter().find(|kernel| kernel.key == name).ok_or_else(|| format!("the lab runs {}", known()))
}

fn execute(cli: &Cli) -> Result<u8, Box<dyn std::error::Error>> {
    let workspace = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../..")).canonicalize()?;
    let mut cache = Cache::open(&workspace)?;
    let timeout = run::timeout()?;
    let jobs = match &cli.command {
        Command::Build => Vec::new(),
        Command::KvmModule => {
            cache.fill()?;
            println!("{}", modules::provide(&mut cache, &workspace, cli.kernel)?.display());
            return Ok(0);
        }
        Command::Update => return Ok(cache.forget().map(|()| 0)?),
        Command::Shell => vec![Job::shell(cli.kvm.unwrap_or_default())],
        Command::Test { arguments } => match cli.kvm {
            Some(kvm) => vec![suites::on(kvm, std::env::var("VECTOR14_ENGINE").ok(), arguments)],
            None => suites::jobs(arguments),
        },
        Command::Run { command } => vec![Job::command(cli.kvm.unwrap_or_default(), command)],
    };

    apt::provide_tools()?;
    cache.fill()?;
    let programs = programs::build(&workspace, cache.root())?;
    let guests = guest::provide(&cache, &programs)?;
    let needs_modules = jobs.is_empty() || jobs.iter().any(|job| job.kvm() == Kvm::ExceptionExit);
    let modules = if needs_modules { Some(modules::provide(&mut cache, &workspace, cli.kernel)?) } else { None };
    if jobs.is_empty() {
        println!("lab: built; guest kernels and their initramfs are in {}", guests.display());
        return Ok(0);
    }
    let mut machines = Vec::new();
    for job in jobs {
        let limit = run::limit(timeout, job.attendance());
        let job = match limit {
            Some(limit) => job.limited_to(limit),
            None => job,
        };
        let modules = modules.as_deref().filter(|_| job.kvm() == Kvm::ExceptionExit);
        let parts = Parts { programs: &programs, guests: &guests, kernel: cli.kernel.key, modules };
        let initrd = initrd::write(&cache, &parts, &job)?;
        machines.push(Machine { kernel: cli.kernel.key, clock: cli.clock, initrd, job, limit });
    }
    Ok(match &machines[..] {
        [one] => run::run(&cache, one, Show::AsItComes)?,
        several => suites::run(&cache, several)?,
    })
}
