//! Words at the beginning of a user's message that make the demo model misbehave.

use std::fmt::Write as _;
use std::time::Duration;

/// What was commanded.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Commands {
    pub fail: Option<u16>,
    pub late: Option<Duration>,
    pub stall: Option<Duration>,
    pub tokens_per_second: Option<u32>,
    pub refuse: bool,
    pub filter: bool,
    pub retract: bool,
    pub cut: bool,
    pub error: bool,
    pub think: bool,
}

/// Every command, with what it does.
const COMMANDS: &[(&str, &str)] = &[
    ("/fail 500", "fails before the first byte, with this HTTP status; 500 if none is given"),
    ("/late 10", "says nothing for so many seconds, then answers"),
    ("/stall 40", "stops after a few words for so many seconds, then goes on"),
    ("/slow 2", "speaks so many tokens a second"),
    ("/fast", "says everything at once"),
    ("/refuse", "refuses"),
    ("/filter", "is cut in the middle by its content filter"),
    ("/retract", "says everything, then its content filter takes back the second half"),
    ("/cut", "loses the connection in the middle"),
    ("/error", "fails in the middle"),
    ("/think", "reasons before it answers, with a summary"),
];

impl Commands {
    /// The commands that a message begins with, and the rest of it.
    pub fn parse(message: &str) -> (Self, &str) {
        let mut commands = Self::default();
        let mut rest = message.trim_start();
        while let Some(after) = rest.strip_prefix('/') {
            let (word, tail) = split(after);
            let (number, after_number) = match split(tail) {
                (text, after) if text.parse::<u32>().is_ok() => (text.parse().ok(), after),
                _ => (None, tail),
            };
            let seconds = |usual: u32| Some(Duration::from_secs(u64::from(number.unwrap_or(usual))));
            let takes_number = match word {
                "fail" => {
                    let status = number.and_then(|number| u16::try_from(number).ok());
                    commands.fail = Some(status.filter(|status| (400..600).contains(status)).unwrap_or(500));
                    true
                }
                "late" => {
                    commands.late = seconds(10);
                    true
                }
                "stall" => {
                    commands.stall = seconds(40);
                    true
                }
                "slow" => {
                    commands.tokens_per_second = Some(number.unwrap_or(2).max(1));
                    true
                }
                "fast" => {
                    commands.tokens_per_second = Some(0);
                    false
                }
                "refuse" => {
                    commands.refuse = true;
                    false
                }
                "filter" => {
                    commands.filter = true;
                    false
                }
                "retract" => {
                    commands.retract = true;
                    false
                }
                "cut" => {
                    commands.cut = true;
                    false
                }
                "error" => {
                    commands.error = true;
                    false
                }
                "think" => {
                    commands.think = true;
                    false
                }
                _ => break,
            };
            rest = if takes_number { after_number } else { tail }.trim_start();
        }
        (commands, rest)
    }
}

fn split(text: &str) -> (&str, &str) {
    let text = text.trim_start();
    text.split_at(text.find(char::is_whitespace).unwrap_or(text.len()))
}

/// The table of commands in `docs/models.md`.
pub fn commands_markdown() -> String {
    let mut page = String::from("| the message begins with | the demo model |\n|---|---|\n");
    for (command, meaning) in COMMANDS {
        // Writing to a string cannot fail.
        let written = writeln!(page, "| `{command}` | {meaning} |");
        debug_assert!(written.is_ok());
    }
    page
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_stand_in_front_and_may_be_several() {
        let (commands, rest) = Commands::parse("/think /slow 200  Hello /cut");
        assert_eq!((commands.think, commands.tokens_per_second, commands.cut), (true, Some(200), false));
        assert_eq!(rest, "Hello /cut");
        assert_eq!(Commands::parse("/fail 429").0.fail, Some(429));
        assert_eq!(Commands::parse("/fail now").0.fail, Some(500));
        assert_eq!(Commands::parse("/fail now").1, "now");
        assert_eq!(Commands::parse("/etc/passwd"), (Commands::default(), "/etc/passwd"));
        for (command, _) in COMMANDS {
            assert_ne!(Commands::parse(command).0, Commands::default(), "{command}");
        }
    }
}
