//! Bearers: what a client holds, and the hash that is all we keep of it.

use std::fmt;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use crate::ids::Id;

/// What every MCP token begins with.
pub const TOKEN_PREFIX: &str = "mcpctl_pat_";
/// What every session bearer begins with. The gateway never takes one of these.
pub const SESSION_PREFIX: &str = "mcpctl_ses_";
/// What every join token begins with.
pub const JOIN_PREFIX: &str = "mcpctl_join_";
/// What every setup secret begins with.
pub const SETUP_PREFIX: &str = "mcpctl_setup_";
/// Base62 digits that hold 32 bytes (62^43 > 2^256), zero-padded, so that every bearer has the same length.
const DIGITS: usize = 43;
const ALPHABET: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// SHA-256 of a bearer: the only form of it that is stored, logged or sent between replicas.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct TokenHash(pub [u8; 32]);

impl TokenHash {
    /// The hash of a bearer as it stands on the wire.
    pub fn of(bearer: &str) -> TokenHash {
        TokenHash(Sha256::digest(bearer.as_bytes()).into())
    }

    /// Half of the hash as an id: what a session is called by where its hash would say too much.
    pub fn short_id(&self) -> Id {
        let (first, _) = self.0.split_at(16);
        Id::from_slice(first).expect("16 bytes are an id")
    }

    /// Compares in a time that does not depend on where the two differ.
    pub fn same_as(&self, other: &TokenHash) -> bool {
        let mut differ = 0;
        for (ours, theirs) in self.0.as_chunks::<8>().0.iter().zip(other.0.as_chunks::<8>().0) {
            differ |= u64::from_ne_bytes(*ours) ^ u64::from_ne_bytes(*theirs);
        }
        differ.ct_eq(&0).into()
    }

    /// The hash whose 64 hexadecimal digits are `text`.
    pub fn from_hex(text: &str) -> Option<TokenHash> {
        // A number may begin with a plus, a digit may not be one.
        if text.len() != 64 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return None;
        }
        let mut bytes = [0; 32];
        for (byte, pair) in bytes.iter_mut().zip(text.as_bytes().chunks(2)) {
            *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
        }
        Some(TokenHash(bytes))
    }
}

impl fmt::Display for TokenHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for TokenHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

macro_rules! bearer {
    ($(#[$doc:meta])* $name:ident, $prefix:expr) => {
        $(#[$doc])*
        pub struct $name(Zeroizing<String>);

        impl $name {
            /// Makes the bearer that carries these 32 random bytes.
            pub fn from_bytes(bytes: &[u8; 32]) -> $name {
                $name(Zeroizing::new(format!("{}{}", $prefix, &*base62(bytes))))
            }

            /// Reads a bearer of exactly this kind's shape; anything else is `None`, and nothing is looked up for it.
            pub fn parse(text: &str) -> Option<$name> {
                $name::has_shape(text).then(|| $name(Zeroizing::new(text.to_owned())))
            }

            /// Whether `text` has the prefix, the length and the alphabet of this kind.
            pub fn has_shape(text: &str) -> bool {
                text.strip_prefix($prefix)
                    .is_some_and(|body| body.len() == DIGITS && body.bytes().all(|b| b.is_ascii_alphanumeric()))
            }

            /// What is stored in place of the bearer.
            pub fn hash(&self) -> TokenHash {
                TokenHash::of(&self.0)
            }

            /// The secret itself. Called in the one answer that mints it and where a client sends it.
            pub fn expose(&self) -> &str {
                &self.0
            }

            /// The prefix and four characters: enough for a person to recognise it by, too little to use.
            pub fn shown_prefix(&self) -> String {
                self.0[..$prefix.len() + 4].to_owned()
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}…", $prefix)
            }
        }
    };
}

bearer!(
    /// An MCP token in the clear. It exists where it is minted and where it is parsed, and is wiped when dropped.
    PlainToken,
    TOKEN_PREFIX
);
bearer!(
    /// A session bearer in the clear: what `mcpctl login` gets. Accepted by the API only.
    PlainSession,
    SESSION_PREFIX
);

bearer!(
    /// The secret that sets the first administrator's password, once.
    PlainSetup,
    SETUP_PREFIX
);

/// A join token in the clear: whom to trust (the SHA-256 of the cluster's authority) and the secret that lets one machine in.
pub struct PlainJoin {
    authority: [u8; 32],
    secret: Zeroizing<String>,
}

impl PlainJoin {
    /// The token for a cluster with this authority, with a secret made of these 32 random bytes.
    pub fn new(authority: [u8; 32], secret: &[u8; 32]) -> PlainJoin {
        PlainJoin {
            authority,
            secret: base62(secret),
        }
    }

    /// Reads a token of exactly this shape.
    pub fn parse(text: &str) -> Option<PlainJoin> {
        let (authority, secret) = text.strip_prefix(JOIN_PREFIX)?.split_at_checked(DIGITS)?;
        let right = secret.len() == DIGITS && secret.bytes().all(|b| b.is_ascii_alphanumeric());
        Some(PlainJoin {
            authority: from_base62(authority)?,
            secret: right.then(|| Zeroizing::new(secret.to_owned()))?,
        })
    }

    /// SHA-256 of the authority's certificate (DER). Nothing is sent to anybody who does not stand under it.
    pub fn authority(&self) -> [u8; 32] {
        self.authority
    }

    /// The one-time secret: sent over a connection that was checked against [`PlainJoin::authority`].
    pub fn secret(&self) -> &str {
        &self.secret
    }

    /// What is stored in place of the secret.
    pub fn hash(&self) -> TokenHash {
        TokenHash::of(&self.secret)
    }

    /// The whole token, for the one answer that mints it.
    pub fn expose(&self) -> Zeroizing<String> {
        Zeroizing::new(format!("{JOIN_PREFIX}{}{}", &*base62(&self.authority), &*self.secret))
    }
}

impl fmt::Debug for PlainJoin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{JOIN_PREFIX}…")
    }
}

