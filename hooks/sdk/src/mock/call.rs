//! The calls that hooks made, and the calls that are to fail.

use std::collections::HashMap;

use crate::{Access, Cr3, GuestError, Pa, Va};

/// A call that a hook made on the guest. Calls of `registers`, `registers_mut`, `system_registers`, `kind`,
/// `address_space` and `elapsed` are not recorded.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "each is the method of `Guest` with its arguments")]
pub enum Call {
    UseAddressSpace(Cr3),
    Walk(Va),
    Translate(Va),
    Read { address: Va, length: usize },
    Write { address: Va, data: Vec<u8> },
    ReadPhysical { address: Pa, length: usize },
    WritePhysical { address: Pa, data: Vec<u8> },
    CompareExchange { address: Pa, current: u64, new: u64 },
    AllocatePage,
    FreePage(Pa),
    Map { page: Va, frame: Pa, access: Access },
    Unmap(Va),
    Protect { page: Va, access: Access },
    Flush,
    Code,
    Log(String),
}

/// The methods of [`Guest`](crate::Guest) that can fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "the methods' own names")]
pub enum Method {
    Walk,
    Translate,
    Read,
    Write,
    ReadPhysical,
    WritePhysical,
    CompareExchange,
    AllocatePage,
    FreePage,
    Map,
    Unmap,
    Protect,
    Flush,
    /// `code`, and `instruction`, which calls it.
    Code,
}

impl Call {
    /// The method that was called, if it can fail.
    #[must_use]
    pub const fn method(&self) -> Option<Method> {
        Some(match self {
            Self::UseAddressSpace(_) | Self::Log(_) => return None,
            Self::Walk(_) => Method::Walk,
            Self::Translate(_) => Method::Translate,
            Self::Read { .. } => Method::Read,
            Self::Write { .. } => Method::Write,
            Self::ReadPhysical { .. } => Method::ReadPhysical,
            Self::WritePhysical { .. } => Method::WritePhysical,
            Self::CompareExchange { .. } => Method::CompareExchange,
            Self::AllocatePage => Method::AllocatePage,
            Self::FreePage(_) => Method::FreePage,
            Self::Map { .. } => Method::Map,
            Self::Unmap(_) => Method::Unmap,
            Self::Protect { .. } => Method::Protect,
            Self::Flush => Method::Flush,
            Self::Code => Method::Code,
        })
    }
}

/// Which calls of a method fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    /// All calls from now on.
    Always,
    /// Only the n-th call from now on, counted from 1.
    Nth(u64),
}

/// The calls made so far, and the failures to inject.
#[derive(Default)]
pub(super) struct Calls {
    made: Vec<Call>,
    failures: HashMap<Method, (When, GuestError)>,
}

impl Calls {
    /// Records a call, and returns the error with which it is to fail, if any.
    pub(super) fn note(&mut self, call: Call) -> Result<(), GuestError> {
        let failure = call.method().and_then(|method| self.failures.get_mut(&method));
        self.made.push(call);
        match failure {
            None => Ok(()),
            Some((When::Always, error)) => Err(*error),
            Some((When::Nth(left), error)) => {
                let due = *left == 1;
                *left = left.saturating_sub(1);
                if due { Err(*error) } else { Ok(()) }
            }
        }
    }

    pub(super) fn fail(&mut self, method: Method, when: When, error: GuestError) {
        self.failures.insert(method, (when, error));
    }

    pub(super) fn succeed(&mut self, method: Method) {
        self.failures.remove(&method);
    }

    pub(super) fn take(&mut self) -> Vec<Call> {
        std::mem::take(&mut self.made)
    }
}
