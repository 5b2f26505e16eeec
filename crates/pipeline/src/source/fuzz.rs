//! Doors for fuzzing to what only a socket or a followed file reaches otherwise.

/// The body of an OTLP request, read as both forms of it.
pub fn otlp(body: &[u8]) {
    super::otlp::fuzz(body);
}

/// A badge reader's file: its header, then its rows.
pub fn badges(file: &[u8]) {
    super::badge::fuzz(file);
}
