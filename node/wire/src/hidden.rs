//! Taking secrets out of what is said about servers: where they stand whole, and where the text was cut in the middle of one.

use std::cmp::Reverse;

/// What stands in the place of a secret.
const TAKEN_OUT: &str = "***";
/// Less than this of a secret's beginning, at the end of a text, is taken for chance. Bytes.
const BEGUN_BYTES_MIN: usize = 4;

/// The text without the hidden ones. Texts are cut to a length before they come here (a line of stderr, a refusal), so that the
/// last secret may be there in part.
pub fn take_out(mut text: String, hidden: &[String]) -> String {
    let mut hidden: Vec<&str> = hidden
        .iter()
        .map(String::as_str)
        .filter(|value| !value.is_empty())
        .collect();
    // Where the cut went through a character.
    let end = text.trim_end_matches(char::REPLACEMENT_CHARACTER).len();
    if let Some(begun) = hidden.iter().filter_map(|value| begun(&text[..end], value)).max() {
        text.truncate(end - begun);
        text.push_str(TAKEN_OUT);
    }
    // One may be the beginning of another, whose rest would stay.
    hidden.sort_by_key(|value| Reverse(value.len()));
    for value in &hidden {
        if text.contains(value) {
            text = text.replace(value, TAKEN_OUT);
        }
    }
    text
}

/// How many bytes at the end of the text are the beginning of the value, or all of it; the most if it can be seen in several ways.
fn begun(text: &str, value: &str) -> Option<usize> {
    let lengths = value.char_indices().map(|(at, _)| at).chain([value.len()]);
    let lengths = lengths.take_while(|length| *length <= text.len());
    lengths
        .filter(|length| *length >= BEGUN_BYTES_MIN && text.ends_with(&value[..*length]))
        .max()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_taken_out_whole_and_begun() {
        let hidden = ["hunter2-långer", "hunter2", "", "other-key", "aaaaaaaa"].map(str::to_owned);
        let rows = [
            ("nothing to see", "nothing to see"),
            ("a hunter2 b hunter2", "a *** b ***"),
            ("the longer hunter2-långer goes whole", "the longer *** goes whole"),
            ("cut in hunter2-l", "cut in ***"),
            ("cut in hunter2-l\u{fffd}", "cut in ***"),
            ("cut in hunte", "cut in ***"),
            ("cut in other-ke", "cut in ***"),
            ("aaaaaaaa", "***"),
            ("no more than hun", "no more than hun"),
            ("hunte not at the end", "hunte not at the end"),
        ];
        for (text, left) in rows {
            assert_eq!(take_out(text.to_owned(), &hidden), left, "{text}");
        }
    }
}
