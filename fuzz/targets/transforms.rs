//! What the pipeline takes apart, gives names and blacks out: CEF, pairs, syslog, JSON, expressions.
#![no_main]

use detection::SourceKind;
use libfuzzer_sys::fuzz_target;
use pipeline::record::Record;
use pipeline::transform::{Outputs, Transform, TransformConfig};
use std::path::Path;
use std::sync::LazyLock;

const PARSERS: [&str; 5] = [
    "format = 'json'",
    "format = 'syslog'",
    "format = 'cef'",
    "format = 'key_value'",
    "format = 'regex'\npattern = '^(?P<src>[0-9.]+) (?P<user>\\S+) \"(?P<message>[^\"]*)\"'",
];

const NAMES: &str =
    "class = 3002\nactivity = 1\ntime = 'rt'\nmap = { 'user.name' = 'user', 'src_endpoint.ip' = 'src' }";

fn open(text: &str) -> Box<dyn Transform> {
    let config: TransformConfig = toml::from_str(text).expect("the description is sound");
    config.open(Path::new(".")).expect("it opens no file")
}

/// Each parser, and what follows it.
static CHAINS: LazyLock<Vec<Vec<Box<dyn Transform>>>> = LazyLock::new(|| {
    let chain = |parser| {
        let texts = [
            format!("type = 'parse'\n{parser}"),
            "type = 'redact'\nmask = ['user']\npatterns = ['card_number', 'e_mail']".to_owned(),
            format!("type = 'normalise'\n{NAMES}"),
        ];
        texts.iter().map(|text| open(text)).collect()
    };
    PARSERS.into_iter().map(chain).collect()
});

fuzz_target!(|bytes: &[u8]| {
    for chain in CHAINS.iter() {
        let raw = bytes.to_vec().into();
        let source = SourceKind::Syslog;
        let record = Record { source, received_ms: 1_795_467_600_000, position: None, tenant: None, raw, fields: None };
        let mut records = vec![record];
        for transform in chain {
            let mut out = Outputs::default();
            let count = records.len();
            records.drain(..).for_each(|record| transform.apply(record, &mut out));
            assert_eq!(out.passed.len() + out.refused.len(), count);
            records.extend(out.passed.into_iter().map(|(_, record)| record));
        }
    }
});
