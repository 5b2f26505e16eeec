//! Bodies of OTLP requests: what is decoded was weighed before.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|body: &[u8]| pipeline::source::fuzz::otlp(body));
