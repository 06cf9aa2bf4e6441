//! Reads chosen members of one JSON object as raw text, and refuses doubles.
//!
//! Two parsers that read different copies of a doubled key disagree about what a request says, and the one that decides
//! here is not the one that acts upstream. So a chosen key may appear once, in exactly one spelling: escapes are
//! decoded before the comparison, and a key that differs only in case is refused, because some parsers ignore case.

use std::cell::Cell;

use serde::Deserializer as _;
use serde::de::{DeserializeSeed, Error as _, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

/// Why an object could not be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum FieldFault {
    /// Not JSON, or not an object.
    Syntax(String),
    /// A chosen key twice, or in a second spelling.
    Ambiguous(&'static str),
}

/// The members of `object` named in `names`, in that order.
pub(crate) fn read_fields<'a, const N: usize>(
    object: &'a str,
    names: &'static [&'static str; N],
) -> Result<[Option<&'a RawValue>; N], FieldFault> {
    let doubled = Cell::new(None);
    let mut json = serde_json::Deserializer::from_str(object);
    json.deserialize_map(Members {
        names,
        doubled: &doubled,
    })
    .and_then(|members| json.end().map(|()| members))
    .map_err(|error| match doubled.get() {
        Some(name) => FieldFault::Ambiguous(name),
        None => FieldFault::Syntax(error.to_string()),
    })
}

struct Members<'c, const N: usize> {
    names: &'static [&'static str; N],
    doubled: &'c Cell<Option<&'static str>>,
}

impl<'de, const N: usize> Visitor<'de> for Members<'_, N> {
    type Value = [Option<&'de RawValue>; N];

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut found = [None; N];
        while let Some(key) = map.next_key_seed(Key { names: self.names })? {
            match key {
                Found::Other => {
                    map.next_value::<IgnoredAny>()?;
                }
                Found::Exactly(at) if found[at].is_none() => found[at] = Some(map.next_value()?),
                Found::Exactly(at) | Found::OtherCase(at) => {
                    self.doubled.set(Some(self.names[at]));
                    return Err(A::Error::custom("ambiguous key"));
                }
            }
        }
        Ok(found)
    }
}

enum Found {
    Exactly(usize),
    OtherCase(usize),
    Other,
}

struct Key<const N: usize> {
    names: &'static [&'static str; N],
}

impl<'de, const N: usize> DeserializeSeed<'de> for Key<N> {
    type Value = Found;

    fn deserialize<D: serde::Deserializer<'de>>(self, key: D) -> Result<Found, D::Error> {
        key.deserialize_str(self)
    }
}

impl<const N: usize> Visitor<'_> for Key<N> {
    type Value = Found;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E: serde::de::Error>(self, key: &str) -> Result<Found, E> {
        for (at, name) in self.names.iter().enumerate() {
            if key == *name {
                return Ok(Found::Exactly(at));
            }
            if key.eq_ignore_ascii_case(name) {
                return Ok(Found::OtherCase(at));
            }
        }
        Ok(Found::Other)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chosen_key_may_appear_once_in_one_spelling() {
        const NAMES: [&str; 2] = ["name", "uri"];
        let read = read_fields(r#"{"x":[1,{"name":2}],"name":"a"}"#, &NAMES).unwrap();
        assert_eq!(read[0].map(RawValue::get), Some("\"a\""));
        assert!(read[1].is_none());
        let doubled = [
            r#"{"name":"a","name":"b"}"#,
            r#"{"name":"a","na\u006de":"b"}"#,
            r#"{"name":"a","Name":"b"}"#,
            r#"{"NAME":"b"}"#,
        ];
        for text in doubled {
            assert_eq!(
                read_fields(text, &NAMES).unwrap_err(),
                FieldFault::Ambiguous("name"),
                "{text}"
            );
        }
        for text in ["[]", "{", "{}x", "7", ""] {
            assert!(
                matches!(read_fields(text, &NAMES), Err(FieldFault::Syntax(_))),
                "{text}"
            );
        }
    }
}
