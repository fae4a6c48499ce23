//! TLS to a PostgreSQL with a certificate from a throwaway authority.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use secrecy::SecretString;

use super::support::eventually;
use crate::database::{Columns, Database, DatabaseError, DatabaseSettings, Statements};

#[tokio::test]
async fn connections_are_encrypted_and_the_certificate_is_verified() {
    let server = TlsServer::start().await;
    let open = |host: &str, mode: &str, authority: Option<PathBuf>| {
        let url = format!("postgres://tls@{host}:{}/postgres?sslmode={mode}", server.port);
        let mut settings = DatabaseSettings::new(SecretString::from(url));
        settings.ca_file = authority;
        Database::new(settings, None).expect("settings")
    };
    let encrypted = async |database: &Database| -> Result<bool, DatabaseError> {
        let sql = "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()";
        database.client().await?.query_one("encrypted", sql, &[]).await?.column("ssl")
    };
    let authority = Some(server.directory.join("authority.crt"));

    for mode in ["require", "verify-full"] {
        assert!(encrypted(&open("localhost", mode, authority.clone())).await.expect("a connection"));
    }

    let stranger = encrypted(&open("localhost", "require", None)).await.expect_err("an unknown authority");
    assert_eq!((stranger.code(), stranger.is_outage()), ("database_unreachable", true));
    assert!(stranger.to_string().contains("certificate"), "{stranger}");

    let elsewhere = encrypted(&open("127.0.0.1", "require", authority.clone())).await;
    let elsewhere = elsewhere.expect_err("a certificate for another name");
    assert!(elsewhere.to_string().contains("certificate"), "{elsewhere}");

    // Its pg_hba.conf wants TLS.
    let plain = encrypted(&open("localhost", "disable", None)).await.expect_err("without TLS");
    assert_eq!(plain.sql_state(), Some("28000"), "{plain}");

    let lost = encrypted(&open("localhost", "require", Some("/nowhere/ca.pem".into()))).await;
    let lost = lost.expect_err("no such file");
    assert!(lost.to_string().contains("DB_CA_FILE"), "{lost}");
}

/// Gone when dropped, its directory as well.
struct TlsServer {
    directory: PathBuf,
    port: u16,
    process: Child,
}

impl TlsServer {
    async fn start() -> Self {
        let directory =
            PathBuf::from(variable("COLLOQUY_TEST_DIR")).join(format!("tls-{}", uuid::Uuid::now_v7()));
        std::fs::create_dir_all(&directory).expect("a directory");
        make_certificates(&directory);
        let user = variable("COLLOQUY_TEST_POSTGRES_USER");
        if !user.is_empty() {
            done(Command::new("chown").arg("-R").arg(&user).arg(&directory));
        }
        let data = directory.join("data");
        done(as_user(&user, "initdb", &directory).arg("-D").arg(&data).args([
            "--username=tls",
            "--auth=trust",
            "--no-sync",
        ]));
        std::fs::write(data.join("pg_hba.conf"), "hostssl all all all trust\n").expect("pg_hba.conf");
        let port = free_port();
        let process = as_user(&user, "postgres", &directory)
            .arg("-D")
            .arg(&data)
            .arg(format!("--port={port}"))
            .args(["--listen_addresses=localhost", "--unix_socket_directories=", "--shared_buffers=16MB"])
            .args(["--ssl=on", "--fsync=off"])
            .arg(format!("--ssl_cert_file={}", directory.join("server.crt").display()))
            .arg(format!("--ssl_key_file={}", directory.join("server.key").display()))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("postgres");
        let server = Self { directory, port, process };
        eventually("PostgreSQL with TLS", async || {
            let port = port.to_string();
            Command::new(binary("pg_isready"))
                .args(["-q", "-h", "localhost", "-p", &port])
                .status()
                .expect("pg_isready")
                .success()
        })
        .await;
        server
    }
}

impl Drop for TlsServer {
    fn drop(&mut self) {
        // SIGKILL leaves a server's children; they end on their own when it is gone.
        drop(self.process.kill());
        drop(self.process.wait());
        drop(std::fs::remove_dir_all(&self.directory));
    }
}

/// An authority and a certificate of its for `localhost`.
fn make_certificates(directory: &Path) {
    let openssl = |arguments: &[&str]| {
        let mut command = Command::new("openssl");
        done(command.args(arguments).current_dir(directory).stderr(Stdio::null()));
    };
    let key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"];
    let authority = [
        "req",
        "-x509",
        "-days",
        "2",
        "-subj",
        "/CN=throwaway",
        "-keyout",
        "authority.key",
        "-out",
        "authority.crt",
    ];
    openssl(&[&authority[..], &key].concat());
    openssl(
        &[&["req", "-subj", "/CN=localhost", "-keyout", "server.key", "-out", "server.csr"][..], &key]
            .concat(),
    );
    std::fs::write(directory.join("names"), "subjectAltName=DNS:localhost\n").expect("a file");
    openssl(&[
        "x509",
        "-req",
        "-days",
        "2",
        "-in",
        "server.csr",
        "-CA",
        "authority.crt",
        "-CAkey",
        "authority.key",
        "-CAcreateserial",
        "-extfile",
        "names",
        "-out",
        "server.crt",
    ]);
}

fn done(command: &mut Command) {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// PostgreSQL refuses to run as root. Ends with the test's thread, should that end without a word.
fn as_user(user: &str, program: &str, directory: &Path) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL"]).current_dir(directory);
    if !user.is_empty() {
        command.arg(format!("--reuid={user}")).arg(format!("--regid={user}")).arg("--clear-groups");
    }
    command.arg(binary(program));
    command
}

fn binary(program: &str) -> PathBuf {
    PathBuf::from(variable("COLLOQUY_TEST_POSTGRES_BIN")).join(program)
}

fn variable(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| panic!("{name} is not set: run scripts/test"))
}

fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.local_addr().expect("an address").port()
}
