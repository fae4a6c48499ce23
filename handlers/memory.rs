//! Giving memory back: an idle handler is small also after a batch.
//!
//! glibc keeps what was freed: an arena for every thread, and after the first large block that is freed a threshold
//! raised so far that neither later blocks nor the heap's end go back. It can be told otherwise, but only by the
//! environment and only before the program starts; so the program that the host starts replaces itself once, which
//! costs two milliseconds and keeps its process id. `scripts/measure` shows what it brings.

use std::os::unix::process::CommandExt;
use std::process::Command;

use colloquy::config::Environment;

const TUNABLES: &str = "GLIBC_TUNABLES";

/// One arena; blocks from 32 KiB on are mapped, so that freeing returns them; the heap's free end goes from 64 KiB on.
const SMALL: &str = "glibc.malloc.arena_max=1:glibc.malloc.mmap_threshold=32768:\
                     glibc.malloc.trim_threshold=65536:glibc.malloc.top_pad=16384";

/// Replaces this process by the same program under the settings above. Returns if that was done, if somebody set
/// other ones, or if it cannot be done, which costs memory and nothing else.
pub fn keep_small(environment: &dyn Environment) {
    if !cfg!(target_env = "gnu") || environment.get(TUNABLES).is_some() {
        return;
    }
    // By its path, so that the process keeps its name.
    let Ok(program) = std::env::current_exe() else { return };
    let mut arguments = std::env::args_os();
    let mut command = Command::new(program);
    if let Some(name) = arguments.next() {
        command.arg0(name);
    }
    // Comes back only with an error: the program is gone from its place.
    drop(command.args(arguments).env(TUNABLES, SMALL).exec());
}
