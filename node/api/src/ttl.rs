//! How long a token lives, as people write it: `30d`, `12h`, `45m`, `90s`, `never`, or a date.

use crate::parse_time;

/// Longest life that can be given in a number of units: a hundred years.
const LIFE_MS_MAX: u64 = 100 * 365 * 86_400_000;

/// Why a text is no life time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TtlError {
    /// It is neither a number with a unit nor a date.
    Shape,
    /// It is zero or more than a hundred years.
    Range,
}

impl std::fmt::Display for TtlError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            TtlError::Shape => "write 30d, 12h, 45m, never, or a date such as 2027-01-31",
            TtlError::Range => "a life time lies between one second and a hundred years",
        })
    }
}

impl std::error::Error for TtlError {}

/// When something made at `now_ms` with this life time ends, ms since 1970; `None`: never.
pub fn expiry(ttl: &str, now_ms: u64) -> Result<Option<u64>, TtlError> {
    let ttl = ttl.trim();
    if ttl == "never" {
        return Ok(None);
    }
    if let Some(at) = parse_time(ttl) {
        return Ok(Some(at));
    }
    let unit_ms = match ttl.chars().last() {
        Some('d') => 86_400_000,
        Some('h') => 3_600_000,
        Some('m') => 60_000,
        Some('s') => 1_000,
        Some(_) | None => return Err(TtlError::Shape),
    };
    let digits = &ttl[..ttl.len() - 1];
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return Err(TtlError::Shape);
    }
    let count: u64 = digits.parse().map_err(|_| TtlError::Range)?;
    let life_ms = count.checked_mul(unit_ms).filter(|ms| (1..=LIFE_MS_MAX).contains(ms));
    Ok(Some(now_ms.saturating_add(life_ms.ok_or(TtlError::Range)?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn life_times_are_read() {
        let now = 1_000;
        let cases = [
            ("never", Ok(None)),
            ("30d", Ok(Some(now + 30 * 86_400_000))),
            ("12h", Ok(Some(now + 12 * 3_600_000))),
            (" 5m ", Ok(Some(now + 300_000))),
            ("1s", Ok(Some(now + 1_000))),
            ("1970-01-02", Ok(Some(86_400_000))),
            ("1970-01-02T00:00:01Z", Ok(Some(86_401_000))),
            ("0d", Err(TtlError::Range)),
            ("99999999999999999999d", Err(TtlError::Range)),
            ("40000d", Err(TtlError::Range)),
            ("d", Err(TtlError::Shape)),
            ("-1d", Err(TtlError::Shape)),
            ("1.5h", Err(TtlError::Shape)),
            ("30", Err(TtlError::Shape)),
            ("", Err(TtlError::Shape)),
            ("30 days", Err(TtlError::Shape)),
            ("5é", Err(TtlError::Shape)),
        ];
        for (text, expected) in cases {
            assert_eq!(expiry(text, now), expected, "{text:?}");
        }
    }
}
