//! References to secrets in what users write about servers: `${secret:NAME/KEY}`.
//!
//! Where they stand and what they name, no more: values are sealed, and who opens them is the gateway when it connects.

use std::collections::BTreeMap;

use crate::ids::Id;
use crate::names::{Name, NameError};
use crate::records::Transport;

/// What a reference begins with.
pub const REFERENCE: &str = "${secret:";
/// Longest key of a secret's value, in bytes.
pub const KEY_BYTES_MAX: usize = 128;
/// Keys of one secret.
pub const KEYS_MAX: usize = 100;
/// Longest value, in bytes, before it is sealed.
pub const VALUE_BYTES_MAX: usize = 65_536;
/// All sealed values of one secret together, in bytes: one command must hold them.
pub const SEALED_BYTES_MAX: usize = 512 * 1024;

/// A text taken apart.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Piece<'a> {
    /// As it stands.
    Text(&'a str),
    /// The value of a secret.
    Secret {
        /// Which secret.
        name: Name,
        /// Which of its values.
        key: &'a str,
    },
}

/// Why a text that holds [`REFERENCE`] cannot be taken apart.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReferenceError {
    /// There is no `}`.
    #[error("a reference to a secret is not closed: write ${{secret:NAME/KEY}}")]
    Open,
    /// There is no `/`.
    #[error("a reference to a secret names no key: write ${{secret:NAME/KEY}}")]
    NoKey,
    /// The name is none.
    #[error("a reference to a secret: {0}")]
    Name(#[from] NameError),
    /// The key is none.
    #[error("a reference to a secret: a key has 1 to 128 of A-Z, a-z, 0-9, '.', '_' and '-'")]
    Key,
    /// References are resolved in some fields only.
    #[error("a reference to a secret can stand in env, args and headers only")]
    NotHere,
}

/// Whether `key` can name a value of a secret.
pub fn is_key(key: &str) -> bool {
    let good = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
    !key.is_empty() && key.len() <= KEY_BYTES_MAX && key.bytes().all(good)
}

/// What a value is sealed for: this secret and this key, so that sealed bytes moved elsewhere open nothing.
pub fn seal_context(secret: Id, key: &str) -> Vec<u8> {
    let mut context = b"secret ".to_vec();
    context.extend_from_slice(&secret.to_bytes());
    context.extend_from_slice(key.as_bytes());
    context
}

/// Takes a text apart. One without references is one piece.
pub fn pieces(text: &str) -> Result<Vec<Piece<'_>>, ReferenceError> {
    let mut pieces = Vec::new();
    let mut rest = text;
    while let Some((before, reference)) = rest.split_once(REFERENCE) {
        let (inside, after) = reference.split_once('}').ok_or(ReferenceError::Open)?;
        let (name, key) = inside.split_once('/').ok_or(ReferenceError::NoKey)?;
        let name = Name::parse(name)?;
        if !is_key(key) {
            return Err(ReferenceError::Key);
        }
        if !before.is_empty() {
            pieces.push(Piece::Text(before));
        }
        pieces.push(Piece::Secret { name, key });
        rest = after;
    }
    if !rest.is_empty() || pieces.is_empty() {
        pieces.push(Piece::Text(rest));
    }
    Ok(pieces)
}

/// The secrets that a server refers to, each with the field that does so first; or the first field whose references are
/// faulty.
pub fn referred(transport: &Transport) -> Result<BTreeMap<Name, String>, (String, ReferenceError)> {
    let mut found = BTreeMap::new();
    for (field, text) in texts(transport) {
        for piece in pieces(text).map_err(|why| (field.clone(), why))? {
            if let Piece::Secret { name, .. } = piece {
                found.entry(name).or_insert_with(|| field.clone());
            }
        }
    }
    for (field, text) in plain_texts(transport) {
        if text.contains(REFERENCE) {
            return Err((field.to_owned(), ReferenceError::NotHere));
        }
    }
    Ok(found)
}

