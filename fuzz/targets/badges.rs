//! Files of badge readers.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|file: &[u8]| pipeline::source::fuzz::badges(file));
