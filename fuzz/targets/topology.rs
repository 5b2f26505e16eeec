//! Topologies of the pipeline, and how they are drawn.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pipeline::topology::Topology;
use pipeline::topology::graph::{Format, draw};

fuzz_target!(|text: &str| {
    let (topology, findings) = Topology::read("fuzz.toml", text, ".".into());
    if findings.is_empty() {
        draw(&topology, Format::Mermaid);
    }
});
