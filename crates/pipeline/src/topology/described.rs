//! What the topology knows of sources and sinks beside what they say of themselves.

use crate::sink::SinkConfig;
use crate::source::SourceConfig;
use detection::SourceKind;

/// The type of a source, as the file writes it.
pub(crate) fn source_type(config: &SourceConfig) -> &'static str {
    match config {
        SourceConfig::Syslog(_) => "syslog",
    }
}

/// How the bytes of a source's events are parsed, where nothing in the topology does.
pub(crate) fn source_kind(config: &SourceConfig) -> SourceKind {
    match config {
        SourceConfig::Syslog(_) => SourceKind::Syslog,
    }
}

/// The type of a sink, as the file writes it.
pub(crate) fn sink_type(config: &SinkConfig) -> &'static str {
    match config {
        SinkConfig::Directory(_) => "directory",
    }
}
