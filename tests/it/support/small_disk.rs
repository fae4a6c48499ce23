//! A disk of few megabytes, in memory, which can be filled.

use std::io::Write;
use std::path::PathBuf;
use std::process::Command;

/// Mounted; unmounted when this is dropped, whoever still uses it.
pub struct SmallDisk {
    path: PathBuf,
}

impl SmallDisk {
    /// `None`, with a line that says why, where this cannot be done: it takes root, and a system that lets root mount.
    pub fn mount(path: PathBuf, mib: u32) -> Option<Self> {
        std::fs::create_dir(&path).expect("a directory");
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &format!("size={mib}m,mode=0700"), "colloquy-test"]).arg(&path);
        match mount.output() {
            Ok(output) if output.status.success() => Some(Self { path }),
            told => {
                let why = match told {
                    Ok(output) => String::from_utf8_lossy(&output.stderr).trim().to_owned(),
                    Err(error) => error.to_string(),
                };
                println!("no disk is filled: a small one cannot be mounted here ({why})");
                std::fs::remove_dir(&path).expect("an empty directory");
                None
            }
        }
    }

    fn ballast(&self) -> PathBuf {
        self.path.join("ballast")
    }

    /// Takes all room there is.
    pub fn fill(&self) {
        let mut ballast = std::fs::File::create(self.ballast()).expect("a file");
        // To the last page: a larger piece is refused before that.
        for length in [1 << 20, 4 << 10] {
            let piece = vec![0; length];
            while ballast.write_all(&piece).is_ok() {}
        }
    }

    pub fn free(&self) {
        std::fs::remove_file(self.ballast()).expect("the ballast");
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily: a process that is being killed may have files open for another moment.
        Command::new("umount").arg("--lazy").arg(&self.path).status().ok();
    }
}
