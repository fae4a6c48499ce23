//! TLS: where it is required, and a real handshake with a real pooler under an authority made for the test.

use std::net::TcpStream;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use secrecy::{ExposeSecret, SecretString};
use tokio_postgres::config::SslMode;
use url::Url;

use super::support::{TestDatabase, eventually, test_url};
use crate::database::settings::{SettingsError, Target};
use crate::database::{Columns, Database, DatabaseError, DatabaseSettings, Statements};

fn mode(url: &str) -> Result<SslMode, SettingsError> {
    let target = Target::parse("DATABASE_URL", &SecretString::from(url))?;
    Ok(target.config.get_ssl_mode())
}

#[test]
fn tls_is_required_except_to_this_machine() {
    for url in [
        "postgres://u@db.example.com/x",
        "postgres://u@db.example.com/x?sslmode=prefer",
        "postgres://u@db.example.com/x?sslmode=require",
        "postgres://u@db.example.com/x?sslmode=verify-full",
        "postgres://u@db.example.com/x?sslmode=verify-ca",
        "postgres://u@10.0.0.4/x",
        "postgres://u@[2001:db8::1]/x",
        "postgres://u@localhost,db.example.com/x",
        "postgres://u@localhost/x?hostaddr=10.0.0.4",
        "postgres://u@localhost.example.com/x",
        "postgres://u@127.0.0.1/x?sslmode=require",
        "postgres://u@localhost/x?sslmode=verify-full",
        "host=db.example.com user=u",
    ] {
        assert_eq!(mode(url), Ok(SslMode::Require), "{url}");
    }
    for url in [
        "postgres://u@localhost/x",
        "postgres://u@LOCALHOST/x?sslmode=prefer",
        "postgres://u@127.0.0.1:6432/x?sslmode=disable",
        "postgres://u@127.9.9.9/x",
        "postgres://u@[::1]/x",
        "host=/run/postgresql user=u",
    ] {
        assert_eq!(mode(url), Ok(SslMode::Disable), "{url}");
    }
}

#[test]
fn what_would_weaken_tls_is_refused_without_quoting_the_url() {
    for (url, hint) in [
        ("postgres://u:hush@db.example.com/x?sslmode=disable", "TLS is required"),
        ("postgres://u:hush@10.0.0.4/x?sslmode=disable", "TLS is required"),
        ("postgres://u:hush@localhost,db.example.com/x?sslmode=disable", "TLS is required"),
        ("postgres://u:hush@db.example.com/x?sslrootcert=ca.pem", "DB_CA_FILE"),
        ("postgres://u:hush@db.example.com/x?sslmode=maybe", "not a PostgreSQL URL"),
        ("postgres:///x", "names no host"),
        ("postgres://db.example.com/x", "names no user"),
    ] {
        let error = mode(url).expect_err(url);
        assert!(error.to_string().contains(hint), "{url}: {error}");
        assert!(!format!("{error} {error:?}").contains("hush"), "{error}");
    }
}

#[tokio::test]
async fn a_server_without_tls_is_refused_when_tls_is_asked_for() {
    let test = TestDatabase::create().await;
    let mut url = test.direct.clone();
    url.set_query(Some("sslmode=require"));
    let database =
        Database::new(DatabaseSettings::new(SecretString::from(url.as_str())), None).expect("settings");
    let error = database.client().await.map(drop).expect_err("no TLS there");
    assert!(error.is_outage() && error.to_string().to_lowercase().contains("tls"), "{error}");
}

/// PgBouncer that accepts nothing but TLS, with a certificate for `localhost`.
struct TlsPooler {
    process: Child,
    directory: PathBuf,
    port: u16,
}

