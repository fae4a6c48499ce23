//! `function-handlers` alone, with the test in the host's place: for what a host would hide or delay.

use std::ops::Deref;
use std::path::PathBuf;

use serde_json::{Value, json};

use super::process::mortal;
use super::surroundings::handlers_program;
use super::{Endpoint, Port, Process, SOON, eventually};

/// A running handler without a host. Dereferences to its [`Endpoint`].
pub struct Handler {
    root: PathBuf,
    endpoint: Endpoint,
    process: Process,
    _port: Port,
}

impl Deref for Handler {
    type Target = Endpoint;

    fn deref(&self) -> &Endpoint {
        &self.endpoint
    }
}

impl Handler {
    pub(super) fn new(
        root: PathBuf,
        port: Port,
        settings: std::collections::BTreeMap<String, String>,
    ) -> Self {
        let mut command = mortal(handlers_program(), "");
        command.env_clear().envs(&settings).current_dir(&root);
        command.env("FUNCTIONS_CUSTOMHANDLER_PORT", port.number().to_string());
        let process = Process::start("function-handlers", command);
        Self { root, endpoint: Endpoint::new(port.number(), settings), process, _port: port }
    }

    pub(super) async fn await_ready(&self) {
        eventually("GET / to be answered", SOON, async || {
            self.client().get(self.url("/")).send().await.is_ok()
        })
        .await;
    }

    /// What it wrote so far.
    pub fn log(&self) -> Vec<String> {
        self.process.log()
    }

    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// One tick of a timer, as the host posts it; gives the status.
    pub async fn tick(&self, function: &str) -> u16 {
        let timer = json!({
            "Schedule": { "AdjustForDST": true },
            "ScheduleStatus": {
                "Last": "2026-01-01T10:00:00+00:00",
                "Next": "2026-01-01T10:05:00+00:00",
                "LastUpdated": "2026-01-01T10:00:00+00:00"
            },
            "IsPastDue": false
        });
        self.invoke(function, &json!({ "Data": { "timer": timer }, "Metadata": system(function) })).await
    }

    /// A queue message, as the host posts it; gives the status.
    pub async fn message(&self, function: &str, text: &str, dequeue_count: u32) -> u16 {
        let mut metadata = system(function);
        metadata["DequeueCount"] = dequeue_count.to_string().into();
        metadata["Id"] = quoted(&uuid::Uuid::now_v7().to_string());
        metadata["InsertionTime"] = "2026-01-01T10:00:00+00:00".into();
        self.invoke(function, &json!({ "Data": { "message": quoted(text) }, "Metadata": metadata })).await
    }

    async fn invoke(&self, function: &str, envelope: &Value) -> u16 {
        let request = self.client().post(self.url(&format!("/{function}"))).json(envelope);
        // What tells the host from anybody else who can reach the port.
        let request = request
            .header("user-agent", "Azure-Functions-Host/4.1052.200")
            .header("x-azure-functions-hostversion", "4.1052.200")
            .header("x-azure-functions-invocationid", uuid::Uuid::now_v7().to_string());
        request.send().await.expect("an answer to the envelope").status().as_u16()
    }
}

impl Drop for Handler {
    fn drop(&mut self) {
        self.process.kill();
        std::fs::remove_dir_all(&self.root).ok();
    }
}

fn system(function: &str) -> Value {
    json!({ "sys": { "MethodName": function, "UtcNow": "2026-01-01T10:00:01Z", "RandGuid": uuid::Uuid::now_v7() } })
}

/// Text as JSON, inside the JSON of the envelope.
fn quoted(text: &str) -> Value {
    Value::String(Value::String(text.to_owned()).to_string())
}
