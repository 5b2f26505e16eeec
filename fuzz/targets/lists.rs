//! Lists that events are enriched from.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (&str, &str)| pipeline::transform::enrich::fuzz(input.0, input.1));
