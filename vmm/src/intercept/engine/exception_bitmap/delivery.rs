//! A fault during the delivery of another event: what the CPU delivers then (SDM vol. 3A, 6.15, "Double Fault
//! Exception", tables 6-4 and 6-5; APM vol. 2, table 8-3).

use kvm_bindings::kvm_vcpu_events;
use vector14_hook::Exception;

use crate::intercept::engine::caught::Event;

const DOUBLE_FAULT: Exception = Exception { vector: 8, error_code: Some(0) };

/// What is delivered in the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Delivery {
    /// An exception. One that was being delivered before is dropped: its instruction will raise it again.
    Exception(Exception),
    /// The CPU shuts down.
    TripleFault,
}

/// Classes of exceptions, by what two of them in a row lead to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Benign,
    Contributory,
    PageFault,
    DoubleFault,
}

impl Kind {
    fn of(vector: u8) -> Self {
        match vector {
            0 | 10..=13 | 21 => Self::Contributory,
            14 | 20 => Self::PageFault,
            8 => Self::DoubleFault,
            _ => Self::Benign,
        }
    }
}

/// The event whose delivery faulted, if any. Software interrupts and exceptions are not reported: KVM keeps them to
/// itself, forgets them when other events are set, and the guest then executes their instruction again.
pub(super) fn in_progress(events: &kvm_vcpu_events) -> Option<Event> {
    if events.exception.injected != 0 {
        Some(Event::Exception { vector: events.exception.nr })
    } else if events.nmi.injected != 0 {
        Some(Event::Nmi)
    } else if events.interrupt.injected != 0 {
        Some(Event::Interrupt { vector: events.interrupt.nr })
    } else {
        None
    }
}

/// What is delivered if `second` is raised during the delivery of `first`.
pub(super) fn after(first: Option<Event>, second: Exception) -> Delivery {
    let first = match first {
        Some(Event::Exception { vector }) => Kind::of(vector),
        Some(Event::Interrupt { .. } | Event::Nmi) | None => Kind::Benign,
    };
    match (first, Kind::of(second.vector)) {
        (Kind::DoubleFault, Kind::Contributory | Kind::PageFault | Kind::DoubleFault) => Delivery::TripleFault,
        (Kind::Contributory, Kind::Contributory)
        | (Kind::PageFault, Kind::Contributory | Kind::PageFault)
        | (Kind::Contributory | Kind::PageFault, Kind::DoubleFault) => Delivery::Exception(DOUBLE_FAULT),
        (Kind::Benign, _) | (_, Kind::Benign) | (Kind::Contributory, Kind::PageFault) => Delivery::Exception(second),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_exceptions_in_a_row_are_what_table_6_5_says() {
        let (benign, contributory, fault) = (
            Exception { vector: 6, error_code: None },
            Exception { vector: 13, error_code: Some(0) },
            Exception { vector: 14, error_code: Some(2) },
        );
        let on = |first: u8, second| after(Some(Event::Exception { vector: first }), second);
        let serial = Delivery::Exception;
        let double = serial(DOUBLE_FAULT);
        assert_eq!(
            [benign, contributory, fault].map(|second| on(1, second)),
            [benign, contributory, fault].map(serial)
        );
        assert_eq!([benign, contributory, fault].map(|second| on(11, second)), [serial(benign), double, serial(fault)]);
        assert_eq!([benign, contributory, fault].map(|second| on(14, second)), [serial(benign), double, double]);
        let dead = Delivery::TripleFault;
        assert_eq!([benign, contributory, fault].map(|second| on(8, second)), [serial(benign), dead, dead]);
        for first in [None, Some(Event::Nmi), Some(Event::Interrupt { vector: 0xec })] {
            assert_eq!(after(first, fault), serial(fault));
        }
    }

    #[test]
    fn events_say_what_was_being_delivered() {
        let mut events = kvm_vcpu_events::default();
        assert_eq!(in_progress(&events), None);
        (events.interrupt.injected, events.interrupt.nr) = (1, 0xec);
        assert_eq!(in_progress(&events), Some(Event::Interrupt { vector: 0xec }));
        events.nmi.injected = 1;
        assert_eq!(in_progress(&events), Some(Event::Nmi));
        (events.exception.injected, events.exception.nr) = (1, 13);
        assert_eq!(in_progress(&events), Some(Event::Exception { vector: 13 }));
    }
}
