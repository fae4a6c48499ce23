//! The command line.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};

/// How long a received queue message stays invisible in the real host, in seconds.
const HOST_LEASE_SECONDS: u64 = 600;
/// How many errors the real host takes before it stops.
const HOST_CRASH_LIMIT: usize = 3;

#[derive(Parser)]
#[command(
    name = "devhost",
    version,
    about = "Runs a custom-handler function app on one machine, as the Azure Functions host would.",
    args_conflicts_with_subcommands = true
)]
pub struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    start: StartArgs,
}

impl Cli {
    /// The chosen command; `start` when none is named.
    pub fn command(self) -> Command {
        self.command.unwrap_or(Command::Start(self.start))
    }
}

#[derive(Subcommand)]
pub enum Command {
    /// Run the function app (the default).
    Start(StartArgs),
    /// Send one invocation to a function of a running devhost and print the answer.
    Invoke(InvokeArgs),
}

#[derive(Args, Clone)]
pub struct StartArgs {
    /// The app root: the directory with host.json and the function folders.
    #[arg(long, default_value = ".")]
    pub root: PathBuf,
    /// Port to listen on; 0 takes a free one. [default: Host.LocalHttpPort of local.settings.json, else 7071]
    #[arg(long, short)]
    pub port: Option<u16>,
    /// Address to listen on.
    #[arg(long, default_value = "127.0.0.1")]
    pub address: IpAddr,
    /// A file of NAME=value lines; wins over local.settings.json, loses to the environment.
    #[arg(long)]
    pub env_file: Option<PathBuf>,
    /// Restart the handler when its executable changes.
    #[arg(long)]
    pub watch: bool,
    #[command(flatten)]
    pub bends: Bends,
}

/// Flags that bend the contract for tests. Printed at start; refused with APP_ENV=production.
#[derive(Args, Clone)]
pub struct Bends {
    /// Bends the contract: seconds a received queue message stays invisible, and (between 15 and 60)
    /// seconds of a timer's blob lease.
    #[arg(long, default_value_t = HOST_LEASE_SECONDS, value_parser = clap::value_parser!(u64).range(1..=604_800))]
    lease_seconds: u64,
    /// Bends the contract: how many errors of the handler stop the host; 0 never does.
    #[arg(long, default_value_t = HOST_CRASH_LIMIT)]
    crash_limit: usize,
    /// Bends the contract: divides the waits of timers, of queue polling and of its back-off.
    #[arg(long, default_value_t = 1.0, value_parser = parse_speed)]
    speed: f64,
}

impl Bends {
    /// How long a received message stays invisible.
    pub fn message_lease(&self) -> Duration {
        Duration::from_secs(self.lease_seconds)
    }

    /// How long a timer's blob lease lasts; Azure Storage allows 15 to 60 seconds.
    pub fn timer_lease(&self) -> Duration {
        Duration::from_secs(self.lease_seconds.clamp(15, 60))
    }

    /// Errors that stop the host; `None` when nothing does.
    pub fn crash_limit(&self) -> Option<usize> {
        (self.crash_limit > 0).then_some(self.crash_limit)
    }

    /// What waits are divided by; positive and finite.
    pub fn speed(&self) -> f64 {
        self.speed
    }

    /// The flags that differ from the real host, as one would type them.
    pub fn in_force(&self) -> Vec<String> {
        let mut flags = Vec::new();
        if self.lease_seconds != HOST_LEASE_SECONDS {
            flags.push(format!("--lease-seconds {}", self.lease_seconds));
        }
        if self.crash_limit != HOST_CRASH_LIMIT {
            flags.push(format!("--crash-limit {}", self.crash_limit));
        }
        if self.speed != 1.0 {
            flags.push(format!("--speed {}", self.speed));
        }
        flags
    }
}

#[derive(Args)]
pub struct InvokeArgs {
    /// Name of the function folder.
    pub function: String,
    /// Path of a fixture; the default is tests/fixtures/invoke/<FUNCTION>.json, if that exists.
    pub fixture: Option<PathBuf>,
    /// Port of the running devhost.
    #[arg(long, short, default_value_t = 7071)]
    pub port: u16,
}

fn parse_speed(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(speed) if speed.is_finite() && speed > 0.0 => Ok(speed),
        _ => Err("expected a positive number, e.g. 60".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bends(flags: &[&str]) -> Bends {
        let cli = Cli::try_parse_from([&["devhost", "start"], flags].concat()).unwrap();
        match cli.command() {
            Command::Start(start) => start.bends,
            Command::Invoke(_) => panic!("not start"),
        }
    }

    #[test]
    fn start_is_the_default_command() {
        let cli = Cli::try_parse_from(["devhost", "--port", "0"]).unwrap();
        assert!(matches!(cli.command(), Command::Start(StartArgs { port: Some(0), .. })));
    }

    #[test]
    fn only_flags_that_differ_from_the_host_bend_it() {
        assert!(
            bends(&["--lease-seconds", "600", "--crash-limit", "3", "--speed", "1"]).in_force().is_empty()
        );
        assert_eq!(
            bends(&["--speed", "60", "--crash-limit", "0"]).in_force(),
            ["--crash-limit 0", "--speed 60"]
        );
    }

    #[test]
    fn a_timer_lease_stays_within_what_blob_storage_allows() {
        assert_eq!(bends(&["--lease-seconds", "2"]).timer_lease(), Duration::from_secs(15));
        assert_eq!(bends(&[]).timer_lease(), Duration::from_secs(60));
        assert_eq!(bends(&["--lease-seconds", "2"]).message_lease(), Duration::from_secs(2));
    }

    #[test]
    fn speed_must_be_positive() {
        assert!(Cli::try_parse_from(["devhost", "--speed", "0"]).is_err());
        assert!(Cli::try_parse_from(["devhost", "--speed", "inf"]).is_err());
    }
}
