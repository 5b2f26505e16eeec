//! Segments of disk buffers, damaged: each record that is whole is found.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (Vec<&[u8]>, Vec<(u16, u8)>)| pipeline::buffer::fuzz(&input.0, &input.1));
