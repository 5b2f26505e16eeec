//! Where things stand in a rule file: its documents, and the line of a key.

/// A document of a file: the line it begins at, from 1, and its text.
pub(super) fn documents(text: &str) -> Vec<(u32, &str)> {
    let mut documents = Vec::new();
    let (mut start, mut start_line) = (0, 1);
    let (mut place, mut line) = (0, 1);
    for whole in text.split_inclusive('\n') {
        let next = place + whole.len();
        let bare = whole.trim_end();
        if bare == "---" {
            documents.push((start_line, &text[start..place]));
            (start, start_line) = (next, line + 1);
        } else if bare.starts_with("--- ") {
            // The document begins on the same line.
            documents.push((start_line, &text[start..place]));
            (start, start_line) = (place + "--- ".len(), line);
        }
        place = next;
        line += 1;
    }
    documents.push((start_line, &text[start..]));
    documents.retain(|(_, text)| {
        text.lines().any(|line| {
            let line = line.trim();
            // What begins with a percent sign is no document's, but of the file.
            !line.is_empty() && !line.starts_with(['#', '%']) && line != "..."
        })
    });
    documents
}

/// The line, as a line of the file, in which a word first stands as a key or an entry; else where it first stands.
pub(super) fn line_of(document: &str, start_line: u32, word: &str) -> u32 {
    let lines = || document.lines().enumerate().filter(|(_, line)| !line.trim_start().starts_with('#'));
    let as_key = lines().find(|(_, line)| stands_as_key(line, word));
    let place = as_key.or_else(|| lines().find(|(_, line)| line.contains(word))).map(|(place, _)| place);
    start_line + place.and_then(|place| u32::try_from(place).ok()).unwrap_or(0)
}

/// Whether a word begins what stands on a line, or follows a bracket or comma, and nothing belongs to it that comes after.
fn stands_as_key(line: &str, word: &str) -> bool {
    !word.is_empty()
        && line.match_indices(word).any(|(place, _)| {
            let before = line[..place].trim_end_matches(['"', '\'']).trim_end();
            let after = line[place + word.len()..].trim_start_matches(['"', '\'']);
            (before.is_empty() || before.ends_with(['-', '{', '[', ',', '?']))
                && (after.is_empty() || after.starts_with([':', ',', ']', '}']))
        })
}
