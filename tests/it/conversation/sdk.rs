//! OpenAI's own SDKs, unmodified, driving the server with the programs in tests/sdks.

use std::time::Duration;

use crate::support::providers::{FakeProvider, Script, Wire};
use crate::support::server::{API_KEY, Server};
use crate::support::{Front, Process, TestDatabase, TestStorage, mortal, repository};

/// One of the SDKs.
#[derive(Clone, Copy, Debug)]
pub enum Sdk {
    Python,
    Node,
}

impl Sdk {
    /// A program of tests/sdks, ready to run.
    pub fn command(self, program: &str, arguments: &[&str]) -> std::process::Command {
        let home =
            std::env::var("COLLOQUY_TEST_SDKS").expect("COLLOQUY_TEST_SDKS: run the tests with scripts/test");
        let mut command = match self {
            Self::Python => {
                let mut command = mortal("python3", "");
                command.arg(repository().join(format!("tests/sdks/{program}.py")));
                command.env("PYTHONPATH", format!("{home}/python"));
                command
            }
            Self::Node => {
                let mut command = mortal("node", "");
                command.arg(format!("{home}/{program}.mjs"));
                command
            }
        };
        command.args(arguments).env("OPENAI_API_KEY", API_KEY).env("COLLOQUY_DEV_MODEL", "demo");
        command
    }

    /// Runs a program against an address until it says `ok`.
    async fn runs(self, base_url: &str, model: &str, program: &str, arguments: &[&str]) {
        let mut command = self.command(program, arguments);
        command.env("OPENAI_BASE_URL", base_url).env("COLLOQUY_DEV_MODEL", model);
        self.says_ok(program, command).await;
    }

    /// Runs a program to its end, which is `ok`.
    pub async fn says_ok(self, program: &str, command: std::process::Command) {
        let mut process = Process::start(&format!("{self:?}"), command);
        let status = process.end(Duration::from_secs(90)).await;
        assert!(status.success(), "{self:?} {program}:\n{}", process.log().join("\n"));
        assert_eq!(process.log().last().map(String::as_str), Some("ok"));
    }
}

async fn with_demo(sdk: Sdk, program: &str) {
    let (database, storage) = (TestDatabase::create().await, TestStorage::create());
    let servers = Server::of(&database, &storage).set("LLM_RETRIES", "0").start_two().await;
    let front = Front::of(servers.both()).await;
    sdk.runs(&front.base_url(), "demo", program, &[]).await;
}

#[tokio::test]
async fn python_uses_chat_completions() {
    with_demo(Sdk::Python, "chat").await;
}

#[tokio::test]
async fn node_uses_chat_completions() {
    with_demo(Sdk::Node, "chat").await;
}

#[tokio::test]
async fn python_uses_every_feature_of_responses() {
    with_demo(Sdk::Python, "features").await;
}

#[tokio::test]
async fn node_uses_every_feature_of_responses() {
    with_demo(Sdk::Node, "features").await;
}

/// Whatever the provider speaks, its callers see chat completions.
#[tokio::test]
async fn both_use_chat_completions_of_every_provider() {
    let nowhere = "postgres://nobody:x@127.0.0.1:9/none";
    for (wire, sdk) in [Wire::Chat, Wire::Azure, Wire::Responses, Wire::Anthropic]
        .into_iter()
        .flat_map(|wire| [(wire, Sdk::Python), (wire, Sdk::Node)])
    {
        let provider = FakeProvider::start(wire);
        let mut says = Script::says("Hello there");
        says.comments = true;
        provider.next([
            says,
            Script::calls("f", "{\"x\": 1}").thinks("hm"),
            Script::says("It is 42"),
            Script::says("{\"name\": \"Ada\", \"age\": 36}").drip(7),
            Script::fails(429, "Rate limit is exceeded. Try again in 90 seconds."),
        ]);
        let server = Server::on(nowhere, nowhere, &TestStorage::create())
            .set("LLM_RETRIES", "0")
            .config(format!("{}[models.it]\ndeployments = [\"d\"]\n", provider.deployment("d", "")))
            .start_without_database()
            .await;
        sdk.runs(&server.base_url(), "it", "chat", &["provider"]).await;
    }
}
