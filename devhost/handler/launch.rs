//! The command line, directory and environment the handler is started with.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use tokio::process::Command;

use crate::host_json::HandlerConfig;
use crate::settings::Settings;

/// The executable by the contract's rule: a relative path is joined to `workerDirectory` if set, else to the
/// app root; if no such file exists, the name is looked up on PATH.
pub fn find_executable(root: &Path, config: &HandlerConfig, settings: &Settings) -> PathBuf {
    let path = Path::new(&config.executable);
    if path.is_absolute() {
        return path.to_owned();
    }
    let joined = root.join(&config.worker_directory).join(path);
    if joined.exists() || path.components().count() > 1 {
        return joined;
    }
    let on_path = settings
        .get("PATH")
        .into_iter()
        .flat_map(std::env::split_paths)
        .map(|directory| directory.join(path));
    on_path.into_iter().find(|candidate| candidate.is_file()).unwrap_or(joined)
}

/// The command to spawn. The child gets SIGKILL when it is dropped and when devhost dies.
pub fn command(root: &Path, config: &HandlerConfig, settings: &Settings, port: u16) -> Command {
    let worker_id = uuid::Uuid::from_bytes(rand::random()).to_string();
    let port = port.to_string();
    let mut command = Command::new(find_executable(root, config, settings));
    command
        .args(arguments(config, settings))
        .current_dir(root.join(&config.working_directory))
        .envs(settings.all())
        .env("FUNCTIONS_CUSTOMHANDLER_PORT", &port)
        .env("FUNCTIONS_HTTPWORKER_PORT", &port)
        .env("FUNCTIONS_CUSTOMHANDLER_WORKER_ID", &worker_id)
        .env("FUNCTIONS_HTTPWORKER_ID", &worker_id)
        .env("FUNCTIONS_APP_ROOT_PATH", root)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    #[cfg(target_os = "linux")]
    die_with_devhost(&mut command);
    command
}

/// The real host leaves orphans behind when it is killed; devhost must not, whatever the handler does itself.
///
/// The signal is tied to the *thread* that forks. devhost runs on a single-threaded runtime, so that is the
/// main thread, which lives as long as the process.
#[cfg(target_os = "linux")]
fn die_with_devhost(command: &mut Command) {
    let devhost = std::process::id();
    // SAFETY: between fork and exec only prctl and getppid are called, both async-signal-safe, and the closure
    // allocates nothing.
    #[expect(
        unsafe_code,
        reason = "pre_exec is unsafe by nature; the closure only makes async-signal-safe calls"
    )]
    unsafe {
        command.pre_exec(move || {
            if libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) != 0 {
                return Err(std::io::Error::last_os_error());
            }
            // devhost may have died before the line above took effect.
            if u32::try_from(libc::getppid()) != Ok(devhost) {
                return Err(std::io::Error::from_raw_os_error(libc::ESRCH));
            }
            Ok(())
        });
    }
}

/// `arguments`, the quoted `defaultWorkerPath`, `workerArguments`: joined by spaces without quoting, expanded,
/// then split as .NET splits a command line.
fn arguments(config: &HandlerConfig, settings: &Settings) -> Vec<String> {
    let path = (!config.worker_path.is_empty()).then(|| format!("\"{}\"", config.worker_path));
    let parts = config.arguments.iter().chain(&path).chain(&config.worker_arguments);
    let line = parts.map(String::as_str).collect::<Vec<_>>().join(" ");
    split(&settings.resolve_or_delete(&line))
}

/// Blanks separate, double quotes keep together, a backslash escapes a quote.
fn split(line: &str) -> Vec<String> {
    let mut arguments = Vec::new();
    let mut current: Option<String> = None;
    let mut quoted = false;
    let mut characters = line.chars().peekable();
    while let Some(character) = characters.next() {
        match character {
            '\\' if characters.peek() == Some(&'"') => {
                characters.next();
                current.get_or_insert_default().push('"');
            }
            '"' => {
                quoted = !quoted;
                current.get_or_insert_default();
            }
            ' ' | '\t' if !quoted => arguments.extend(current.take()),
            other => current.get_or_insert_default().push(other),
        }
    }
    arguments.extend(current);
    arguments
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(arguments: &[&str]) -> HandlerConfig {
        HandlerConfig {
            executable: "sh".into(),
            working_directory: String::new(),
            worker_directory: String::new(),
            worker_path: "a b".into(),
            arguments: arguments.iter().map(|text| (*text).to_owned()).collect(),
            worker_arguments: vec!["last".into()],
            initialization_timeout: std::time::Duration::from_secs(30),
            stderr_for_errors_only: true,
            forwarding: false,
            proxying: false,
            port: None,
        }
    }

    #[test]
    fn an_argument_with_a_blank_needs_its_own_quotes() {
        let settings = Settings::from_pairs(&[("LEVEL", "debug info")]);
        let found =
            arguments(&config(&["--x", "two words", "\"kept together\"", "%LEVEL%", "%NOPE%"]), &settings);
        assert_eq!(found, ["--x", "two", "words", "kept together", "debug", "info", "a b", "last"]);
        assert_eq!(split(r#"a\"b "" c"#), ["a\"b", "", "c"]);
    }

    #[test]
    fn an_executable_that_is_not_in_the_root_is_looked_up_on_path() {
        let settings = Settings::from_pairs(&[("PATH", "/nowhere:/bin:/usr/bin")]);
        assert_eq!(find_executable(Path::new("/nowhere"), &config(&[]), &settings), Path::new("/bin/sh"));
        let missing = HandlerConfig { executable: "bin/none".into(), ..config(&[]) };
        assert_eq!(
            find_executable(Path::new("/nowhere"), &missing, &settings),
            Path::new("/nowhere/bin/none")
        );
    }
}
