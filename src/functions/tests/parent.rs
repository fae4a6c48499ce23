//! `die_with_parent`, in processes of its own: this test binary, started again as the child.
#![cfg(target_os = "linux")]

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::functions::die_with_parent;

const CHILD: &str = "FUNCTIONS_TEST_CHILD";

/// Not a test of its own: the body of the child, which echoes its stdin until that ends. As an ordinary test
/// it returns at once.
#[test]
fn child() {
    if std::env::var_os(CHILD).is_none() {
        return;
    }
    die_with_parent().expect("armed");
    let mut line = String::new();
    println!("\nready {}", std::process::id());
    while std::io::stdin().read_line(&mut line).expect("stdin") > 0 {
        println!("\necho {line}");
        line.clear();
    }
}

fn arguments() -> [&'static str; 4] {
    ["--exact", "functions::tests::parent::child", "--nocapture", "--quiet"]
}

fn wait_for(lines: &mut impl BufRead, start: &str) -> String {
    let mut line = String::new();
    loop {
        line.clear();
        assert_ne!(lines.read_line(&mut line).expect("readable"), 0, "ended before `{start}`");
        if let Some(at) = line.find(start) {
            return line[at + start.len()..].trim().to_owned();
        }
    }
}

fn command() -> Command {
    let mut command = Command::new(std::env::current_exe().expect("a path"));
    command.args(arguments()).env(CHILD, "1").stdin(Stdio::piped()).stdout(Stdio::piped());
    command
}

/// The kernel signals the end of the *thread* that started a process. Were the signal SIGKILL, this child
/// would die.
#[test]
fn the_end_of_a_mere_thread_of_the_parent_is_survived() {
    let (armed, wait) = std::sync::mpsc::channel::<()>();
    let (give, take) = std::sync::mpsc::channel();
    let spawner = std::thread::spawn(move || {
        give.send(command().spawn().expect("started")).expect("taken");
        wait.recv().expect("told to end");
    });
    let mut child = take.recv().expect("spawned");
    let mut lines = BufReader::new(child.stdout.take().expect("piped"));
    wait_for(&mut lines, "ready ");
    armed.send(()).expect("waiting");
    spawner.join().expect("ended");
    let mut input = child.stdin.take().expect("piped");
    for _ in 0..3 {
        input.write_all(b"still here\n").expect("alive");
        assert_eq!(wait_for(&mut lines, "echo "), "still here");
    }
    drop(input);
    // To the end of its output: the harness must not be cut off writing its summary.
    lines.read_to_string(&mut String::new()).expect("readable");
    assert!(child.wait().expect("ended").success());
}

#[test]
fn the_end_of_the_parent_is_not() {
    // A shell between us and the child. It gives background jobs /dev/null for stdin unless told otherwise,
    // so the pipe from here is passed on by hand: while it is open, the child has no reason of its own to
    // end.
    let mut shell = Command::new("sh")
        .args(["-c", "exec 3<&0; \"$0\" \"$@\" <&3 & wait"])
        .arg(std::env::current_exe().expect("a path"))
        .args(arguments())
        .env(CHILD, "1")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("started");
    let input = shell.stdin.take().expect("piped");
    let mut lines = BufReader::new(shell.stdout.take().expect("piped"));
    let child: u32 = wait_for(&mut lines, "ready ").parse().expect("a process id");
    assert!(runs(child));
    shell.kill().expect("killed");
    shell.wait().expect("ended");
    // The child held the other end of our pipe: end of file is its end.
    lines.read_to_string(&mut String::new()).expect("readable");
    assert_ends(child);
    drop(input);
}

const MIDDLE: &str = "FUNCTIONS_TEST_MIDDLE";

/// The body of a parent of many threads, of which the one that started the child ends once the child has armed.
#[test]
fn middle() {
    if std::env::var_os(MIDDLE).is_none() {
        return;
    }
    let starting = std::thread::spawn(|| {
        let mut child = command().stdin(Stdio::inherit()).env_remove(MIDDLE).spawn().expect("started");
        let mut lines = BufReader::new(child.stdout.take().expect("piped"));
        (wait_for(&mut lines, "ready "), child)
    });
    let (id, mut child) = starting.join().expect("started");
    println!("\nmiddle of {id}");
    child.wait().expect("outlived by the child");
}

#[test]
fn the_end_of_the_parent_counts_after_that_of_a_thread() {
    let mut middle = Command::new(std::env::current_exe().expect("a path"))
        .args(["--exact", "functions::tests::parent::middle", "--nocapture", "--quiet"])
        .env(MIDDLE, "1")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("started");
    let input = middle.stdin.take().expect("piped");
    let mut lines = BufReader::new(middle.stdout.take().expect("piped"));
    let child: u32 = wait_for(&mut lines, "middle of ").parse().expect("a process id");
    assert!(runs(child), "the thread's end did not end it");
    middle.kill().expect("killed");
    middle.wait().expect("ended");
    assert_ends(child);
    drop(input);
}

fn assert_ends(process: u32) {
    let patience = std::time::Instant::now() + Duration::from_secs(10);
    while runs(process) && std::time::Instant::now() < patience {
        std::thread::yield_now();
    }
    assert!(!runs(process), "process {process} outlived its parent");
}

fn runs(process: u32) -> bool {
    std::fs::read_to_string(format!("/proc/{process}/stat"))
        .is_ok_and(|stat| stat.rsplit(')').next().is_some_and(|rest| !rest.trim_start().starts_with('Z')))
}
