//! The frame of an exception on the ring-0 stack.

/// What the entry stubs and the CPU push, from the lowest address up.
#[repr(C)]
pub struct TrapFrame {
    pub registers: [u64; 15],
    pub vector: u64,
    pub error: u64,
    pub rip: u64,
    pub cs: u64,
    pub rflags: u64,
    pub rsp: u64,
    pub ss: u64,
}
