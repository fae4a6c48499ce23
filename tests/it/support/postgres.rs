//! A PostgreSQL cluster and a PgBouncer of one test's own.

use std::path::PathBuf;
use std::process::Command;

use super::process::{children, exists, mortal, signal};
use super::small_disk::SmallDisk;
use super::{Port, Process, SOON, Surroundings, eventually};

/// Of the superuser `colloquy`; on loopback, for the length of one test.
const PASSWORD: &str = "private";

/// Stop, kill, freeze, start again: the ports and what was committed stay. Durable as in production, unlike the shared
/// cluster.
pub struct PrivatePostgres {
    surroundings: Surroundings,
    directory: PathBuf,
    direct: Port,
    pooled: Port,
    server: Option<Process>,
    pooler: Option<Process>,
    /// Where the server's data are, if that is a disk of their own.
    disk: Option<SmallDisk>,
}

impl PrivatePostgres {
    /// A new cluster behind its own pooler.
    pub async fn start() -> Self {
        Self::start_on(None).await
    }

    /// The same on a disk of so many MiB, which can be filled; on the machine's own where no disk can be mounted
    /// ([`Self::has_small_disk`]).
    pub async fn start_on_small_disk(mib: u32) -> Self {
        Self::start_on(Some(mib)).await
    }

    async fn start_on(mib: Option<u32>) -> Self {
        let surroundings = Surroundings::read();
        let directory = surroundings.directory("postgres");
        let disk = mib.and_then(|mib| SmallDisk::mount(directory.join("data"), mib));
        let (direct, pooled) = (Port::claim(&surroundings), Port::claim(&surroundings));
        let user = &surroundings.postgres_user;
        if !user.is_empty() {
            let mut chown = Command::new("chown");
            let owned = chown.arg("-R").arg(user).arg(&directory).status().expect("chown");
            assert!(owned.success(), "chown {user} {}", directory.display());
        }
        let password = directory.join("password");
        std::fs::write(&password, PASSWORD).expect("a password");
        let mut initdb = mortal(surroundings.postgres_bin.join("initdb"), user);
        initdb.arg("-D").arg(directory.join("data")).args([
            "-U",
            "colloquy",
            "--auth=scram-sha-256",
            "-E",
            "UTF8",
        ]);
        initdb.arg("--pwfile").arg(&password).args(["--locale=C.UTF-8", "--no-sync"]).current_dir(&directory);
        let status = Process::start("initdb", initdb).end(SOON).await;
        assert!(status.success(), "initdb ended with {status}");

        let mut postgres = Self { surroundings, directory, direct, pooled, server: None, pooler: None, disk };
        postgres.start_again().await;
        postgres.start_pooler().await;
        postgres
    }

    pub fn pooled_url(&self, database: &str) -> String {
        format!("postgres://colloquy:{PASSWORD}@127.0.0.1:{}/{database}", self.pooled.number())
    }

    pub fn direct_url(&self, database: &str) -> String {
        format!("postgres://colloquy:{PASSWORD}@127.0.0.1:{}/{database}", self.direct.number())
    }

    /// The server's own port, for a [`super::Proxy`].
    pub fn direct_port(&self) -> u16 {
        self.direct.number()
    }

    pub fn pooled_port(&self) -> u16 {
        self.pooled.number()
    }

    /// Starts the server where it was; after a kill that means recovery.
    pub async fn start_again(&mut self) {
        assert!(self.server.is_none(), "PostgreSQL runs already");
        let binaries = &self.surroundings.postgres_bin;
        let mut command = mortal(binaries.join("postgres"), &self.surroundings.postgres_user);
        command.arg("-D").arg(self.directory.join("data")).current_dir(&self.directory);
        command.arg(format!("--port={}", self.direct.number()));
        command.args(["--listen_addresses=127.0.0.1", "--unix_socket_directories=", "--shared_buffers=32MB"]);
        command.args(["--max_connections=100", "--timezone=UTC", "--client_connection_check_interval=5s"]);
        if self.disk.is_some() {
            // Its log alone would fill it.
            command.args(["--max_wal_size=64MB", "--min_wal_size=32MB"]);
        }
        self.server = Some(Process::start("postgres", command));
        let (ready, port) = (binaries.join("pg_isready"), self.direct.number().to_string());
        eventually("PostgreSQL", SOON, async || {
            let answer = Command::new(&ready).args(["-q", "-h", "127.0.0.1", "-p", &port]).status();
            answer.expect("pg_isready").success()
        })
        .await;
    }

