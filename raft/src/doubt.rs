//! A note beside the state of a node that its state is not what the others have, or that nobody can say whether it is.
//!
//! It survives a restart, so that a restart makes nobody trusted. A state that differs is set aside when the node starts again and made anew
//! from what the node has: its newest snapshot and its log. If it differs once more, the snapshot was no better, and the node comes
//! back as one that has nothing of its own: see [`crate::recover`]. The note goes when a comparison says that the state is right.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

const FILE: &str = "state.doubted";
const BESIDE: &str = "state.doubted.tmp";

/// What stands in the note.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Doubt {
    /// Replicas differ, and there is no majority for any of their states.
    Disputed,
    /// The majority has another state than this node.
    Differs,
    /// It had, and the state was made anew since.
    Rebuilt,
    /// It had, and the state that was made anew is another one too.
    Again,
}

impl Doubt {
    /// What is noted in a data directory. What cannot be read is a doubt all the same.
    pub(crate) fn load(dir: &Path) -> Option<Doubt> {
        match fs::read_to_string(dir.join(FILE)) {
            Ok(text) => Some(Doubt::read(&text)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => {
                tracing::warn!(file = FILE, %error, "a note about the state cannot be read: the state is doubted");
                Some(Doubt::Disputed)
            }
        }
    }

    /// What a note says. One that says nothing known makes nobody throw a state away.
    pub(crate) fn read(text: &str) -> Doubt {
        match text.trim_end() {
            "differs" => Doubt::Differs,
            "rebuilt" => Doubt::Rebuilt,
            "differs again" => Doubt::Again,
            _ => Doubt::Disputed,
        }
    }

    fn text(self) -> &'static str {
        match self {
            Doubt::Disputed => "disputed",
            Doubt::Differs => "differs",
            Doubt::Rebuilt => "rebuilt",
            Doubt::Again => "differs again",
        }
    }

    /// Notes it.
    pub(crate) fn save(self, dir: &Path) -> io::Result<()> {
        let (file, beside) = (dir.join(FILE), dir.join(BESIDE));
        let mut out = File::create(&beside)?;
        writeln!(out, "{}", self.text())?;
        out.sync_all()?;
        fs::rename(&beside, &file)?;
        File::open(dir)?.sync_all()
    }

    /// Takes the note away.
    pub(crate) fn forget(dir: &Path) -> io::Result<()> {
        match fs::remove_file(dir.join(FILE)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => File::open(dir)?.sync_all(),
        }
    }

    /// What is to be noted when a state is found to differ that was noted as `before`.
    pub(crate) fn differs_after(before: Option<Doubt>) -> Doubt {
        match before {
            Some(Doubt::Rebuilt | Doubt::Again) => Doubt::Again,
            Some(Doubt::Differs | Doubt::Disputed) | None => Doubt::Differs,
        }
    }

    /// Why a node that starts with this note admits nobody.
    pub(crate) fn why(self) -> &'static str {
        match self {
            Doubt::Disputed => {
                "replicas differed and none of their states had a majority: this node admits nobody until its state was compared again"
            }
            Doubt::Differs | Doubt::Rebuilt | Doubt::Again => {
                "this node's state differed from that of the other replicas and was made anew: it admits nobody until it was compared again"
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_is_read_as_it_was_written_and_anything_else_throws_nothing_away() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(Doubt::load(dir.path()), None);
        for doubt in [Doubt::Disputed, Doubt::Differs, Doubt::Rebuilt, Doubt::Again] {
            doubt.save(dir.path()).unwrap();
            assert_eq!(Doubt::load(dir.path()), Some(doubt));
        }
        for text in ["", "differ", "differs or not"] {
            fs::write(dir.path().join(FILE), text).unwrap();
            assert_eq!(Doubt::load(dir.path()), Some(Doubt::Disputed), "{text:?}");
        }
        Doubt::forget(dir.path()).unwrap();
        assert_eq!(Doubt::load(dir.path()), None);
        Doubt::forget(dir.path()).unwrap();
    }

    #[test]
    fn a_state_that_differs_once_more_is_not_made_anew_from_the_same_snapshot() {
        assert_eq!(Doubt::differs_after(None), Doubt::Differs);
        assert_eq!(Doubt::differs_after(Some(Doubt::Disputed)), Doubt::Differs);
        assert_eq!(Doubt::differs_after(Some(Doubt::Rebuilt)), Doubt::Again);
    }
}
