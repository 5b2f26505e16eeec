//! A reader of one JSON object that allocates nothing: it tells every scalar and where it lies.
//!
//! It takes what everyone writes and calls the rest odd, for the full parser to judge. It must never take a text that
//! is not JSON.

use super::item::{Item, Kind, Odd};
use memchr::memchr2;

/// Most nesting; deeper is odd.
const DEPTH_MAX: usize = 16;
/// Most values and containers; more is odd. Below the limits of the full parser.
const VALUES_MAX: usize = 384;
/// Most bytes of a path, its dots included; longer is odd. Below the limit of the full parser.
const PATH_BYTES_MAX: usize = crate::event::NAME_BYTES_MAX - 1;
/// Most values inside arrays; more is odd.
const ELEMENTS_MAX: usize = 192;
/// Most characters of a number that is not a plain one.
const NUMBER_CHARACTERS_MAX: usize = 24;

/// Words of eight bytes in which the end of a text is looked for first.
const NEAR_WORDS: usize = 4;
/// Bytes looked at before a decision: in one step each, many at a time.
const CHUNK_BYTES: usize = 512;

/// The first quote or backslash. Most are near: a word at a time finds these before a call to a faster search is made.
fn end_of_run(bytes: &[u8]) -> Option<usize> {
    const ONES: u64 = u64::from_le_bytes([1; 8]);
    const HIGHS: u64 = u64::from_le_bytes([0x80; 8]);
    let zeros = |word: u64| word.wrapping_sub(ONES) & !word & HIGHS;
    let (words, _) = bytes.as_chunks::<8>();
    for (number, word) in words.iter().take(NEAR_WORDS).enumerate() {
        let word = u64::from_le_bytes(*word);
        // The lowest bit that is set is right; those above it need not be.
        let found = zeros(word ^ (ONES * u64::from(b'"'))) | zeros(word ^ (ONES * u64::from(b'\\')));
        if found != 0 {
            return Some(number * 8 + found.trailing_zeros() as usize / 8);
        }
    }
    let near = words.len().min(NEAR_WORDS) * 8;
    Some(near + memchr2(b'"', b'\\', &bytes[near..])?)
}

/// Who is told.
pub(crate) trait Sink {
    /// A scalar under a dotted path; `array` numbers the outermost array it is in, 0 for none.
    fn scalar(&mut self, path: &str, array: u32, item: Item) -> Result<(), Odd>;
    /// An object or array begins under a path.
    fn container(&mut self, path: &str, array: u32, is_object: bool) -> Result<(), Odd>;
}

/// Escapes of a line that nobody needs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Escapes {
    /// A character is written as its number.
    pub(crate) numbers: bool,
    /// A slash is escaped.
    pub(crate) slashes: bool,
}

/// Reads a line that is one JSON object; items are places in that line.
pub(crate) fn read(line: &str, path: &mut String, sink: &mut impl Sink) -> Result<Escapes, Odd> {
    let bytes = line.as_bytes();
    // Inside strings they must be escaped, and between tokens of one line nobody writes them.
    let is_control = |chunk: &[u8]| chunk.iter().fold(false, |found, byte| found | (*byte < 0x20));
    if bytes.chunks(CHUNK_BYTES).any(is_control) {
        return Err(Odd);
    }
    path.clear();
    let mut reader =
        Reader { line, bytes, at: 0, path, arrays: 0, values: 0, elements: 0, escapes: Escapes::default(), sink };
    reader.space();
    reader.expect(b'{')?;
    reader.object(0, 0)?;
    reader.space();
    if reader.at == bytes.len() { Ok(reader.escapes) } else { Err(Odd) }
}

struct Reader<'a, S> {
    line: &'a str,
    bytes: &'a [u8],
    at: usize,
    path: &'a mut String,
    arrays: u32,
    values: usize,
    elements: usize,
    escapes: Escapes,
    sink: &'a mut S,
}