impl TlsPooler {
    async fn start() -> Self {
        let scratch = PathBuf::from(variable("COLLOQUY_TEST_DIR"));
        let directory = scratch.join(format!("tls-{}", uuid::Uuid::now_v7().simple()));
        std::fs::create_dir_all(&directory).expect("a directory");
        for name in ["ca", "stranger"] {
            let arguments =
                ["req", "-x509", "-days", "2", "-subj", "/CN=Test", "-keyout", &format!("{name}.key")];
            openssl(&directory, &[&arguments[..], &["-out", &format!("{name}.pem")], &NEW_KEY].concat());
        }
        let request = ["req", "-subj", "/CN=localhost", "-keyout", "server.key", "-out", "server.csr"];
        openssl(&directory, &[&request[..], &NEW_KEY].concat());
        std::fs::write(directory.join("names"), "subjectAltName=DNS:localhost\n").expect("a file");
        let sign =
            "x509 -req -in server.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -out server.pem";
        openssl(&directory, &sign.split(' ').chain(["-extfile", "names"]).collect::<Vec<_>>());

        let port = free_port();
        let server = test_url("COLLOQUY_TEST_DATABASE_DIRECT_URL");
        let (shown, upstream) = (directory.display(), server.port().expect("a port"));
        let settings = format!(
            "[databases]\n* = host=127.0.0.1 port={upstream}\n[pgbouncer]\nlisten_addr = 127.0.0.1\n\
             listen_port = {port}\nunix_socket_dir =\nauth_type = scram-sha-256\nauth_file = {shown}/users\n\
             pool_mode = transaction\nignore_startup_parameters = extra_float_digits\n\
             client_tls_sslmode = require\nclient_tls_key_file = {shown}/server.key\n\
             client_tls_cert_file = {shown}/server.pem\n"
        );
        std::fs::write(directory.join("ini"), settings).expect("a file");
        let user = format!("\"{}\" \"{}\"\n", server.username(), server.password().expect("a password"));
        std::fs::write(directory.join("users"), user).expect("a file");

        let mut command = Command::new(variable("COLLOQUY_TEST_PGBOUNCER"));
        command.arg(directory.join("ini")).stdout(Stdio::null()).stderr(Stdio::null());
        // PgBouncer refuses to run as root.
        let user = variable("COLLOQUY_TEST_POSTGRES_USER");
        if !user.is_empty() {
            let (uid, gid) = (id("-u", &user), id("-g", &user));
            for entry in std::fs::read_dir(&directory).expect("a directory") {
                chown(entry.expect("a file").path(), Some(uid), Some(gid)).expect("chown");
            }
            std::fs::set_permissions(&directory, PermissionsExt::from_mode(0o755)).expect("chmod");
            command.uid(uid).gid(gid);
        }
        let process = command.spawn().expect("PgBouncer");
        let pooler = Self { process, directory, port };
        eventually("PgBouncer listens", async || TcpStream::connect(("127.0.0.1", port)).is_ok()).await;
        pooler
    }

    /// Settings for a database behind it.
    fn settings(&self, host: &str, authority: Option<&str>) -> DatabaseSettings {
        let mut url: Url = test_url("COLLOQUY_TEST_DATABASE_DIRECT_URL");
        url.set_host(Some(host)).expect("a host");
        url.set_port(Some(self.port)).expect("a port");
        url.set_query(Some("sslmode=verify-full"));
        let mut settings = DatabaseSettings::new(SecretString::from(url.as_str()));
        settings.ca_file = authority.map(|name| self.directory.join(name));
        settings
    }
}

impl Drop for TlsPooler {
    fn drop(&mut self) {
        let ended = self.process.kill().and_then(|()| self.process.wait());
        let removed = std::fs::remove_dir_all(&self.directory);
        if ended.is_err() || removed.is_err() {
            eprintln!("{} was left behind: {ended:?}, {removed:?}", self.directory.display());
        }
    }
}

const NEW_KEY: [&str; 5] = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"];

fn openssl(directory: &Path, arguments: &[&str]) {
    let output = Command::new("openssl").args(arguments).current_dir(directory).output();
    let output = output.expect("the command openssl, which comes with PostgreSQL's packages");
    assert!(output.status.success(), "openssl {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
}

fn id(option: &str, user: &str) -> u32 {
    let output = Command::new("id").args([option, user]).output().expect("the command id");
    String::from_utf8_lossy(&output.stdout).trim().parse().expect("a number")
}

fn variable(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| panic!("{name} is not set; run scripts/test"))
}

fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.local_addr().expect("an address").port()
}

async fn answer(settings: DatabaseSettings) -> Result<i32, DatabaseError> {
    let password = settings.url.expose_secret().split(['@', ':']).nth(2).unwrap_or_default().to_owned();
    let database = Database::new(settings, None).expect("settings");
    let client = database.client().await.inspect_err(|error| {
        assert!(error.is_outage(), "{error}");
        assert!(!format!("{error} {error:?}").contains(&password), "no secret in an error");
    })?;
    client.query_one("answer", "SELECT 42 AS answer", &[]).await?.column("answer")
}

#[tokio::test]
async fn statements_go_through_tls_and_only_to_a_server_whose_certificate_is_good() {
    let pooler = TlsPooler::start().await;
    assert_eq!(answer(pooler.settings("localhost", Some("ca.pem"))).await.expect("an answer"), 42);

    let error = answer(pooler.settings("localhost", None)).await.expect_err("an unknown authority");
    assert!(error.to_string().contains("certificate"), "{error}");
    let error =
        answer(pooler.settings("localhost", Some("stranger.pem"))).await.expect_err("another authority");
    assert!(error.to_string().contains("certificate"), "{error}");
    let error = answer(pooler.settings("127.0.0.1", Some("ca.pem"))).await.expect_err("another name");
    assert!(error.to_string().contains("certificate"), "{error}");

    for (file, problem) in [("nowhere.pem", "cannot be read"), ("ini", "holds no certificate")] {
        let error = answer(pooler.settings("localhost", Some(file))).await.expect_err("no authority");
        assert!(error.to_string().contains("DB_CA_FILE") && error.to_string().contains(problem), "{error}");
    }

    let mut plain = pooler.settings("localhost", None);
    let url = plain.url.expose_secret().replace("verify-full", "disable");
    plain.url = SecretString::from(url);
    let error = answer(plain).await.expect_err("the pooler wants TLS");
    assert!(error.to_string().to_lowercase().contains("tls") || error.to_string().contains("SSL"), "{error}");
}
