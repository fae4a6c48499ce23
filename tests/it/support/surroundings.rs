//! Where the services of `scripts/test` are, and names that nobody else has.

use std::path::PathBuf;

/// What `scripts/test` exports; see `scripts/services`, which lists it.
pub struct Surroundings {
    /// The shared cluster through PgBouncer (transaction mode), as superuser, database `postgres`.
    pub pooled_url: String,
    /// The same cluster, directly.
    pub direct_url: String,
    /// Connection string of the shared Azurite.
    pub azurite: String,
    /// `initdb`, `postgres`, `dropdb` are here.
    pub postgres_bin: PathBuf,
    /// The PgBouncer program.
    pub pgbouncer: PathBuf,
    /// The Redis program.
    pub redis: PathBuf,
    /// Whom private servers run as; empty: as the tests do.
    pub postgres_user: String,
    /// Azurite's entry script, for `node`.
    pub azurite_js: PathBuf,
    /// Where private servers and app roots live; removed by `scripts/test`.
    pub scratch: PathBuf,
}

impl Surroundings {
    /// Reads `COLLOQUY_TEST_*`.
    pub fn read() -> Self {
        Self {
            pooled_url: variable("COLLOQUY_TEST_DATABASE_URL"),
            direct_url: variable("COLLOQUY_TEST_DATABASE_DIRECT_URL"),
            azurite: variable("COLLOQUY_TEST_AZURITE"),
            postgres_bin: variable("COLLOQUY_TEST_POSTGRES_BIN").into(),
            pgbouncer: variable("COLLOQUY_TEST_PGBOUNCER").into(),
            redis: variable("COLLOQUY_TEST_REDIS").into(),
            postgres_user: variable("COLLOQUY_TEST_POSTGRES_USER"),
            azurite_js: variable("COLLOQUY_TEST_AZURITE_JS").into(),
            scratch: variable("COLLOQUY_TEST_DIR").into(),
        }
    }

    /// A new directory under `scratch`.
    pub fn directory(&self, purpose: &str) -> PathBuf {
        let path = self.scratch.join(unique(purpose));
        std::fs::create_dir(&path).expect("a directory under COLLOQUY_TEST_DIR");
        path
    }
}

fn variable(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| {
        panic!(
            "{name} is not set. Run the tests with scripts/test, or load `scripts/services up .local/test`."
        )
    })
}

/// Prints what a test counted or measured. `scripts/test` shows it again at its end, since a runner of tests hides what
/// passing ones print.
pub fn report(name: &str, text: &str) {
    println!("{text}");
    if let Some(directory) = std::env::var_os("COLLOQUY_TEST_REPORTS") {
        std::fs::write(PathBuf::from(directory).join(format!("{name}.txt")), text).expect("a report");
    }
}

/// The `function-handlers` under test: the debug build, or the release build that `scripts/measure` names.
pub fn handlers_program() -> PathBuf {
    std::env::var_os(RELEASE_BUILD)
        .map_or_else(|| env!("CARGO_BIN_EXE_function-handlers").into(), PathBuf::from)
}

/// Whether the program under test is a release build, for which the issue's own bounds hold.
pub fn is_release_build() -> bool {
    std::env::var_os(RELEASE_BUILD).is_some()
}

const RELEASE_BUILD: &str = "COLLOQUY_TEST_RELEASE_HANDLERS";

/// A name nobody else has: lower-case letters, digits and hyphens, as queues and directories want them.
pub fn unique(purpose: &str) -> String {
    format!("{purpose}-{}", uuid::Uuid::now_v7().simple())
}

/// The repository.
pub fn repository() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}