impl<S: Sink> Reader<'_, S> {
    fn peek(&self) -> u8 {
        self.bytes.get(self.at).copied().unwrap_or(0)
    }

    fn space(&mut self) {
        while self.peek() == b' ' {
            self.at += 1;
        }
    }

    fn expect(&mut self, byte: u8) -> Result<(), Odd> {
        if self.peek() != byte {
            return Err(Odd);
        }
        self.at += 1;
        Ok(())
    }

    /// After the opening brace.
    fn object(&mut self, depth: usize, array: u32) -> Result<(), Odd> {
        self.space();
        if self.peek() == b'}' {
            self.at += 1;
            return Ok(());
        }
        loop {
            self.space();
            self.expect(b'"')?;
            let (start, end, escaped) = self.string()?;
            if escaped || start == end {
                return Err(Odd);
            }
            self.space();
            self.expect(b':')?;
            let outer = self.path.len();
            if outer > 0 {
                self.path.push('.');
            }
            self.path.push_str(&self.line[start..end]);
            if self.path.len() > PATH_BYTES_MAX {
                return Err(Odd);
            }
            self.value(depth + 1, array)?;
            self.path.truncate(outer);
            self.space();
            match self.peek() {
                b',' => self.at += 1,
                b'}' => {
                    self.at += 1;
                    return Ok(());
                }
                _ => return Err(Odd),
            }
        }
    }

    /// After the opening bracket.
    fn array(&mut self, depth: usize, array: u32) -> Result<(), Odd> {
        self.space();
        if self.peek() == b']' {
            self.at += 1;
            return Ok(());
        }
        loop {
            self.elements += 1;
            if self.elements > ELEMENTS_MAX {
                return Err(Odd);
            }
            self.value(depth + 1, array)?;
            self.space();
            match self.peek() {
                b',' => self.at += 1,
                b']' => {
                    self.at += 1;
                    return Ok(());
                }
                _ => return Err(Odd),
            }
        }
    }

    fn value(&mut self, depth: usize, array: u32) -> Result<(), Odd> {
        self.values += 1;
        if depth > DEPTH_MAX || self.values > VALUES_MAX {
            return Err(Odd);
        }
        self.space();
        let item = match self.peek() {
            b'"' => {
                self.at += 1;
                let (start, end, escaped) = self.string()?;
                Item::new(start, end, if escaped { Kind::Escaped } else { Kind::Text })
            }
            b'{' => {
                self.at += 1;
                self.sink.container(self.path, array, true)?;
                return self.object(depth, array);
            }
            b'[' => {
                self.at += 1;
                self.sink.container(self.path, array, false)?;
                let array = if array == 0 {
                    self.arrays += 1;
                    self.arrays
                } else {
                    array
                };
                return self.array(depth, array);
            }
            b't' => self.word("true", Kind::Flag)?,
            b'f' => self.word("false", Kind::Flag)?,
            b'n' => self.word("null", Kind::Null)?,
            _ => self.number()?,
        };
        self.sink.scalar(self.path, array, item)
    }

    fn word(&mut self, word: &str, kind: Kind) -> Result<Item, Odd> {
        let start = self.at;
        self.at += word.len();
        if self.bytes.get(start..self.at) == Some(word.as_bytes()) {
            Ok(Item::new(start, self.at, kind))
        } else {
            Err(Odd)
        }
    }

    /// After the opening quote: where the text begins and ends, and whether it holds escapes.
    fn string(&mut self) -> Result<(usize, usize, bool), Odd> {
        let start = self.at;
        let mut escaped = false;
        loop {
            let rest = self.bytes.get(self.at..).ok_or(Odd)?;
            let place = end_of_run(rest).ok_or(Odd)?;
            if rest[place] == b'"' {
                let end = self.at + place;
                self.at = end + 1;
                return Ok((start, end, escaped));
            }
            escaped = true;
            match rest.get(place + 1) {
                Some(b'"' | b'\\' | b'b' | b'f' | b'n' | b'r' | b't') => self.at += place + 2,
                Some(b'/') => {
                    self.escapes.slashes = true;
                    self.at += place + 2;
                }
                Some(b'u') => {
                    let digits = rest.get(place + 2..place + 6).ok_or(Odd)?;
                    // Half a pair of surrogates needs the other half.
                    let is_half = digits[0] | 0x20 == b'd' && digits[1] >= b'8';
                    if is_half || !digits.iter().all(u8::is_ascii_hexdigit) {
                        return Err(Odd);
                    }
                    self.escapes.numbers = true;
                    self.at += place + 6;
                }
                _ => return Err(Odd),
            }
        }
    }

    fn digits(&mut self) -> usize {
        let start = self.at;
        while self.peek().is_ascii_digit() {
            self.at += 1;
        }
        self.at - start
    }

    fn number(&mut self) -> Result<Item, Odd> {
        let start = self.at;
        let is_negative = self.peek() == b'-';
        self.at += usize::from(is_negative);
        let begins_with_zero = self.peek() == b'0';
        let whole = self.digits();
        if whole == 0 || (begins_with_zero && whole > 1) {
            return Err(Odd);
        }
        let mut kind = if whole > 18 || (is_negative && begins_with_zero) { Kind::Fraction } else { Kind::Number };
        if self.peek() == b'.' {
            self.at += 1;
            kind = Kind::Fraction;
            if self.digits() == 0 {
                return Err(Odd);
            }
        }
        if matches!(self.peek(), b'e' | b'E') || self.at - start > NUMBER_CHARACTERS_MAX {
            return Err(Odd);
        }
        Ok(Item::new(start, self.at, kind))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_quote_or_backslash_is_found_wherever_it_is() {
        // Bytes that differ from those looked for by one bit or by one.
        for other in [b'a', b'!', b'#', b'\'', b'[', b']', 0x7f, 0x80, 0xa2, 0xdc, 0xff] {
            for size in 0..80 {
                let mut bytes = vec![other; size];
                assert_eq!(end_of_run(&bytes), None);
                for place in (0..size).rev() {
                    bytes[place] = if place % 3 == 0 { b'\\' } else { b'"' };
                    assert_eq!(end_of_run(&bytes), Some(place), "{other} {size}");
                }
            }
        }
    }
}
