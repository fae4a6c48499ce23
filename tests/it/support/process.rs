//! Children: their output kept, their death certain.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::eventually;

/// A running program. It dies when this is dropped, and when the test's thread dies without dropping anything.
pub struct Process {
    name: String,
    child: Child,
    lines: Arc<Mutex<Vec<String>>>,
    done: Option<ExitStatus>,
}

/// The start of a command line whose process is killed with the thread that starts it, as another user if one is named.
pub fn mortal(program: impl AsRef<OsStr>, user: &str) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL"]);
    if !user.is_empty() {
        command.arg(format!("--reuid={user}")).arg(format!("--regid={user}")).arg("--clear-groups");
    }
    command.arg("--").arg(program);
    command
}

impl Process {
    /// Starts `command` (see [`mortal`]) with its output captured.
    pub fn start(name: &str, mut command: Command) -> Self {
        command.stdin(Stdio::null());
        Self::spawn(name, command)
    }

    /// The same for a program that is written to ([`Self::write_line`]).
    pub fn start_with_input(name: &str, mut command: Command) -> Self {
        command.stdin(Stdio::piped());
        Self::spawn(name, command)
    }

    /// One line to its standard input.
    pub fn write_line(&mut self, line: &str) {
        let input = self.child.stdin.as_mut().expect("started with input");
        writeln!(input, "{line}").expect("it reads");
    }

    fn spawn(name: &str, mut command: Command) -> Self {
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap_or_else(|error| panic!("{name} did not start: {error}"));
        let lines = Arc::new(Mutex::new(Vec::new()));
        for output in [
            child.stdout.take().map(|pipe| Box::new(pipe) as Box<dyn Read + Send>),
            child.stderr.take().map(|pipe| Box::new(pipe) as Box<dyn Read + Send>),
        ]
        .into_iter()
        .flatten()
        {
            let lines = Arc::clone(&lines);
            std::thread::spawn(move || {
                for line in BufReader::new(output).split(b'\n') {
                    let Ok(line) = line else { break };
                    lines.lock().unwrap().push(String::from_utf8_lossy(&line).into_owned());
                }
            });
        }
        Self { name: name.to_owned(), child, lines, done: None }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Everything written so far, both streams, in the order it arrived.
    pub fn log(&self) -> Vec<String> {
        self.lines.lock().unwrap().clone()
    }

    /// The first value `find` makes of a line; fails when there is none within `limit` or the process ends.
    pub async fn find<T>(&mut self, what: &str, limit: Duration, find: impl Fn(&str) -> Option<T>) -> T {
        let mut found = None;
        let (name, lines, child) = (self.name.clone(), Arc::clone(&self.lines), &mut self.child);
        eventually(&format!("{what} in the output of {name}"), limit, async || {
            let ended = child.try_wait().expect("a child's state");
            found = lines.lock().unwrap().iter().find_map(|line| find(line));
            assert!(found.is_some() || ended.is_none(), "{name} ended with {ended:?} before: {what}");
            found.is_some()
        })
        .await;
        found.expect("found above")
    }

    /// Sends a signal by its name (`TERM`, `STOP`, `CONT`).
    pub fn signal(&self, name: &str) {
        signal(self.pid(), name);
    }

    /// SIGKILL, and waits for the end.
    pub fn kill(&mut self) {
        if self.done.is_none() {
            self.child.kill().expect("kill");
            self.done = Some(self.child.wait().expect("wait"));
        }
    }

    /// The status if it has ended.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        if self.done.is_none() {
            self.done = self.child.try_wait().expect("a child's state");
        }
        self.done
    }

    /// Waits until it has ended by itself.
    pub async fn end(&mut self, limit: Duration) -> ExitStatus {
        let what = format!("the end of {}", self.name);
        eventually(&what, limit, async || self.ended().is_some()).await;
        self.done.expect("ended above")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Never panics: it may run while a test unwinds.
        if self.done.is_none() {
            self.child.kill().ok();
            self.child.wait().ok();
        }
        if std::thread::panicking() {
            let lines = self.log();
            let shown = &lines[lines.len().saturating_sub(120)..];
            eprintln!("---- log of {} (pid {}) ----\n{}", self.name, self.child.id(), shown.join("\n"));
        }
    }
}

/// Sends a signal to any process; whether it was there.
pub fn signal(pid: u32, name: &str) -> bool {
    // The shell's own `kill`: the program of that name is not on every machine.
    let status = Command::new("sh").args(["-c", &format!("kill -{name} {pid} 2>/dev/null")]).status();
    status.expect("sh").success()
}

/// What a process keeps in memory.
pub fn resident_kib(pid: u32) -> i64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("a process");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("VmRSS");
    line.trim().trim_end_matches(" kB").parse().expect("a number")
}

/// Children of a process, without grandchildren.
pub fn children(parent: u32) -> Vec<u32> {
    let processes = std::fs::read_dir("/proc").expect("/proc");
    let pids = processes.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    pids.filter(|pid| parent_of(*pid) == Some(parent)).collect()
}

fn parent_of(pid: u32) -> Option<u32> {
    let stat = std::fs::read_to_string(Path::new("/proc").join(pid.to_string()).join("stat")).ok()?;
    // pid (name) state parent …; the name may hold anything, so count from its closing bracket.
    stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()
}

/// Whether a process exists and is not only waiting to be collected.
pub fn exists(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with('Z'))
}
