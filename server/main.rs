//! The always-on process for long conversations.

use std::process::ExitCode;

fn main() -> ExitCode {
    ExitCode::SUCCESS
}
