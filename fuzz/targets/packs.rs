//! The file of packs and tenants: errors have lines of it.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    if let Err(error) = detection::packs::fuzz(text) {
        assert!((1..=text.lines().count() + 1).contains(&(error.line as usize)));
    }
});
