//! Reads chosen members of JSON objects as raw text, and refuses doubles.
//!
//! Two parsers that read different copies of a doubled key disagree about what a request says, and the one that decides
//! here is not the one that acts upstream. So a chosen key may appear once, in exactly one spelling: escapes are
//! decoded before the comparison, and a key that differs only in case is refused, because some parsers ignore case.

use std::borrow::Cow;

use crate::scan::{Place, Quoted, Scan, ScanFault};

/// Why an object could not be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum FieldFault {
    /// Not JSON, or not an object.
    Syntax(String),
    /// A chosen key twice, or in a second spelling.
    Ambiguous(&'static str),
    /// Nested too deeply.
    TooDeep,
}

impl From<ScanFault> for FieldFault {
    fn from(fault: ScanFault) -> FieldFault {
        match fault {
            ScanFault::Syntax(wanted, at) => FieldFault::Syntax(format!("expected {wanted} at byte {at}")),
            ScanFault::TooDeep => FieldFault::TooDeep,
        }
    }
}

/// The members of `object` named in `names`, in that order.
pub(crate) fn read_fields<'a, const N: usize>(
    object: &'a str,
    names: &'static [&'static str; N],
) -> Result<[Option<&'a str>; N], FieldFault> {
    let mut scan = Scan::of(object);
    let (_, found) = members(object, &mut scan, names, |scan, _| Ok(scan.value()?))?;
    scan.end()?;
    Ok(found.map(|place| place.map(|place| &object[place])))
}

/// Walks over the object that comes next in `text`, and gives the places of the members named in `names`, in that order. `value` walks
/// over a chosen member, of which it is told the number.
pub(crate) fn members<const N: usize>(
    text: &str,
    scan: &mut Scan<'_>,
    names: &'static [&'static str; N],
    mut value: impl FnMut(&mut Scan<'_>, usize) -> Result<Place, FieldFault>,
) -> Result<(Place, [Option<Place>; N]), FieldFault> {
    let mut found = [const { None }; N];
    let whole = scan.object(|scan, key| {
        match chosen(&decoded(text, key)?, names)? {
            None => scan.skip()?,
            Some(at) if found[at].is_none() => found[at] = Some(value(scan, at)?),
            Some(at) => return Err(FieldFault::Ambiguous(names[at])),
        }
        Ok(())
    })?;
    Ok((whole, found))
}

/// The number of the name that a key is. A key that differs in case alone is refused.
fn chosen<const N: usize>(key: &str, names: &'static [&'static str; N]) -> Result<Option<usize>, FieldFault> {
    let Some(at) = names.iter().position(|name| key.eq_ignore_ascii_case(name)) else {
        return Ok(None);
    };
    match key == names[at] {
        true => Ok(Some(at)),
        false => Err(FieldFault::Ambiguous(names[at])),
    }
}

fn decoded<'a>(text: &'a str, key: &Quoted) -> Result<Cow<'a, str>, FieldFault> {
    if !key.escaped {
        return Ok(Cow::Borrowed(&text[key.inner()]));
    }
    let decoded = serde_json::from_str(&text[key.place.clone()]);
    decoded
        .map(Cow::Owned)
        .map_err(|error| FieldFault::Syntax(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chosen_key_may_appear_once_in_one_spelling() {
        const NAMES: [&str; 2] = ["name", "uri"];
        let read = read_fields(r#"{"x":[1,{"name":2}],"name":"a"}"#, &NAMES).unwrap();
        assert_eq!(read, [Some("\"a\""), None]);
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
        for text in ["[]", "{", "{}x", "7", "", r#"{"\ud800":1}"#] {
            assert!(
                matches!(read_fields(text, &NAMES), Err(FieldFault::Syntax(_))),
                "{text}"
            );
        }
    }
}
