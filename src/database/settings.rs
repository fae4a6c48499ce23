//! What the database layer has to be told, and what is refused before anything is tried.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};
use tokio_postgres::config::{Host, SslMode};

/// The largest pool one process may have: instances × pool must stay within the server's limit.
pub const POOL_SIZE_LIMIT: usize = 15;

/// How a login is made.
#[derive(Clone, Debug)]
pub enum DatabaseAuth {
    /// `DB_AUTH_MODE=password`: the password in the URL, or this one (`DB_PASSWORD`) in its place.
    Password(Option<SecretString>),
    /// `DB_AUTH_MODE=entra`: an access token per new connection; the URL's user is the role's name.
    Entra,
}

/// Everything the database layer is told. [`DatabaseSettings::new`] fills in the defaults.
#[derive(Clone, Debug)]
pub struct DatabaseSettings {
    /// `DATABASE_URL`: through the pooler.
    pub url: SecretString,
    /// `DATABASE_DIRECT_URL`: past the pooler, for migrations only. Without it migrations use `url`.
    pub direct_url: Option<SecretString>,
    /// `DB_AUTH_MODE`, `DB_PASSWORD`.
    pub auth: DatabaseAuth,
    /// `DB_CA_FILE`: PEM file of certificate authorities to trust besides the system's.
    pub ca_file: Option<PathBuf>,
    /// `DB_POOL_SIZE`: connections per process, 1 to [`POOL_SIZE_LIMIT`].
    pub pool_size: usize,
    /// `DB_POOL_WAIT`: how long a caller waits for a free connection.
    pub pool_wait: Duration,
    /// `DB_CONNECTION_MAX_AGE`: a connection older than this (less up to a tenth, so that not all end at once)
    /// is replaced at its next use.
    pub max_age: Duration,
    /// `DB_CONNECT_TIMEOUT`: for name, TCP, TLS, token and login together.
    pub connect_timeout: Duration,
    /// `DB_STATEMENT_TIMEOUT`: how long a statement may take, seen from here.
    pub statement_timeout: Duration,
}

/// A setting that cannot work. Names the variable, never its value where that may hold a secret.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{variable} {problem}")]
pub struct SettingsError {
    pub variable: &'static str,
    pub problem: String,
}

impl DatabaseSettings {
    /// Defaults of an always-on process: password mode, 10 connections.
    pub fn new(url: SecretString) -> Self {
        Self {
            url,
            direct_url: None,
            auth: DatabaseAuth::Password(None),
            ca_file: None,
            pool_size: 10,
            pool_wait: Duration::from_secs(30),
            max_age: Duration::from_secs(1_800),
            connect_timeout: Duration::from_secs(10),
            statement_timeout: Duration::from_secs(20),
        }
    }

    /// The same for a function instance, of which there may be hundreds: 4 connections.
    pub fn for_function_instance(url: SecretString) -> Self {
        Self { pool_size: 4, ..Self::new(url) }
    }

    /// Every mistake that can be seen without connecting.
    pub fn check(&self) -> Vec<SettingsError> {
        let mut mistakes = Vec::new();
        mistakes.extend(Target::parse("DATABASE_URL", &self.url).err());
        if let Some(url) = &self.direct_url {
            mistakes.extend(Target::parse("DATABASE_DIRECT_URL", url).err());
        }
        if !(1..=POOL_SIZE_LIMIT).contains(&self.pool_size) {
            mistakes.push(SettingsError {
                variable: "DB_POOL_SIZE",
                problem: format!("is {}; it must be from 1 to {POOL_SIZE_LIMIT}", self.pool_size),
            });
        }
        for (variable, value) in [
            ("DB_POOL_WAIT", self.pool_wait),
            ("DB_CONNECTION_MAX_AGE", self.max_age),
            ("DB_CONNECT_TIMEOUT", self.connect_timeout),
            ("DB_STATEMENT_TIMEOUT", self.statement_timeout),
        ] {
            if value.is_zero() {
                mistakes.push(SettingsError { variable, problem: "is 0; it must be positive".to_owned() });
            }
        }
        mistakes
    }
}

/// A parsed URL. Whether TLS is used on the way stands in `config` (`Require` or `Disable`, nothing between).
#[derive(Clone)]
pub(super) struct Target {
    pub config: tokio_postgres::Config,
    /// `host:port/database`, for messages.
    pub server: String,
}

impl Target {
    /// Applies the TLS rule: required except to this machine, where it is used when `sslmode` asks for it.
    pub fn parse(variable: &'static str, url: &SecretString) -> Result<Self, SettingsError> {
        let wrong = |problem: String| SettingsError { variable, problem };
        // libpq's two stricter modes are what is done here whenever TLS is on; tokio-postgres knows neither.
        let text = url
            .expose_secret()
            .replace("sslmode=verify-full", "sslmode=require")
            .replace("sslmode=verify-ca", "sslmode=require");
        if text.contains("sslrootcert=") {
            return Err(wrong("has sslrootcert; name the file in DB_CA_FILE instead".to_owned()));
        }
        let mut config: tokio_postgres::Config = text
            .parse()
            .map_err(|_| wrong("is not a PostgreSQL URL (postgres://user@host:port/database)".to_owned()))?;
        if config.get_hosts().is_empty() && config.get_hostaddrs().is_empty() {
            return Err(wrong("names no host".to_owned()));
        }
        if config.get_user().is_none() {
            return Err(wrong("names no user".to_owned()));
        }
        let local =
            config.get_hosts().iter().all(is_local) && config.get_hostaddrs().iter().all(IpAddr::is_loopback);
        let tls = match config.get_ssl_mode() {
            SslMode::Disable if !local => {
                return Err(wrong(
                    "has sslmode=disable, but its host is not this machine: TLS is required. Remove it; a \
                     private certificate authority is named in DB_CA_FILE"
                        .to_owned(),
                ));
            }
            SslMode::Require => true,
            _ => !local,
        };
        config.ssl_mode(if tls { SslMode::Require } else { SslMode::Disable });
        let server = server(&config);
        Ok(Self { config, server })
    }
}

fn is_local(host: &Host) -> bool {
    match host {
        Host::Unix(_) => true,
        Host::Tcp(name) => {
            let name = name.trim_start_matches('[').trim_end_matches(']');
            name.eq_ignore_ascii_case("localhost") || name.parse().is_ok_and(|ip: IpAddr| ip.is_loopback())
        }
    }
}

fn server(config: &tokio_postgres::Config) -> String {
    let ports = config.get_ports();
    let hosts: Vec<String> = match config.get_hosts() {
        [] => config.get_hostaddrs().iter().map(ToString::to_string).collect(),
        hosts => hosts
            .iter()
            .map(|host| match host {
                Host::Tcp(name) => name.clone(),
                Host::Unix(path) => path.display().to_string(),
            })
            .collect(),
    };
    let hosts: Vec<String> = hosts
        .into_iter()
        .enumerate()
        .map(|(i, host)| format!("{host}:{}", ports.get(i).or(ports.first()).copied().unwrap_or(5432)))
        .collect();
    let database = config.get_dbname().or(config.get_user()).unwrap_or_default();
    format!("{}/{database}", hosts.join(","))
}
