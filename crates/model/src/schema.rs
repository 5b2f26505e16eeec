//! Tables and their typed fields, each with its own rule of merging.

use crate::{FieldId, TableId, limit};
use serde::{Deserialize, Serialize};

/// What a field holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FieldKind {
    /// True or false.
    Bool,
    /// A 64-bit whole number.
    Int,
    /// A 64-bit floating-point number.
    Float,
    /// UTF-8 text.
    Text,
    /// Bytes (base64 in JSON).
    Bytes,
    /// Milliseconds since 1970 UTC.
    Time,
}

impl FieldKind {
    /// The word used in the API and in errors.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Bool => "bool",
            Self::Int => "int",
            Self::Float => "float",
            Self::Text => "text",
            Self::Bytes => "bytes",
            Self::Time => "time",
        }
    }
}

/// How concurrent writes of a field in several regions become one value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Merge {
    /// The last writer by (HLC, region, sequence) wins; a concurrent loser becomes a conflict.
    #[default]
    Lww,
    /// Increments of all regions add up. Only for `int`.
    Counter,
    /// The largest value wins.
    Max,
    /// The smallest value wins.
    Min,
}

/// One field of a table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Field {
    /// Never reused.
    pub id: FieldId,
    /// Unique in the table.
    pub name: String,
    /// What it holds.
    pub kind: FieldKind,
    /// How regions agree.
    pub merge: Merge,
}

/// One table of a tenant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Table {
    /// Never reused.
    pub id: TableId,
    /// Unique in the tenant.
    pub name: String,
    /// In order of their ids.
    pub fields: Vec<Field>,
    /// Raised by every change of the table.
    pub version: u32,
}

/// Why a table or a name is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SchemaError {
    /// Names are lower-case letters, digits and `_`, starting with a letter.
    #[error("'{name}' is not a name: 1 to {max} of a-z, 0-9, '_' or '-', starting with a letter", max = limit::NAME_BYTES_MAX)]
    Name {
        /// What came, cut to a printable length.
        name: String,
    },
    /// Two fields share a name.
    #[error("field '{name}' is given twice")]
    Duplicate {
        /// The shared name.
        name: String,
    },
    /// A table needs between one and [`limit::FIELDS_MAX`] fields.
    #[error("a table has 1 to {max} fields, not {count}", max = limit::FIELDS_MAX)]
    FieldCount {
        /// What came.
        count: usize,
    },
    /// This merge rule does not fit this kind.
    #[error("field '{name}': merge '{merge}' needs kind {needs}")]
    Merge {
        /// The field.
        name: String,
        /// The rule.
        merge: &'static str,
        /// The kinds it fits.
        needs: &'static str,
    },
}

/// Checks a name of a tenant, table, field or login.
pub fn check_name(name: &str) -> Result<(), SchemaError> {
    let mut bytes = name.bytes();
    let starts_well = bytes.next().is_some_and(|b| b.is_ascii_lowercase());
    let rest_well = bytes.all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_' || b == b'-');
    if starts_well && rest_well && name.len() <= limit::NAME_BYTES_MAX {
        Ok(())
    } else {
        Err(SchemaError::Name { name: name.chars().take(limit::NAME_BYTES_MAX).collect() })
    }
}

impl Table {
    /// The field of this name.
    pub fn field(&self, name: &str) -> Option<&Field> {
        self.fields.iter().find(|field| field.name == name)
    }
    /// The field of this id.
    pub fn field_by_id(&self, id: FieldId) -> Option<&Field> {
        self.fields.iter().find(|field| field.id == id)
    }
    /// Checks names, counts and the fit of merge rules.
    pub fn check(&self) -> Result<(), SchemaError> {
        check_name(&self.name)?;
        if self.fields.is_empty() || self.fields.len() > limit::FIELDS_MAX {
            return Err(SchemaError::FieldCount { count: self.fields.len() });
        }
        for (index, field) in self.fields.iter().enumerate() {
            check_name(&field.name)?;
            if self.fields[..index].iter().any(|other| other.name == field.name) {
                return Err(SchemaError::Duplicate { name: field.name.clone() });
            }
            let numeric = matches!(field.kind, FieldKind::Int | FieldKind::Float | FieldKind::Time);
            let (merge, needs) = match field.merge {
                Merge::Counter if field.kind != FieldKind::Int => ("counter", "int"),
                Merge::Max if !numeric => ("max", "int, float or time"),
                Merge::Min if !numeric => ("min", "int, float or time"),
                _ => continue,
            };
            return Err(SchemaError::Merge { name: field.name.clone(), merge, needs });
        }
        Ok(())
    }
}
