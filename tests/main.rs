//! vector14's integration tests. Each file tests one behaviour, most of them by a scenario of the tiny guest of the
//! same name.
//!
//! Without KVM, every test that needs it is skipped with a message; if `CI` is set, it fails instead.

#![expect(unreachable_pub, reason = "a test binary is nobody's library")]
#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod harness;

mod bad_guest;
mod bad_host;
mod bad_kernel;
mod chain_edits;
mod console;
mod crash;
mod ctl;
mod ctl_clients;
mod ctl_strangers;
mod demand;
mod demo;
mod early;
mod embed;
mod ending;
mod engines;
mod error_codes;
mod examples;
mod exception_exit;
mod flush;
mod footprint;
mod hidden;
mod hook_failures;
mod hook_project;
mod idt;
mod inner_guest;
mod instructions;
mod interception;
mod keys;
mod kvm_unit_tests;
mod limits;
mod linux;
mod linux_hooks;
mod linux_pager;
mod loaded;
mod loaded_refused;
mod loaded_watch;
mod r#loop;
mod memory;
mod multiboot;
mod nested;
mod noexec;
mod pager;
mod pause;
mod protected_mode;
mod quiet;
mod raise;
mod readonly;
mod removal;
mod replay;
mod reserved;
mod ring0;
mod run_command;
mod skip;
mod smp;
mod spin;
mod stop;
mod storm;
mod terminal;
mod trace;
mod trap_gate;
mod trust;
mod twice;
mod verdicts;
mod xv6;

fn main() {
    let arguments = libtest_mimic::Arguments::from_args();
    let trials = if arguments.bench { limits::benches() } else { tests() };
    let conclusion = libtest_mimic::run(&arguments, trials);
    kvm_unit_tests::print();
    conclusion.exit();
}

fn tests() -> Vec<libtest_mimic::Trial> {
    let tests = [
        bad_guest::tests(),
        bad_host::tests(),
        bad_kernel::tests(),
        chain_edits::tests(),
        console::tests(),
        crash::tests(),
        ctl::tests(),
        ctl_clients::tests(),
        ctl_strangers::tests(),
        demand::tests(),
        demo::tests(),
        early::tests(),
        embed::tests(),
        ending::tests(),
        engines::tests(),
        error_codes::tests(),
        examples::tests(),
        exception_exit::tests(),
        flush::tests(),
        footprint::tests(),
        hidden::tests(),
        hook_failures::tests(),
        hook_project::tests(),
        idt::tests(),
        inner_guest::tests(),
        instructions::tests(),
        interception::tests(),
        keys::tests(),
        kvm_unit_tests::tests(),
        linux::tests(),
        linux_hooks::tests(),
        linux_pager::tests(),
        loaded::tests(),
        loaded_refused::tests(),
        loaded_watch::tests(),
        r#loop::tests(),
        memory::tests(),
        multiboot::tests(),
        nested::tests(),
        noexec::tests(),
        pager::tests(),
        pause::tests(),
        protected_mode::tests(),
        quiet::tests(),
        raise::tests(),
        readonly::tests(),
        replay::tests(),
        removal::tests(),
        reserved::tests(),
        ring0::tests(),
        run_command::tests(),
        skip::tests(),
        smp::tests(),
        spin::tests(),
        stop::tests(),
        storm::tests(),
        terminal::tests(),
        trace::tests(),
        trap_gate::tests(),
        trust::tests(),
        twice::tests(),
        verdicts::tests(),
        xv6::tests(),
    ];
    tests.into_iter().flatten().collect()
}
