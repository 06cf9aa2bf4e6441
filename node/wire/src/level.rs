//! Levels of log messages, and which of them a client wants.

use crate::fields::read_fields;
use crate::message::Message;

/// From the least to the most serious.
const NAMES: [&str; 8] = [
    "debug",
    "info",
    "notice",
    "warning",
    "error",
    "critical",
    "alert",
    "emergency",
];

/// A level of log messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Level(u8);

impl Level {
    /// The level of this name.
    pub fn parse(name: &str) -> Option<Level> {
        let at = NAMES.iter().position(|known| *known == name)?;
        Level::from_number(u8::try_from(at).ok()?)
    }

    /// The level with this number; the inverse of [`Level::number`].
    pub fn from_number(number: u8) -> Option<Level> {
        (usize::from(number) < NAMES.len()).then_some(Level(number))
    }

    /// Its number: a higher one is more serious.
    pub fn number(self) -> u8 {
        self.0
    }

    /// Its name.
    pub fn as_str(self) -> &'static str {
        NAMES[usize::from(self.0)]
    }

    /// All names, for who named none of them.
    pub fn names() -> String {
        NAMES.join(", ")
    }

    /// `params.level`: of a log message, or of the request that sets it.
    pub fn of(message: &Message) -> Option<Level> {
        let [level] = read_fields(message.params()?, &["level"]).ok()?;
        let name = level?.strip_prefix('"')?.strip_suffix('"')?;
        Level::parse(name)
    }
}

/// Which log messages a client wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Logs {
    /// None.
    Off,
    /// It has not said, so the server decides.
    All,
    /// Those of this level and the more serious ones.
    From(Level),
}

impl Logs {
    /// Whether it wants this log message. One whose level is none goes to nobody who has asked for one.
    pub fn want(self, message: &Message) -> bool {
        match self {
            Logs::Off => false,
            Logs::All => true,
            Logs::From(least) => Level::of(message).is_some_and(|level| level >= least),
        }
    }

    /// The level that was asked for.
    pub fn level(self) -> Option<Level> {
        match self {
            Logs::From(level) => Some(level),
            Logs::Off | Logs::All => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    fn log(level: &str) -> Message {
        let text =
            format!(r#"{{"jsonrpc":"2.0","method":"notifications/message","params":{{"level":{level},"data":1}}}}"#);
        Message::read(Bytes::from(text)).unwrap()
    }

    #[test]
    fn a_client_gets_the_level_that_it_asked_for_and_what_is_more_serious() {
        let least = Logs::From(Level::parse("warning").unwrap());
        let wanted: Vec<&str> = NAMES
            .into_iter()
            .filter(|name| least.want(&log(&format!("\"{name}\""))))
            .collect();
        assert_eq!(wanted, ["warning", "error", "critical", "alert", "emergency"]);
        for odd in ["\"loud\"", "7", "null"] {
            assert!(!least.want(&log(odd)) && Logs::All.want(&log(odd)), "{odd}");
        }
        assert!(!Logs::Off.want(&log("\"emergency\"")));
    }

    #[test]
    fn levels_are_numbered_as_they_are_named() {
        for name in NAMES {
            let level = Level::parse(name).unwrap();
            assert_eq!(
                (level.as_str(), Level::from_number(level.number())),
                (name, Some(level))
            );
        }
        assert_eq!((Level::parse("Info"), Level::from_number(8)), (None, None));
    }
}
