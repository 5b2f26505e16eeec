//! Functions of our own: what a field of an event is, and whether it fits a pattern.
//!
//! `field(fields, 'src_endpoint.port')` is its text; `matches(fields, 'user.name', 'adm*')` compares as Sigma does,
//! without regard to case, any element of a list; `in_network(src_address, '10.0.0.0/8')` asks for a network.

use datafusion::arrow::array::{Array as _, ArrayRef, AsArray as _, BooleanArray, StringArray};
use datafusion::arrow::datatypes::DataType;
use datafusion::common::{DataFusionError, Result, ScalarValue};
use datafusion::logical_expr::{
    ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, TypeSignature, Volatility,
};
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::Value;
use std::borrow::Cow;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

/// Every function of ours.
pub(super) fn all() -> Vec<Arc<ScalarUDF>> {
    [field(), matches(), in_network()].map(Arc::new).to_vec()
}

/// `field(fields, name)`.
pub(super) fn field() -> ScalarUDF {
    ScalarUDF::from(Function::new(Kind::Field, 2))
}
/// `matches(fields, name, pattern)`.
pub(super) fn matches() -> ScalarUDF {
    ScalarUDF::from(Function::new(Kind::Matches, 3))
}
/// `in_network(address, network)`.
pub(super) fn in_network() -> ScalarUDF {
    ScalarUDF::from(Function::new(Kind::InNetwork, 2))
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Kind {
    Field,
    Matches,
    InNetwork,
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Function {
    kind: Kind,
    signature: Signature,
}

impl Function {
    fn new(kind: Kind, arguments: usize) -> Self {
        let signature = Signature::new(TypeSignature::Exact(vec![DataType::Utf8; arguments]), Volatility::Immutable);
        Self { kind, signature }
    }
}

fn constant(value: &ColumnarValue) -> Result<String> {
    match value {
        ColumnarValue::Scalar(scalar) => match scalar.try_as_str() {
            Some(Some(text)) => Ok(text.to_owned()),
            _ => Err(DataFusionError::Plan("a name or pattern is missing".into())),
        },
        ColumnarValue::Array(_) => Err(DataFusionError::Plan("names and patterns must be constants".into())),
    }
}

impl ScalarUDFImpl for Function {
    fn name(&self) -> &str {
        match self.kind {
            Kind::Field => "field",
            Kind::Matches => "matches",
            Kind::InNetwork => "in_network",
        }
    }
    fn signature(&self) -> &Signature {
        &self.signature
    }
    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(if self.kind == Kind::Field { DataType::Utf8 } else { DataType::Boolean })
    }
    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let [subject, others @ ..] = args.args.as_slice() else {
            return Err(DataFusionError::Plan("arguments are missing".into()));
        };
        let single = matches!(subject, ColumnarValue::Scalar(_));
        let subject = subject.to_array(if single { 1 } else { args.number_rows })?;
        let texts = subject.as_string_opt::<i32>().ok_or_else(|| DataFusionError::Plan("not a text".into()))?;
        let others = others.iter().map(constant).collect::<Result<Vec<String>>>()?;
        let result: ArrayRef = match (self.kind, others.as_slice()) {
            (Kind::Field, [name]) => {
                let finder = Finder::new(name);
                Arc::new(texts.iter().map(|text| finder.text(text?)).collect::<StringArray>())
            }
            (Kind::Matches, [name, pattern]) => {
                let (finder, pattern) = (Finder::new(name), Pattern::new(pattern));
                let judge = |text: Option<&str>| finder.value(text?).map(|value| pattern.fits_any(&value));
                Arc::new(texts.iter().map(judge).collect::<BooleanArray>())
            }
            (Kind::InNetwork, [network]) => {
                let network = Network::parse(network)
                    .ok_or_else(|| DataFusionError::Plan(format!("'{network}' is not a network like 10.0.0.0/8")))?;
                let judge = |text: Option<&str>| text?.parse().ok().map(|address| network.has(address));
                Arc::new(texts.iter().map(judge).collect::<BooleanArray>())
            }
            _ => return Err(DataFusionError::Plan("the wrong number of arguments".into())),
        };
        if single && !result.is_empty() {
            return Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(&result, 0)?));
        }
        Ok(ColumnarValue::Array(result))
    }
}

/// Finds one field in the JSON of all.
struct Finder {
    name: String,
    quoted: String,
}

impl Finder {
    fn new(name: &str) -> Self {
        Self { name: name.to_owned(), quoted: Value::from(name).to_string() }
    }
    fn value(&self, fields: &str) -> Option<Value> {
        // Most events do not have most fields: no need to parse them.
        if !fields.contains(&self.quoted) {
            return None;
        }
        let mut parser = serde_json::Deserializer::from_str(fields);
        Field(&self.name).deserialize(&mut parser).ok().flatten()
    }
    fn text(&self, fields: &str) -> Option<String> {
        match self.value(fields)? {
            Value::Null => None,
            Value::String(text) => Some(text),
            other => Some(other.to_string()),
        }
    }
}

/// Reads an object and keeps one of its values.
struct Field<'a>(&'a str);

