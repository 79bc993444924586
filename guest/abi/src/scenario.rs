//! The scenarios, as the guest's command line names them: `scenario=demand pages=1000`.

/// A scenario: one thing that the guest can be asked to do.
#[derive(Debug)]
pub struct Scenario {
    /// Its name in `scenario=`.
    pub name: &'static str,
    /// What it does, in one line.
    pub summary: &'static str,
    /// The parameters that it takes.
    pub parameters: &'static [Parameter],
    /// Whether it needs the host to act on its faults.
    pub host: Host,
    /// How it ends.
    pub ending: Ending,
}

/// A parameter: `name=value` on the command line.
#[derive(Debug)]
pub struct Parameter {
    /// Its name, left of the `=`.
    pub name: &'static str,
    /// Its value if it is not given.
    pub default: &'static str,
    /// What it means, in one line.
    pub summary: &'static str,
}

/// What a scenario expects from the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Host {
    /// Nothing: it passes with interception off, and with every fault reinjected.
    Bystander,
    /// It passes only when hooks act on its faults.
    Acting,
}

/// How a scenario ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// It writes 0 to the exit port, or nonzero if a check failed.
    Verdict,
    /// The guest takes an unexpected exception, prints it, and writes nonzero to the exit port.
    Fatal,
    /// The CPU shuts down (a triple fault), or KVM gives up on the guest.
    Crash,
    /// It never ends.
    Never,
}

const fn scenario(name: &'static str, summary: &'static str, parameters: &'static [Parameter]) -> Scenario {
    Scenario { name, summary, parameters, host: Host::Bystander, ending: Ending::Verdict }
}

const fn acting(name: &'static str, summary: &'static str, parameters: &'static [Parameter]) -> Scenario {
    Scenario { name, summary, parameters, host: Host::Acting, ending: Ending::Verdict }
}

const fn ending(
    name: &'static str,
    ending: Ending,
    summary: &'static str,
    parameters: &'static [Parameter],
) -> Scenario {
    Scenario { name, summary, parameters, host: Host::Bystander, ending }
}

const fn parameter(name: &'static str, default: &'static str, summary: &'static str) -> Parameter {
    Parameter { name, default, summary }
}

const RING: Parameter = parameter("ring", "0", "ring that faults: 0 or 3");

