//! The modifiers of one key, told apart. A modifier that would have no effect beside the others is an error.

use crate::sigma::encode::{ENCODINGS_MAX, Encoding};
use crate::sigma::error::Reason;
use crate::sigma::matcher::{Order, Part};
use crate::sigma::moment::MomentPart;

/// The modifiers of one key.
#[derive(Debug, Default)]
pub(super) struct Modifiers {
    pub(super) part: Option<Part>,
    pub(super) all: bool,
    pub(super) cased: bool,
    pub(super) negated: bool,
    /// The flags of a regular expression.
    pub(super) regex: Option<String>,
    pub(super) windash: bool,
    pub(super) expand: bool,
    pub(super) encodings: Vec<Encoding>,
    pub(super) special: Option<Special>,
    pub(super) moment: Option<MomentPart>,
}

/// What is no comparison of texts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Special {
    Cidr,
    Exists,
    FieldReference,
    Compare(Order),
}

fn conflict(modifier: &str) -> Reason {
    Reason::ModifierConflict { modifier: modifier.to_owned() }
}

impl Modifiers {
    pub(super) fn read<'a>(words: impl Iterator<Item = &'a str>) -> Result<Self, Reason> {
        let mut modifiers = Self::default();
        for word in words {
            modifiers.take(word)?;
        }
        match modifiers.without_effect() {
            Some(word) => Err(conflict(word)),
            None => Ok(modifiers),
        }
    }

    fn take(&mut self, word: &str) -> Result<(), Reason> {
        // What changes the text must stand before what encodes it.
        let is_encoded = !self.encodings.is_empty();
        let is_new = match word {
            "contains" => self.part.replace(Part::Anywhere).is_none(),
            "startswith" => self.part.replace(Part::Start).is_none(),
            "endswith" => self.part.replace(Part::End).is_none(),
            "all" => !std::mem::replace(&mut self.all, true),
            "cased" => !std::mem::replace(&mut self.cased, true),
            "neq" => !std::mem::replace(&mut self.negated, true),
            "windash" => !std::mem::replace(&mut self.windash, true) && !is_encoded,
            "expand" => !std::mem::replace(&mut self.expand, true) && !is_encoded,
            "re" => self.regex.replace(String::new()).is_none(),
            "i" | "m" | "s" => {
                let flags = self.regex.as_mut().filter(|flags| !flags.contains(word));
                flags.map(|flags| flags.push_str(word)).is_some()
            }
            "cidr" => self.special.replace(Special::Cidr).is_none(),
            "exists" => self.special.replace(Special::Exists).is_none(),
            "fieldref" => self.special.replace(Special::FieldReference).is_none(),
            "gt" => self.special.replace(Special::Compare(Order::Greater)).is_none(),
            "gte" => self.special.replace(Special::Compare(Order::GreaterOrEqual)).is_none(),
            "lt" => self.special.replace(Special::Compare(Order::Less)).is_none(),
            "lte" => self.special.replace(Special::Compare(Order::LessOrEqual)).is_none(),
            other => match (MomentPart::from_modifier(other), Encoding::from_modifier(other)) {
                (Some(moment), _) => self.moment.replace(moment).is_none(),
                (None, Some(encoding)) => {
                    self.encodings.push(encoding);
                    self.encodings.len() <= ENCODINGS_MAX
                }
                (None, None) => return Err(Reason::UnknownModifier { modifier: other.to_owned() }),
            },
        };
        if is_new { Ok(()) } else { Err(conflict(word)) }
    }

    /// A modifier that would change nothing beside the others.
    fn without_effect(&self) -> Option<&'static str> {
        let is_text = self.special.is_none() && self.moment.is_none();
        let refers = self.special == Some(Special::FieldReference) && self.moment.is_none();
        let compares = matches!(self.special, None | Some(Special::Compare(_)));
        let is_value = matches!(self.special, None | Some(Special::Cidr | Special::FieldReference));
        let is_regex = self.regex.is_some();
        let ignores_case = self.regex.as_ref().is_some_and(|flags| flags.contains('i'));
        let wrong = [
            ("re", is_regex && (!is_text || self.part.is_some() || !self.encodings.is_empty() || self.windash)),
            ("contains", self.part.is_some() && !is_text && !refers),
            ("a part of a time", self.moment.is_some() && !compares),
            ("an encoding", !self.encodings.is_empty() && !is_text),
            ("windash", self.windash && !is_text),
            ("cased", self.cased && (!is_text && !refers || ignores_case)),
            ("expand", self.expand && (!is_value || self.moment.is_some())),
            ("all", self.all && (self.negated || self.special == Some(Special::Exists))),
        ];
        wrong.into_iter().find(|(_, is_wrong)| *is_wrong).map(|(word, _)| word)
    }
}
