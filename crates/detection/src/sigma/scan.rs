//! Where things stand in a rule file: its documents, and the line of a key.

/// A document of a file: the line it begins at, from 1, and its text.
pub(super) fn documents(text: &str) -> Vec<(u32, &str)> {
    let mut documents = Vec::new();
    let (mut start, mut start_line) = (0, 1);
    let (mut place, mut line) = (0, 1);
    for whole in text.split_inclusive('\n') {
        let next = place + whole.len();
        let bare = whole.trim_end();
        if bare == "---" || bare.starts_with("--- ") {
            documents.push((start_line, &text[start..place]));
            (start, start_line) = (next, line + 1);
        }
        place = next;
        line += 1;
    }
    documents.push((start_line, &text[start..]));
    documents.retain(|(_, text)| {
        text.lines().any(|line| {
            let line = line.trim();
            !line.is_empty() && !line.starts_with('#') && line != "..."
        })
    });
    documents
}

/// The line of a document's text in which a word first stands, as a line of the file.
pub(super) fn line_of(document: &str, start_line: u32, word: &str) -> u32 {
    let place = document.lines().position(|line| !line.trim_start().starts_with('#') && line.contains(word));
    start_line + place.and_then(|place| u32::try_from(place).ok()).unwrap_or(0)
}
