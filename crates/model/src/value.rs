//! Values of fields, and their JSON form.

use crate::limit;
use serde::{Deserialize, Serialize};

/// One value of one field.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Value {
    /// Nothing: the field was set to null.
    Null,
    /// True or false.
    Bool(bool),
    /// A whole number.
    Int(i64),
    /// A finite number.
    Float(f64),
    /// Text.
    Text(String),
    /// Bytes; base64 in JSON.
    Bytes(Vec<u8>),
    /// A moment, in milliseconds since 1970 UTC; a number in JSON.
    Time(i64),
}

/// Why a JSON value is not a value of a field.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ValueError {
    /// The field's kind asks for another JSON type.
    #[error("expected {expected}, found {found}")]
    Kind {
        /// What the field holds.
        expected: &'static str,
        /// What came.
        found: &'static str,
    },
    /// Longer than a value may be.
    #[error("the value has {size_bytes} bytes; {max} are allowed", max = limit::VALUE_BYTES_MAX)]
    TooLarge {
        /// The size that came.
        size_bytes: usize,
    },
    /// Bytes come as base64 (RFC 4648, section 4).
    #[error("bytes must be base64 (RFC 4648, section 4)")]
    NotBase64,
}

impl Value {
    /// The bytes this value counts for, against limits.
    pub fn size_bytes(&self) -> usize {
        match self {
            Self::Null | Self::Bool(_) => 1,
            Self::Int(_) | Self::Float(_) | Self::Time(_) => 8,
            Self::Text(text) => text.len(),
            Self::Bytes(bytes) => bytes.len(),
        }
    }

    /// The JSON form.
    pub fn to_json(&self) -> serde_json::Value {
        use base64::Engine as _;
        match self {
            Self::Null => serde_json::Value::Null,
            Self::Bool(value) => (*value).into(),
            Self::Int(value) | Self::Time(value) => (*value).into(),
            Self::Float(value) => (*value).into(),
            Self::Text(value) => value.as_str().into(),
            Self::Bytes(value) => base64::engine::general_purpose::STANDARD.encode(value).into(),
        }
    }

    /// Reads a JSON value as a value of a field of this kind.
    pub fn from_json(kind: crate::FieldKind, json: &serde_json::Value) -> Result<Self, ValueError> {
        use crate::FieldKind as Kind;
        use base64::Engine as _;
        let wrong = || ValueError::Kind { expected: kind.name(), found: json_name(json) };
        let value = match (kind, json) {
            (_, serde_json::Value::Null) => Self::Null,
            (Kind::Bool, serde_json::Value::Bool(value)) => Self::Bool(*value),
            (Kind::Int, number) => Self::Int(number.as_i64().ok_or_else(wrong)?),
            (Kind::Time, number) => Self::Time(number.as_i64().ok_or_else(wrong)?),
            (Kind::Float, number) => Self::Float(number.as_f64().filter(|n| n.is_finite()).ok_or_else(wrong)?),
            (Kind::Text, serde_json::Value::String(text)) => Self::Text(text.clone()),
            (Kind::Bytes, serde_json::Value::String(text)) => {
                Self::Bytes(base64::engine::general_purpose::STANDARD.decode(text).map_err(|_| ValueError::NotBase64)?)
            }
            _ => return Err(wrong()),
        };
        let size_bytes = value.size_bytes();
        if size_bytes > limit::VALUE_BYTES_MAX {
            return Err(ValueError::TooLarge { size_bytes });
        }
        Ok(value)
    }
}

fn json_name(json: &serde_json::Value) -> &'static str {
    match json {
        serde_json::Value::Null => "null",
        serde_json::Value::Bool(_) => "a boolean",
        serde_json::Value::Number(_) => "a number",
        serde_json::Value::String(_) => "a string",
        serde_json::Value::Array(_) => "an array",
        serde_json::Value::Object(_) => "an object",
    }
}
