//! An Azurite of one test's own, with its store on disk.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use super::process::mortal;
use super::{Port, Process, SOON, Surroundings, eventually};

/// The well-known development account; not a secret.
const ACCOUNT: &str = "devstoreaccount1";
const KEY: &str = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==";

/// Node reads a thousand files first, and other tests keep the disk and the processor busy.
const STARTED: Duration = Duration::from_secs(60);

/// Start, stop, kill, start again: the ports and what was stored stay.
pub struct PrivateAzurite {
    surroundings: Surroundings,
    directory: PathBuf,
    blob: Port,
    queue: Port,
    table: Port,
    process: Option<Process>,
}

impl PrivateAzurite {
    pub async fn start() -> Self {
        let surroundings = Surroundings::read();
        let directory = surroundings.directory("azurite");
        let [blob, queue, table] = [(); 3].map(|()| Port::claim(&surroundings));
        let mut azurite = Self { surroundings, directory, blob, queue, table, process: None };
        azurite.start_again().await;
        azurite
    }

    pub fn connection_string(&self) -> String {
        Self::through(self.blob.number(), self.queue.number())
    }

    /// The same through ports of [`super::Proxy`]s to [`Self::ports`].
    pub fn through(blob: u16, queue: u16) -> String {
        format!(
            "DefaultEndpointsProtocol=http;AccountName={ACCOUNT};AccountKey={KEY};\
             BlobEndpoint=http://127.0.0.1:{blob}/{ACCOUNT};QueueEndpoint=http://127.0.0.1:{queue}/{ACCOUNT};"
        )
    }

    /// Of blobs and of queues.
    pub fn ports(&self) -> [u16; 2] {
        [self.blob.number(), self.queue.number()]
    }

    /// Starts it where it was. The store is read back from disk.
    pub async fn start_again(&mut self) {
        assert!(self.process.is_none(), "Azurite runs already");
        let mut command: Command = mortal("node", "");
        command.arg(&self.surroundings.azurite_js).arg("--location").arg(&self.directory);
        command.args(["--silent", "--skipApiVersionCheck", "--disableTelemetry"]);
        for (name, port) in [("blob", &self.blob), ("queue", &self.queue), ("table", &self.table)] {
            command.arg(format!("--{name}Port")).arg(port.number().to_string());
        }
        self.process = Some(Process::start("azurite", command));
        eventually("Azurite", STARTED, async || self.blob.answers() && self.queue.answers()).await;
    }

    /// SIGTERM, as a machine going down sends it: the store is written first.
    pub async fn stop(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.signal("TERM");
            process.end(SOON).await;
        }
    }

    /// SIGKILL. Azurite writes its store now and then: what it accepted in the last seconds may be gone.
    pub fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill();
        }
    }

    /// Stopped where it is; connections stay and nothing answers.
    pub fn freeze(&self) {
        self.process.as_ref().expect("a running Azurite").signal("STOP");
    }

    pub fn thaw(&self) {
        self.process.as_ref().expect("a running Azurite").signal("CONT");
    }
}

impl Drop for PrivateAzurite {
    fn drop(&mut self) {
        self.process = None;
        std::fs::remove_dir_all(&self.directory).ok();
    }
}
