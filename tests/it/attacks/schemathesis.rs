//! Schemathesis against the running server: requests drawn from the OpenAPI document, right and wrong, by the thousand.

use std::process::Command;

use crate::support::server::{API_KEY, Server};
use crate::support::{TestDatabase, TestStorage, report, repository};

/// Needs `COLLOQUY_FUZZ_SCHEMATHESIS` (its program) and takes `COLLOQUY_FUZZ_EXAMPLES` (of each operation) and
/// `COLLOQUY_FUZZ_SEED`; `scripts/fuzz --api` sets them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "scripts/fuzz --api installs Schemathesis and runs it"]
async fn what_schemathesis_draws_from_the_openapi_document_is_answered_as_it_says() {
    let setting = |name: &str| {
        std::env::var(name).unwrap_or_else(|_| panic!("{name} is not set: run scripts/fuzz --api"))
    };
    let (database, storage) = (TestDatabase::create().await, TestStorage::create());
    let server = Server::of(&database, &storage).set("LLM_DEMO_TOKENS_PER_SECOND", "0").start().await;
    let mut command = Command::new(setting("COLLOQUY_FUZZ_SCHEMATHESIS"));
    command.args(["run", &server.url("/openapi.json"), "--url", &server.url("")]);
    command.args(["--header", &format!("Authorization: Bearer {API_KEY}")]);
    command.args([
        "--exclude-path-regex",
        "^/api/",
        "--workers",
        "1",
        "--no-color",
        "--request-timeout",
        "20",
    ]);
    command.args(["--checks", "not_a_server_error,content_type_conformance,response_schema_conformance"]);
    command.args([
        "--max-examples",
        &setting("COLLOQUY_FUZZ_EXAMPLES"),
        "--seed",
        &setting("COLLOQUY_FUZZ_SEED"),
    ]);
    command.args(["--phases", "examples,coverage,fuzzing", "--generation-database", "none"]);
    command.current_dir(repository().join("target"));
    let output = tokio::task::spawn_blocking(move || command.output().expect("Schemathesis runs"))
        .await
        .expect("its end");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let wrong = String::from_utf8_lossy(&output.stderr).into_owned();
    let summary = said.rfind("SUMMARY").map_or("", |at| &said[at..]);
    report("schemathesis", summary.trim_matches(['=', ' ', '\n']));
    assert!(output.status.success(), "{said}\n{wrong}");
    assert_eq!(server.read("/v1/models").await.0, 200, "it serves on");
}