    pub fn has_small_disk(&self) -> bool {
        self.disk.is_some()
    }

    /// Leaves nothing of its disk.
    pub fn fill_disk(&self) {
        self.disk.as_ref().expect("a disk of its own").fill();
    }

    /// Gives the room back, and starts the server again if it did not bear the want of it.
    pub async fn free_disk(&mut self) {
        self.disk.as_ref().expect("a disk of its own").free();
        if self.server.as_mut().expect("a server").ended().is_some() {
            self.server = None;
            self.start_again().await;
        }
    }

    /// PgBouncer as in front of the real database.
    pub async fn start_pooler(&mut self) {
        let file = self.directory.join("pgbouncer.ini");
        let (direct, pooled) = (self.direct.number(), self.pooled.number());
        let users = self.directory.join("users.txt");
        std::fs::write(&users, format!("\"colloquy\" \"{PASSWORD}\"\n")).expect("users.txt");
        let users = users.display();
        let text = format!(
            "[databases]\n* = host=127.0.0.1 port={direct}\n[pgbouncer]\nlisten_addr = 127.0.0.1\n\
             listen_port = {pooled}\nunix_socket_dir =\nauth_type = scram-sha-256\nauth_file = {users}\n\
             pool_mode = transaction\n\
             default_pool_size = 10\nmax_client_conn = 500\nserver_login_retry = 1\nserver_connect_timeout = 3\n\
             ignore_startup_parameters = extra_float_digits,options\n"
        );
        std::fs::write(&file, text).expect("pgbouncer.ini");
        let mut command = mortal(&self.surroundings.pgbouncer, &self.surroundings.postgres_user);
        command.arg(&file).current_dir(&self.directory);
        self.pooler = Some(Process::start("pgbouncer", command));
        eventually("PgBouncer", SOON, async || self.pooled.answers()).await;
    }

    /// An orderly shutdown that does not wait for clients. The pooler stays, as it would.
    pub async fn stop(&mut self) {
        if let Some(mut server) = self.server.take() {
            server.signal("INT");
            server.end(SOON).await;
        }
    }

    /// SIGKILL to the server and every backend.
    pub async fn kill(&mut self) {
        if let Some(mut server) = self.server.take() {
            let backends = children(server.pid());
            server.kill();
            for pid in &backends {
                signal(*pid, "KILL");
            }
            // Until all are gone, their shared memory keeps a new server from starting.
            eventually("the end of all backends", SOON, async || !backends.iter().any(|pid| exists(*pid)))
                .await;
        }
    }

    /// SIGKILL to the pooler.
    pub fn kill_pooler(&mut self) {
        if let Some(mut pooler) = self.pooler.take() {
            pooler.kill();
        }
    }

    /// Server and backends stopped where they are: connections stay and nothing answers.
    pub fn freeze(&self) {
        self.signal_all("STOP");
    }

    pub fn thaw(&self) {
        self.signal_all("CONT");
    }

    fn signal_all(&self, name: &str) {
        let server = self.server.as_ref().expect("a running PostgreSQL").pid();
        // The postmaster first, or it could start another backend meanwhile.
        signal(server, name);
        for backend in children(server) {
            signal(backend, name);
        }
    }
}

impl Drop for PrivatePostgres {
    fn drop(&mut self) {
        self.pooler = None;
        if let Some(server) = self.server.take() {
            let backends = children(server.pid());
            drop(server);
            for pid in &backends {
                signal(*pid, "KILL");
            }
        }
        self.disk = None;
        std::fs::remove_dir_all(&self.directory).ok();
    }
}
