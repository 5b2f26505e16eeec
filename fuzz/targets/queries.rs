//! Questions to the archive, in words.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let _ = archive::search::parse_query(text);
});
