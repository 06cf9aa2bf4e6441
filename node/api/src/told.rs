//! What the comments of the code say to those who do not read code: in the description of the API, and in `mcpctl explain`.

/// A comment without what is for programmers alone: links, line breaks, and what `Debug` leaves out.
pub fn told(comment: &str) -> String {
    let flat = comment.split_whitespace().collect::<Vec<_>>().join(" ");
    let text = flat.split(" Its `Debug`").next().unwrap_or_default();
    text.replace("[`", "`").replace("`]", "`")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_for_programmers_is_left_out() {
        let comment = "A login ([`LoginRequest`]).\nFor people. Its `Debug` leaves\nthe password out.";
        assert_eq!(told(comment), "A login (`LoginRequest`). For people.");
    }
}
