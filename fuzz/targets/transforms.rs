//! What the pipeline takes apart: CEF, pairs, syslog, JSON.
#![no_main]

use detection::SourceKind;
use libfuzzer_sys::fuzz_target;
use pipeline::record::Record;
use pipeline::transform::{Outputs, TransformConfig};
use std::path::Path;

fuzz_target!(|bytes: &[u8]| {
    for format in ["json", "syslog", "cef", "key_value"] {
        let config = format!("type = 'parse'\nformat = '{format}'");
        let config: TransformConfig = toml::from_str(&config).expect("the configuration is sound");
        let parse = config.open(Path::new(".")).expect("it opens no file");
        let raw = bytes.to_vec().into();
        let source = SourceKind::Syslog;
        let record = Record { source, received_ms: 1_795_467_600_000, position: None, raw, fields: None };
        let mut out = Outputs::default();
        parse.apply(record, &mut out);
        assert_eq!(out.passed.len() + out.refused.len(), 1);
    }
});
