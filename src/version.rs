//! Which build this is.

/// As in `Cargo.toml`.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The commit that a package was built from, 40 hexadecimal digits, with `-dirty` behind it where there were changes;
/// `None` in a build that `scripts/package` did not make.
pub const COMMIT: Option<&str> = option_env!("COLLOQUY_COMMIT");
