//! What the commands of both programs share: how they print, who types them, what they ask before they change something.

pub mod output;
pub mod switches;

use std::io::{self, BufRead, IsTerminal};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, ensure};
use clap::Args;
use jiff::{SignedDuration, Timestamp};

use crate::config::{Environment, ProcessEnvironment};

/// Says on stderr what went wrong, with every cause.
pub fn failure(program: &str, error: &anyhow::Error) -> ExitCode {
    crate::note!("{program}: {error:#}");
    ExitCode::FAILURE
}

/// A time with its unit, such as `90m`, above zero. For clap.
pub fn duration(text: &str) -> Result<Duration, String> {
    crate::config::duration(text).filter(|time| !time.is_zero()).ok_or_else(|| {
        "expected a number above zero with its unit, at most 36500d: 30s, 90m, 12h, 2d".to_owned()
    })
}

/// What somebody says, on one line. For clap.
pub fn words(text: &str) -> Result<String, String> {
    if text.contains(char::is_control) {
        Err("it holds control characters".to_owned())
    } else {
        Ok(text.to_owned())
    }
}

/// The instant so long ago.
pub fn instant_before(time: Duration) -> anyhow::Result<Timestamp> {
    Ok(Timestamp::now().checked_sub(SignedDuration::try_from(time)?)?)
}

/// Who is at the keyboard, for the audit trail.
pub fn actor() -> String {
    let name = ["COLLOQUY_ACTOR", "SUDO_USER", "USER"]
        .into_iter()
        .find_map(|name| Environment::get(&ProcessEnvironment, name));
    format!("command:{}", name.as_deref().unwrap_or("unknown"))
}

/// How a command that changes something is agreed to.
#[derive(Args, Clone, Copy)]
pub struct Consent {
    /// Do not ask.
    #[arg(long)]
    yes: bool,
}

impl Consent {
    /// Says what is about to be done, and asks unless told not to. `false`: no.
    ///
    /// # Errors
    /// Nobody is there to be asked.
    pub fn to(self, plan: &str) -> anyhow::Result<bool> {
        crate::note!("{plan}");
        if self.yes {
            return Ok(true);
        }
        ensure!(
            io::stdin().is_terminal(),
            "nobody can be asked here; say --yes to go on, nothing was changed"
        );
        crate::note!("Go on? [y/N]");
        let agreed = agrees(&mut io::stdin().lock()).context("the answer could not be read")?;
        if !agreed {
            crate::note!("Nothing was changed.");
        }
        Ok(agreed)
    }
}

fn agrees(answer: &mut impl BufRead) -> io::Result<bool> {
    let mut line = String::new();
    answer.read_line(&mut line)?;
    Ok(matches!(line.trim(), "y" | "Y" | "yes"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_yes_is_one() {
        for (answer, agreed) in [
            ("y\n", true),
            ("yes\n", true),
            (" Y \n", true),
            ("\n", false),
            ("", false),
            ("yess\n", false),
            ("n", false),
        ] {
            assert_eq!(agrees(&mut answer.as_bytes()).expect("read"), agreed, "{answer:?}");
        }
    }
}