/// The 32 bytes that [`base62`] wrote; `None` for anything else, a number beyond 32 bytes included.
fn from_base62(text: &str) -> Option<[u8; 32]> {
    if text.len() != DIGITS {
        return None;
    }
    let mut bytes = [0u8; 32];
    for digit in text.bytes() {
        let mut carry = u32::try_from(ALPHABET.iter().position(|a| *a == digit)?).ok()?;
        for byte in bytes.iter_mut().rev() {
            let value = u32::from(*byte) * 62 + carry;
            *byte = u8::try_from(value & 0xff).ok()?;
            carry = value >> 8;
        }
        if carry != 0 {
            return None;
        }
    }
    Some(bytes)
}

/// 32 bytes as 43 base62 digits, most significant first.
fn base62(bytes: &[u8; 32]) -> Zeroizing<String> {
    let mut number = Zeroizing::new(*bytes);
    let mut digits = Zeroizing::new([b'0'; DIGITS]);
    for digit in digits.iter_mut().rev() {
        let mut remainder = 0u32;
        for byte in number.iter_mut() {
            let value = remainder << 8 | u32::from(*byte);
            *byte = u8::try_from(value / 62).expect("a remainder below 62 makes a quotient below 256");
            remainder = value % 62;
        }
        *digit = ALPHABET[usize::try_from(remainder).expect("below 62")];
    }
    Zeroizing::new(digits.iter().map(|b| char::from(*b)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_has_a_fixed_width_and_reads_back() {
        for bytes in [[0u8; 32], [255; 32], [7; 32]] {
            let token = PlainToken::from_bytes(&bytes);
            assert_eq!(token.expose().len(), 11 + 43);
            assert_eq!(PlainToken::parse(token.expose()).unwrap().hash(), token.hash());
        }
        assert!(PlainToken::from_bytes(&[0; 32]).expose().ends_with(&"0".repeat(43)));
        assert_ne!(
            PlainToken::from_bytes(&[1; 32]).hash(),
            PlainToken::from_bytes(&[2; 32]).hash()
        );
    }

    #[test]
    fn the_largest_number_needs_all_digits() {
        // 2^256 - 1 in base 62, computed with another program.
        assert_eq!(
            &PlainToken::from_bytes(&[255; 32]).expose()[11..],
            "yhjskwdA6OZ1AL1YmHWZWm8LLG7HjnuCA2j5rOw8Xp1"
        );
    }

    #[test]
    fn other_shapes_are_refused_unlooked() {
        let good = PlainToken::from_bytes(&[9; 32]);
        let body = &good.expose()[11..];
        let bad = [
            String::new(),
            "mcpctl_pat_".into(),
            format!("mcpctl_pat_{}", &body[1..]),
            format!("mcpctl_pat_{body}0"),
            format!("mcpctl_ses_{body}"),
            format!("MCPCTL_PAT_{body}"),
            format!(" mcpctl_pat_{body}"),
            format!("mcpctl_pat_{}-", &body[1..]),
            format!("mcpctl_pat_{}é", &body[2..]),
        ];
        for text in bad {
            assert!(PlainToken::parse(&text).is_none(), "{text:?}");
        }
        assert!(PlainSession::parse(&format!("mcpctl_ses_{body}")).is_some());
    }

    #[test]
    fn a_join_token_carries_whom_to_trust_and_reads_back() {
        for authority in [[0u8; 32], [255; 32], [7; 32]] {
            let token = PlainJoin::new(authority, &[9; 32]);
            let back = PlainJoin::parse(&token.expose()).unwrap();
            assert_eq!((back.authority(), back.hash()), (authority, token.hash()));
            assert_eq!(format!("{back:?}"), "mcpctl_join_…");
        }
        let good = PlainJoin::new([1; 32], &[9; 32]).expose();
        let beyond = format!("{JOIN_PREFIX}{}{}", "z".repeat(43), "0".repeat(43));
        for bad in [
            "",
            "mcpctl_join_",
            &good[..good.len() - 1],
            &format!("{}0", &*good),
            &beyond,
            &good[1..],
        ] {
            assert!(PlainJoin::parse(bad).is_none(), "{bad}");
        }
    }

    #[test]
    fn debug_shows_nothing_of_the_secret() {
        assert_eq!(format!("{:?}", PlainToken::from_bytes(&[3; 32])), "mcpctl_pat_…");
    }

    #[test]
    fn hashes_read_back_from_hex() {
        let hash = TokenHash::of("x");
        assert_eq!(TokenHash::from_hex(&hash.to_string()), Some(hash));
        assert_eq!(TokenHash::from_hex("zz"), None);
        assert!(hash.same_as(&hash));
        for at in 0..32 {
            let mut other = hash;
            other.0[at] ^= 1;
            assert!(!hash.same_as(&other), "byte {at}");
        }
    }
}