impl<'de> DeserializeSeed<'de> for Field<'_> {
    type Value = Option<Value>;
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Field<'_> {
    type Value = Option<Value>;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut found = None;
        while let Some(key) = map.next_key::<Cow<'de, str>>()? {
            if key == self.0 {
                found = Some(map.next_value()?);
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(found)
    }
}

/// A text in which `*` is any text and `?` any character; case does not matter.
struct Pattern(Vec<char>);

impl Pattern {
    fn new(text: &str) -> Self {
        Self(text.to_lowercase().chars().collect())
    }
    fn fits_any(&self, value: &Value) -> bool {
        match value {
            Value::String(text) => self.fits(text),
            Value::Array(values) => values.iter().any(|value| !value.is_array() && self.fits_any(value)),
            other => self.fits(&other.to_string()),
        }
    }
    /// In time of at most the product of both lengths.
    fn fits(&self, text: &str) -> bool {
        let text: Vec<char> = text.to_lowercase().chars().collect();
        let (mut place, mut at, mut retry) = (0, 0, None);
        while at < text.len() {
            match self.0.get(place) {
                Some('*') => {
                    retry = Some((place + 1, at));
                    place += 1;
                }
                Some(wanted) if *wanted == '?' || *wanted == text[at] => (place, at) = (place + 1, at + 1),
                _ => match retry {
                    Some((after, from)) => {
                        (place, at) = (after, from + 1);
                        retry = Some((after, from + 1));
                    }
                    None => return false,
                },
            }
        }
        self.0[place..].iter().all(|rest| *rest == '*')
    }
}

/// A network: an address and how many of its first bits count.
struct Network {
    address: IpAddr,
    bits: u32,
}

impl Network {
    fn parse(text: &str) -> Option<Self> {
        let (address, bits) = text.split_once('/')?;
        let (address, bits): (IpAddr, u32) = (address.parse().ok()?, bits.parse().ok()?);
        (bits <= if address.is_ipv4() { 32 } else { 128 }).then_some(Self { address, bits })
    }
    fn has(&self, address: IpAddr) -> bool {
        match (self.address, address) {
            (IpAddr::V4(one), IpAddr::V4(other)) => {
                (one.to_bits() ^ other.to_bits()).checked_shr(32 - self.bits).unwrap_or(0) == 0
            }
            (IpAddr::V6(one), IpAddr::V6(other)) => {
                (one.to_bits() ^ other.to_bits()).checked_shr(128 - self.bits).unwrap_or(0) == 0
            }
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn patterns_compare_as_sigma_does() {
        for (pattern, text, fits) in [
            ("adm*", "Administrator", true),
            ("*SH?", "/bin/shx", true),
            ("a?c", "ac", false),
            ("", "", true),
            ("*", "", true),
            ("ab", "abc", false),
            ("*a*b*", "xxaxxbxx", true),
        ] {
            assert_eq!(Pattern::new(pattern).fits(text), fits, "{pattern} on {text}");
        }
    }

    #[test]
    fn a_field_is_found_however_it_is_written() {
        let fields = r#"{"a.b":"x","list":["One",2],"n":5,"u":null,"wanted":"\"n\":"}"#;
        assert_eq!(Finder::new("n").text(fields).as_deref(), Some("5"));
        assert_eq!(Finder::new("u").text(fields), None);
        assert_eq!(Finder::new("missing").text(fields), None);
        let list = Finder::new("list").value(fields).unwrap();
        assert!(Pattern::new("one").fits_any(&list) && Pattern::new("2").fits_any(&list));
    }

    #[test]
    fn networks_have_their_addresses() {
        let has = |network: &str, address: &str| Network::parse(network).unwrap().has(address.parse().unwrap());
        assert!(has("10.0.0.0/8", "10.255.0.1") && !has("10.0.0.0/8", "11.0.0.1"));
        assert!(has("0.0.0.0/0", "1.2.3.4") && has("::/0", "::1") && !has("::/0", "1.2.3.4"));
        assert!(has("2001:db8::/32", "2001:db8::1") && !has("2001:db8::/32", "2001:db9::1"));
        assert!(Network::parse("10.0.0.0/33").is_none());
    }

    proptest! {
        #[test]
        fn arbitrary_texts_never_panic(name in "\\PC{0,12}", fields in "\\PC{0,80}", pattern in "[a*?]{0,12}", text in "[aA]{0,20}") {
            let _ = Finder::new(&name).value(&fields);
            let _ = Network::parse(&text);
            let regex = regex_of(&pattern);
            prop_assert_eq!(Pattern::new(&pattern).fits(&text), regex_fits(&regex, &text.to_lowercase()));
        }
    }

    fn regex_of(pattern: &str) -> Vec<char> {
        pattern.chars().collect()
    }
    /// The plain recursive meaning of a pattern.
    fn regex_fits(pattern: &[char], text: &str) -> bool {
        match (pattern.first(), text.chars().next()) {
            (None, None) => true,
            (None, Some(_)) => false,
            (Some('*'), next) => {
                regex_fits(&pattern[1..], text) || next.is_some_and(|c| regex_fits(pattern, &text[c.len_utf8()..]))
            }
            (Some(_), None) => false,
            (Some(wanted), Some(c)) => {
                (*wanted == '?' || *wanted == c) && regex_fits(&pattern[1..], &text[c.len_utf8()..])
            }
        }
    }
}