/// The texts in which references are resolved.
fn texts(transport: &Transport) -> Vec<(String, &str)> {
    let of_map = |field: &str, map| -> Vec<(String, &str)> {
        let map: &BTreeMap<String, String> = map;
        map.iter()
            .map(|(key, value)| (format!("{field}.{key}"), value.as_str()))
            .collect()
    };
    match transport {
        Transport::Stdio { args, env, .. } => {
            let args = args.iter().enumerate();
            let args = args.map(|(at, text)| (format!("args[{at}]"), text.as_str()));
            args.chain(of_map("env", env)).collect()
        }
        Transport::Http { headers, .. } | Transport::Sse { headers, .. } => of_map("headers", headers),
    }
}

/// The texts in which they are not, so that one who expects it is told.
fn plain_texts(transport: &Transport) -> Vec<(&'static str, &str)> {
    match transport {
        Transport::Stdio { command, cwd, .. } => {
            vec![("command", command.as_str()), ("cwd", cwd.as_deref().unwrap_or(""))]
        }
        Transport::Http { url, .. } | Transport::Sse { url, .. } => vec![("url", url.as_str())],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret(name: &str, key: &'static str) -> Piece<'static> {
        let name = Name::parse(name).unwrap();
        Piece::Secret { name, key }
    }

    #[test]
    fn a_text_is_taken_apart_and_nothing_of_it_is_lost() {
        let cases = [
            ("", vec![Piece::Text("")]),
            ("plain $HOME ${x}", vec![Piece::Text("plain $HOME ${x}")]),
            ("${secret:git/token}", vec![secret("git", "token")]),
            (
                "Bearer ${secret:git/api.key}!",
                vec![Piece::Text("Bearer "), secret("git", "api.key"), Piece::Text("!")],
            ),
            ("${secret:a/b}${secret:c/D}", vec![secret("a", "b"), secret("c", "D")]),
        ];
        for (text, expected) in cases {
            assert_eq!(pieces(text), Ok(expected), "{text}");
        }
    }

    #[test]
    fn a_faulty_reference_is_not_taken_for_text() {
        let cases = [
            ("${secret:git/token", ReferenceError::Open),
            ("${secret:git}", ReferenceError::NoKey),
            ("${secret:}", ReferenceError::NoKey),
            ("${secret:Git/token}", ReferenceError::Name(NameError::Shape)),
            ("${secret:/token}", ReferenceError::Name(NameError::Empty)),
            ("${secret:git/}", ReferenceError::Key),
            ("${secret:git/a b}", ReferenceError::Key),
            ("${secret:git/a/b}", ReferenceError::Key),
            (
                "ok ${secret:a/b} ${secret:${secret:a/b}}",
                ReferenceError::Name(NameError::Shape),
            ),
        ];
        for (text, why) in cases {
            assert_eq!(pieces(text), Err(why), "{text}");
        }
    }

    #[test]
    fn references_are_found_where_they_are_resolved_and_refused_elsewhere() {
        let stdio = |command: &str, arg: &str, env: &str| Transport::Stdio {
            command: command.to_owned(),
            args: vec!["-v".to_owned(), arg.to_owned()],
            env: BTreeMap::from([("KEY".to_owned(), env.to_owned())]),
            cwd: None,
        };
        let found = referred(&stdio("git", "${secret:one/k}", "${secret:two/k} ${secret:one/k}")).unwrap();
        let found: Vec<_> = found
            .iter()
            .map(|(name, field)| (name.as_str(), field.as_str()))
            .collect();
        assert_eq!(found, [("one", "args[1]"), ("two", "env.KEY")]);
        let faulty = referred(&stdio("git", "x", "${secret:two}")).unwrap_err();
        assert_eq!(faulty, ("env.KEY".to_owned(), ReferenceError::NoKey));
        let command = referred(&stdio("${secret:one/k}", "x", "y")).unwrap_err();
        assert_eq!(command, ("command".to_owned(), ReferenceError::NotHere));
        let http = Transport::Http {
            url: "http://x/${secret:a/b}".to_owned(),
            headers: BTreeMap::from([("authorization".to_owned(), "Bearer ${secret:a/b}".to_owned())]),
        };
        assert_eq!(
            referred(&http).unwrap_err(),
            ("url".to_owned(), ReferenceError::NotHere)
        );
    }
}
