//! Standard output: data, and nothing but data. Who reads it may stop reading at any time.

use std::io::Write;

/// Writes bytes. When nobody reads any more, the program ends quietly, as others in a pipe do.
pub(crate) fn bytes(bytes: &[u8]) {
    let mut stdout = std::io::stdout().lock();
    if stdout.write_all(bytes).and_then(|()| stdout.flush()).is_err() {
        std::process::exit(0);
    }
}

/// Writes a line.
pub(crate) fn line(text: &str) {
    bytes(format!("{text}\n").as_bytes());
}
