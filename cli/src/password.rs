//! Passwords come from the terminal, unseen, or from standard input. Never from an argument.

use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;

use nix::sys::termios::{LocalFlags, SetArg, Termios, tcgetattr, tcsetattr};
use zeroize::Zeroizing;

use crate::failure::Failure;

/// Longest password that is read, in bytes.
const PASSWORD_BYTES_MAX: u64 = 4_096;

/// The way that needs no terminal.
const PIPE: &str = "printf %s \"$PASSWORD\" | mcpctl login --email EMAIL --password-stdin";

/// Reads a password from standard input, up to its first line break.
pub(crate) fn from_stdin() -> Result<Zeroizing<String>, Failure> {
    let mut text = Zeroizing::new(String::new());
    std::io::stdin()
        .lock()
        .take(PASSWORD_BYTES_MAX)
        .read_to_string(&mut text)
        .map_err(|error| Failure::new("cannot read the password", error.to_string()).next(PIPE))?;
    let line = text.lines().next().unwrap_or_default();
    Ok(Zeroizing::new(line.to_owned()))
}

/// Reads two passwords from standard input, a line each: the present one and the new one.
pub(crate) fn two_from_stdin() -> Result<(Zeroizing<String>, Zeroizing<String>), Failure> {
    let mut text = Zeroizing::new(String::new());
    std::io::stdin()
        .lock()
        .take(2 * PASSWORD_BYTES_MAX)
        .read_to_string(&mut text)
        .map_err(|error| Failure::new("cannot read the passwords", error.to_string()).next(PIPE))?;
    let mut lines = text.lines().map(|line| Zeroizing::new(line.to_owned()));
    match (lines.next(), lines.next()) {
        (Some(old), Some(new)) => Ok((old, new)),
        _ => Err(Failure::usage(
            "cannot read the passwords",
            "two lines are needed: the present one and the new one",
        )
        .next("printf '%s\\n%s\\n' \"$OLD\" \"$NEW\" | mcpctl passwd --password-stdin")),
    }
}

/// Asks for a password on the terminal, where it does not show. `otherwise` is the command that needs no terminal.
pub(crate) fn ask(prompt: &str, otherwise: &str) -> Result<Zeroizing<String>, Failure> {
    let mut tty = terminal().map_err(|failure| failure.next(otherwise))?;
    let before = tcgetattr(&tty).map_err(|e| Failure::new("cannot ask for the password", e.to_string()).next(PIPE))?;
    let _quiet = Quiet::new(&tty, before)?;
    let line = prompt_line(&mut tty, prompt)?;
    eprintln!();
    Ok(line)
}

/// Asks for a new password on the terminal, twice. `whose` stands in the question.
pub(crate) fn ask_new(whose: &str, otherwise: &str) -> Result<Zeroizing<String>, Failure> {
    let password = ask(&format!("New password of {whose}: "), otherwise)?;
    let again = ask("The same again: ", otherwise)?;
    if *password != *again {
        return Err(Failure::usage("cannot set the password", "the two are not the same").next("run the command again"));
    }
    Ok(password)
}

/// Reads the secret that a file holds.
pub(crate) fn from_file(file: &Path) -> Result<Zeroizing<String>, Failure> {
    let failed = |error: std::io::Error| {
        let shown = file.display();
        Failure::usage(format!("cannot read {shown}"), error.to_string()).next(format!("ls -l {shown}"))
    };
    let opened = File::open(file).map_err(failed)?;
    let mut text = Zeroizing::new(String::new());
    opened
        .take(PASSWORD_BYTES_MAX)
        .read_to_string(&mut text)
        .map_err(failed)?;
    Ok(Zeroizing::new(text.trim().to_owned()))
}

/// Asks for a line on the terminal.
pub(crate) fn ask_line(prompt: &str) -> Result<String, Failure> {
    Ok(prompt_line(&mut terminal()?, prompt)?.trim().to_owned())
}

fn terminal() -> Result<File, Failure> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/tty")
        .map_err(|_| Failure::usage("cannot ask for what is missing", "there is no terminal").next(PIPE))
}

fn prompt_line(tty: &mut File, prompt: &str) -> Result<Zeroizing<String>, Failure> {
    let failed = |error: std::io::Error| Failure::new("cannot read from the terminal", error.to_string()).next(PIPE);
    tty.write_all(prompt.as_bytes())
        .and_then(|()| tty.flush())
        .map_err(failed)?;
    let mut line = Zeroizing::new(String::new());
    BufReader::new(tty.take(PASSWORD_BYTES_MAX))
        .read_line(&mut line)
        .map_err(failed)?;
    Ok(Zeroizing::new(line.trim_end_matches(['\r', '\n']).to_owned()))
}

/// The terminal without echo, until this is dropped.
struct Quiet {
    tty: File,
    before: Termios,
}

impl Quiet {
    fn new(tty: &File, before: Termios) -> Result<Quiet, Failure> {
        let failed = |why: String| Failure::new("cannot ask for the password", why).next(PIPE);
        let tty = tty.try_clone().map_err(|e| failed(e.to_string()))?;
        let mut quiet = before.clone();
        quiet.local_flags.remove(LocalFlags::ECHO);
        tcsetattr(&tty, SetArg::TCSAFLUSH, &quiet).map_err(|e| failed(e.to_string()))?;
        Ok(Quiet { tty, before })
    }
}

impl Drop for Quiet {
    fn drop(&mut self) {
        if tcsetattr(&self.tty, SetArg::TCSAFLUSH, &self.before).is_err() {
            eprintln!("the terminal may not echo any more; run: stty echo");
        }
    }
}
