//! What the compiler is given beside the sources: `migrations/`, of whose new files the macro that embeds them cannot tell
//! cargo, and the console, as far as `web/dist` was built.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::{env, fs, io};

/// Built without Node, the folder holds nothing else; then the server has no console.
const CONSOLE: &str = "web/dist";

#[expect(clippy::disallowed_methods, reason = "a build script is told by its environment alone")]
fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo::rerun-if-changed=migrations");
    println!("cargo::rerun-if-changed={CONSOLE}");
    let root = PathBuf::from(env::var("CARGO_MANIFEST_DIR")?).join(CONSOLE);
    let mut files = Vec::new();
    if root.join("index.html").exists() {
        collect(&root, &mut files)?;
    }
    files.sort();
    let mut code = String::from("const FILES: &[File] = &[\n");
    for file in &files {
        let name = file.strip_prefix(&root)?.to_string_lossy().replace('\\', "/");
        let gzip = PathBuf::from(format!("{}.gz", file.display()));
        let gzip = if gzip.exists() { format!("Some(include_bytes!({gzip:?}))") } else { "None".to_owned() };
        writeln!(code, "    File {{ path: {name:?}, plain: include_bytes!({file:?}), gzip: {gzip} }},")?;
    }
    code.push_str("];\n");
    fs::write(PathBuf::from(env::var("OUT_DIR")?).join("console.rs"), code)?;
    Ok(())
}

/// What browsers ask for: not the compressed copies, nor what is there for others.
fn collect(folder: &Path, files: &mut Vec<PathBuf>) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let served = path
            .extension()
            .is_some_and(|extension| ["html", "js", "css", "svg"].iter().any(|known| extension == *known));
        if path.is_dir() {
            collect(&path, files)?;
        } else if served {
            files.push(path);
        }
    }
    Ok(())
}
