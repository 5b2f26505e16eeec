//! What a document's aliases make of it, counted before anything is made.
//!
//! The parser bounds how often aliases are followed, but not what each of them holds: a list of 10,000 aliases of a list
//! of 10,000 would be made whole, in gigabytes, of a file of some kilobytes.

use crate::sigma::Reason;
use serde::de::{
    DeserializeSeed, Deserializer, EnumAccess, Error, IgnoredAny, MapAccess, SeqAccess, VariantAccess, Visitor,
};
use std::cell::Cell;
use std::fmt;

/// What a value weighs beside its text.
const VALUE_WEIGHT: usize = 64;

/// Opening brackets of one text: the parser's time grows with the square of how deep they nest, and how deep that is
/// only a parser knows.
const BRACKETS_MAX: usize = 20_000;

/// Refuses a text whose aliases make more of it than `weight_max`, or that may nest too deep to be read in time. What is wrong with it otherwise is not looked for.
pub(crate) fn weigh(text: &str, weight_max: usize) -> Result<(), Reason> {
    if text.bytes().filter(|byte| matches!(byte, b'[' | b'{')).count() > BRACKETS_MAX {
        return Err(Reason::TooManyBrackets { max: BRACKETS_MAX });
    }
    // Without an anchor and an alias nothing grows.
    if !text.contains('&') || !text.contains('*') {
        return Ok(());
    }
    let left = Cell::new(weight_max);
    let _ = Weigher(&left).deserialize(serde_yaml_ng::Deserializer::from_str(text));
    if left.get() == 0 { Err(Reason::TooLarge) } else { Ok(()) }
}

/// Takes the weight of a value, and of all in it, from what is left; zero is an error.
#[derive(Clone, Copy)]
struct Weigher<'a>(&'a Cell<usize>);

impl Weigher<'_> {
    fn take<E: Error>(self, text_bytes: usize) -> Result<(), E> {
        self.0.set(self.0.get().saturating_sub(VALUE_WEIGHT + text_bytes));
        if self.0.get() == 0 { Err(E::custom("too large")) } else { Ok(()) }
    }
}

impl<'de> DeserializeSeed<'de> for Weigher<'_> {
    type Value = ();
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Weigher<'_> {
    type Value = ();
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("anything")
    }
    fn visit_bool<E: Error>(self, _: bool) -> Result<(), E> {
        self.take(0)
    }
    fn visit_i64<E: Error>(self, _: i64) -> Result<(), E> {
        self.take(0)
    }
    fn visit_u64<E: Error>(self, _: u64) -> Result<(), E> {
        self.take(0)
    }
    fn visit_i128<E: Error>(self, _: i128) -> Result<(), E> {
        self.take(0)
    }
    fn visit_u128<E: Error>(self, _: u128) -> Result<(), E> {
        self.take(0)
    }
    fn visit_f64<E: Error>(self, _: f64) -> Result<(), E> {
        self.take(0)
    }
    fn visit_str<E: Error>(self, text: &str) -> Result<(), E> {
        self.take(text.len())
    }
    fn visit_unit<E: Error>(self) -> Result<(), E> {
        self.take(0)
    }
    fn visit_none<E: Error>(self) -> Result<(), E> {
        self.take(0)
    }
    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut values: A) -> Result<(), A::Error> {
        self.take(0)?;
        while values.next_element_seed(self)?.is_some() {}
        Ok(())
    }
    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<(), A::Error> {
        self.take(0)?;
        while fields.next_key_seed(self)?.is_some() {
            fields.next_value_seed(self)?;
        }
        Ok(())
    }
    fn visit_enum<A: EnumAccess<'de>>(self, tagged: A) -> Result<(), A::Error> {
        let (_, value) = tagged.variant::<IgnoredAny>()?;
        value.newtype_variant_seed(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_refused(text: &str) -> bool {
        weigh(text, 1024 * 1024) == Err(Reason::TooLarge)
    }

    #[test]
    fn what_aliases_make_large_is_refused_and_what_they_do_not_is_read() {
        let ones = vec!["1"; 4_000].join(",");
        let many = vec!["*a"; 4_000].join(",");
        assert!(is_refused(&format!("x: &a [{ones}]\ny: [{many}]\n")));
        assert!(is_refused(&format!("x: &a {}\ny: [{many}]\n", "a".repeat(4_000))), "also where it is one text");
        assert!(is_refused(&format!("x: &a [{ones}]\ny: !tag [{many}]\n")), "also under a tag");
        assert!(is_refused(&format!("x: &a {{k: [{ones}]}}\n? [{many}]\n: 1\n")), "also in a key");
        assert!(!is_refused(&format!("x: &a [{ones}]\ny: *a\nz: 'a & b * c'\n")));
        assert!(!is_refused("x: &a [*a, *b\n"), "what is no YAML is for the parser to say");
    }
}