/// All scenarios.
pub const SCENARIOS: &[Scenario] = &[
    acting("demo", "three faults that the guest serves, then three that only the host can", &[]),
    scenario("demand", "the guest's handler maps pages at their first touch", &[parameter("pages", "100", "how many")]),
    scenario(
        "drip",
        "touches pages slowly, and says what it finds there",
        &[
            parameter("pages", "10", "how many"),
            parameter("cycles", "500000000", "how long it waits after each, in TSC cycles"),
        ],
    ),
    acting(
        "hidden",
        "pages whose faults the guest calls fatal: the host maps them, filled",
        &[parameter("pages", "16", "how many"), parameter("fill", "0x5a", "byte that each must be filled with")],
    ),
    scenario(
        "hole",
        "writes to the pages of the hole below 4 GiB, and counts those that are memory",
        &[
            parameter("pages", "256", "how many"),
            parameter("touch", "0", "how many pages to touch before and after that the host has to map, zeroed"),
        ],
    ),
    scenario(
        "patient",
        "pages mapped at their first touch, however often the handler is told of each",
        &[parameter("pages", "100", "how many")],
    ),
    scenario(
        "jit",
        "writes code to pages that can be written and executed, and executes it",
        &[parameter("pages", "4", "how many"), parameter("rounds", "3", "how often each")],
    ),
    scenario("readonly", "copy on write by the guest's handler", &[parameter("pages", "8", "how many")]),
    scenario("noexec", "fetches from an NX page, which the guest's handler makes executable", &[]),
    scenario("reserved", "reads through a PTE with a reserved bit set, which the guest's handler clears", &[]),
    scenario("ring0", "demand, readonly, noexec and reserved from ring 0; writes with CR0.WP set and clear", &[]),
    scenario("error-codes", "every combination of P, W, U, I and RSVD that can be made; a line for each", &[]),
    scenario("keys", "accesses that protection keys forbid, where the CPU has them", &[]),
    scenario("twice", "one instruction that faults on two pages", &[]),
    scenario("nested", "the guest's handler faults itself", &[parameter("pages", "4", "how many")]),
    acting("skip", "instructions of many encodings fault; the host skips each, none may have an effect", &[]),
    acting(
        "raise",
        "a fault that the host turns into #GP",
        &[
            parameter("code", "0x0", "error code that the #GP must come with"),
            parameter("ist", "0", "1: the #GP's handler has a stack of its own"),
        ],
    ),
    acting(
        "verdict",
        "one fault, and a line on what came of it: saw=handler, saw=exception or saw=nothing",
        &[
            parameter(
                "access",
                "load",
                "what faults. load: reads; fetch: jumps there; garbage: the same, to bytes that are not an instruction",
            ),
            parameter("vector", "13", "exception that may come in its place"),
            parameter("gate", "good", "what that exception's gate is. good, absent, stack or segment: another's"),
            RING,
        ],
    ),
    scenario("idt", "loads other IDTs, rewrites gate 14 in place, copies a table, restores a gate", &[]),
    acting(
        "trap-gate",
        "a fault that the host resolves, through a trap gate and interrupted before its handler begins",
        &[],
    ),
    scenario(
        "quiet",
        "makes no exit before its first fault",
        &[parameter("cycles", "300000000", "how long that takes, in TSC cycles")],
    ),
    scenario(
        "smp",
        "all CPUs fault together, on different pages and on the same",
        &[parameter("pages", "64", "how many for each CPU, and how many shared")],
    ),
    acting(
        "shootdown",
        "CPU 1 reads a page all the time; each fault of CPU 0 has the host put another frame there",
        &[parameter("rounds", "100", "how many faults")],
    ),
    acting(
        "paged",
        "pages of which the host keeps some in memory and the others in a file",
        &[
            parameter("pages", "4096", "how many"),
            parameter(
                "kind",
                "read",
                "read: each CPU reads a part; read-all: each reads all; read-hot: each reads a part, and one page of it all the \
                 time; random: each reads some; write: each fills every other page of a part; count: each counts up a word of \
                 its own in all; sync: CPU 0 asks for all to be written back while the others count",
            ),
            parameter("rounds", "4", "how many times around, or how many pages at random"),
            parameter("syncs", "1", "how many times to ask that everything be written back, at the end"),
        ],
    ),
    scenario("loop", "one fault, to be resolved by the host without mapping until it stops doing so", &[]),
    scenario(
        "storm",
        "tight loops to be timed, with a write to the mark port on either side of each",
        &[
            parameter("count", "10000", "how many times around"),
            parameter(
                "kind",
                "fault",
                "fault: reads one unmapped address, stepped over; exit: writes a port; both, in turn",
            ),
            parameter("faults", "10000", "how many times around the loop that faults, where it takes turns"),
            parameter("rounds", "1", "how many times all of that"),
            RING,
        ],
    ),
    scenario("chatter", "prints numbered lines without a pause", &[parameter("lines", "100", "how many")]),
    scenario(
        "echo",
        "waits for bytes on the console, and prints them in one line",
        &[parameter("bytes", "200", "how many, at most 1024")],
    ),
    ending("spin", Ending::Never, "never ends, and makes no exit", &[]),
    ending("crash", Ending::Crash, "a triple fault: a #PF with an empty IDT", &[]),
    scenario("idt-readonly", "loads an IDT from a page that is mapped read-only", &[]),
    acting(
        "idt-absent",
        "loads an IDT from a page that is not present, and takes exceptions: the host maps it when they are delivered",
        &[parameter("first", "fault", "fault: a #PF comes first; call: a #UD, by a call into ring 0")],
    ),
    scenario(
        "idt-rewrite",
        "changes where gate 14 leads, and faults at once",
        &[
            parameter(
                "how",
                "gate",
                "gate: in place; shared: in place, with a counter in the IDT's page; descriptors: in place, with the GDT in the \
                 IDT's page; table: once, by loading another IDT",
            ),
            parameter("rounds", "1000", "how many times, with two faults each, or one where a table is loaded"),
        ],
    ),
    acting("inner-guest", "runs a guest of its own; takes AMD-V, and vm.nested", &[]),
    ending("idt-outside", Ending::Crash, "faults with an IDT outside of RAM", &[]),
    scenario("tables-loop", "faults through a page table whose entries all point to the table itself", &[]),
    ending("stack-unmapped", Ending::Crash, "faults with a stack that is not mapped", &[RING]),
    ending(
        "stack-mmio",
        Ending::Crash,
        "faults with a stack outside of RAM",
        &[parameter("how", "fault", "fault: a #PF in ring 0; jump: straight to where gate 14 points")],
    ),
    ending("gate-absent", Ending::Fatal, "faults with gate 14 marked not present: a #DF", &[]),
    scenario(
        "no-room",
        "a page-fault handler on a page of its own without filler, where no stub can be put",
        &[parameter("pages", "8", "how many pages to fault in")],
    ),
];
