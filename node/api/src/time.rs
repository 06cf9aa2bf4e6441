//! Times: milliseconds since 1970 inside, RFC 3339 in UTC outside.

use jiff::Timestamp;
use jiff::tz::TimeZone;

/// A time as bodies carry it: `2026-11-23T04:00:00Z`, with milliseconds where there are some.
pub fn show_time(ms: u64) -> String {
    let signed = i64::try_from(ms).unwrap_or(i64::MAX);
    Timestamp::from_millisecond(signed).map_or_else(|_| ms.to_string(), |t| t.to_string())
}

/// Reads a time: RFC 3339, or a date alone, which means its beginning in UTC. `None` if it is neither, or before 1970.
pub fn parse_time(text: &str) -> Option<u64> {
    let time = text.parse::<Timestamp>().ok().or_else(|| midnight(text))?;
    u64::try_from(time.as_millisecond()).ok()
}

fn midnight(text: &str) -> Option<Timestamp> {
    let date: jiff::civil::Date = (text.len() == 10).then(|| text.parse().ok())??;
    Some(date.to_zoned(TimeZone::UTC).ok()?.timestamp())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_read_back() {
        assert_eq!(show_time(1_700_000_000_000), "2023-11-14T22:13:20Z");
        for ms in [0, 1_700_000_000_000, 1_700_000_000_123] {
            assert_eq!(parse_time(&show_time(ms)), Some(ms));
        }
        assert_eq!(parse_time("1970-01-02"), Some(86_400_000));
        assert_eq!(parse_time("1970-01-01T01:00:00+01:00"), Some(0));
        for bad in ["", "soon", "1969-12-31", "1970-13-01", "12"] {
            assert_eq!(parse_time(bad), None, "{bad}");
        }
    }
}
