//! What `scripts/` does besides starting our programs.

use std::process::Command;

use crate::support::{Port, Process, SOON, Surroundings, eventually, mortal, repository};

/// A process that does nothing, under the command line of another.
fn lookalike(arguments: &[&str]) -> Process {
    let mut command = mortal("python3", "");
    command.args(["-c", "import time; time.sleep(600)"]).args(arguments);
    Process::start("lookalike", command)
}

#[tokio::test]
async fn scripts_dev_cleans_up_what_it_started_and_nothing_else_of_the_same_clone() {
    let surroundings = Surroundings::read();
    let ports = [(); 4].map(|()| Port::claim(&surroundings));
    let [app, server, consumer, provider] = ports.each_ref().map(|port| port.number().to_string());
    let root = repository();
    let path = |below: &str| root.join(below).display().to_string();
    let (here, devhost, receiver) = (path(""), path("target/debug/devhost"), path("scripts/lib/consumer.py"));
    let stand_in = path("scripts/lib/development/provider.py");
    let here = here.trim_end_matches('/');
    let callbacks = path(".local/dev/callbacks.jsonl");
    let mut ours = [
        lookalike(&[&devhost, "start", "--root", here, "--port", &app]),
        lookalike(&[&receiver, &consumer, &callbacks]),
        lookalike(&[&stand_in, &provider]),
    ];
    let mut others = [
        lookalike(&[&devhost, "start", "--root", "/somewhere/else", "--port", &app]),
        lookalike(&[&devhost, "start", "--port", "7999", "--root", here]),
        lookalike(&[&receiver, "7998", "/somewhere/else.jsonl"]),
        lookalike(&[&stand_in, "7997"]),
        lookalike(&[&path("conversation-server")]),
    ];
    let clean_up = "
import importlib.machinery, importlib.util
loader = importlib.machinery.SourceFileLoader('dev', 'scripts/dev')
dev = importlib.util.module_from_spec(importlib.util.spec_from_loader('dev', loader))
loader.exec_module(dev)
dev.Development().clean_up_after_a_kill()
";
    let output = Command::new("python3")
        .args(["-c", clean_up])
        .current_dir(root)
        .env_remove("CARGO_TARGET_DIR")
        .env_remove("COLLOQUY_DEV_HOME")
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .env("COLLOQUY_DEV_PORT", &app)
        .env("COLLOQUY_DEV_SERVER_PORT", &server)
        .env("COLLOQUY_DEV_CONSUMER_PORT", &consumer)
        .env("COLLOQUY_DEV_PROVIDER_PORT", &provider)
        .output()
        .expect("python3");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    eventually("the end of what is left of scripts/dev", SOON, async || {
        ours.iter_mut().all(|process| process.ended().is_some())
    })
    .await;
    assert!(others.iter_mut().all(|process| process.ended().is_none()), "others run on");
}
