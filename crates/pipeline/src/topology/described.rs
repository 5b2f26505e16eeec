//! What the topology knows of sources and sinks beside what they say of themselves.

use crate::sink::SinkConfig;
use crate::source::SourceConfig;
use crate::source::file::Format;
use detection::SourceKind;

/// The type of a source, as the file writes it.
pub(crate) fn source_type(config: &SourceConfig) -> &'static str {
    match config {
        SourceConfig::Syslog(_) => "syslog",
        SourceConfig::Otlp(_) => "otlp",
        SourceConfig::Http(_) => "http",
        SourceConfig::File(_) => "file",
        SourceConfig::BadgeCsv(_) => "badge_csv",
    }
}

/// Whether what was not acknowledged is read again after a crash, under the same positions.
pub(crate) fn is_read_again(config: &SourceConfig) -> bool {
    match config {
        SourceConfig::File(_) | SourceConfig::BadgeCsv(_) => true,
        SourceConfig::Syslog(_) | SourceConfig::Otlp(_) | SourceConfig::Http(_) => false,
    }
}

/// How the bytes of a source's events are parsed, where nothing in the topology does.
pub(crate) fn source_kind(config: &SourceConfig) -> SourceKind {
    match config {
        SourceConfig::Syslog(_) => SourceKind::Syslog,
        SourceConfig::File(file) => match file.format {
            Format::Syslog => SourceKind::Syslog,
            Format::Ndjson => SourceKind::Ndjson,
        },
        SourceConfig::Otlp(_) => SourceKind::Otlp,
        SourceConfig::Http(_) => SourceKind::Ndjson,
        SourceConfig::BadgeCsv(_) => SourceKind::Badge,
    }
}

/// The type of a sink, as the file writes it.
pub(crate) fn sink_type(config: &SinkConfig) -> &'static str {
    match config {
        SinkConfig::Webhook(_) => "webhook",
        SinkConfig::Syslog(_) => "syslog",
        SinkConfig::Smtp(_) => "smtp",
        SinkConfig::Otlp(_) => "otlp",
        SinkConfig::Directory(_) => "directory",
        SinkConfig::Parquet(_) => "parquet",
    }
}
