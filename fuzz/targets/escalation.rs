//! Escalation policies: errors have lines of the document.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Err(errors) = detection::escalation::parse("fuzz", bytes) {
        assert!(!errors.is_empty() && errors.iter().all(|error| error.line > 0));
    }
});
