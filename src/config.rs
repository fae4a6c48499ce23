//! Settings: `colloquy.toml` and the environment. Nothing else in the tree reads either.

pub mod app;
