//! Giving memory back: an idle handler is small also after a batch.
//!
//! glibc keeps what was freed: an arena for every thread, and after the first large block that is freed a threshold
//! raised so far that neither later blocks nor the heap's end go back. It can be told otherwise, but only by the
//! environment and only before the program starts; so the program that the host starts replaces itself once, which
//! costs two milliseconds and keeps its process id. What is free in the middle of the heap goes back only when asked
//! for, and we ask when a burst of work is over. `scripts/measure` shows what both bring.

use std::os::unix::process::CommandExt;
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

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

/// How often it is asked whether a burst of work is over.
pub const EVERY: Duration = Duration::from_secs(5);

/// Calls in that time with which it is over: the timers of all, and a few deliveries. Not in the middle of a burst, since
/// nobody else can allocate while memory is given back.
const STILL: u64 = 25;

/// How many calls there had been when memory was last given back, and when that was last asked.
#[derive(Debug, Default)]
pub struct Trimmer {
    given_back_at: AtomicU64,
    asked_at: AtomicU64,
}

impl Trimmer {
    /// Gives free pages back to the system if a burst of work is over.
    pub fn look(&self, calls: u64) {
        if self.is_due(calls) {
            trim();
        }
    }

    /// Whether hardly any of the `calls` came since the last look, but one since memory was last given back.
    fn is_due(&self, calls: u64) -> bool {
        let still = calls - self.asked_at.swap(calls, Ordering::Relaxed) <= STILL;
        still && self.given_back_at.swap(calls, Ordering::Relaxed) != calls
    }
}

#[cfg(target_env = "gnu")]
#[expect(unsafe_code, reason = "only the allocator can give back what is free between what is used")]
fn trim() {
    // SAFETY: malloc_trim takes no pointer, locks what it needs, and touches free memory only.
    unsafe { libc::malloc_trim(0) };
}

#[cfg(not(target_env = "gnu"))]
fn trim() {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_goes_back_once_after_a_burst_and_never_in_the_middle_of_one() {
        let trimmer = Trimmer::default();
        assert!(!trimmer.is_due(0), "nothing was done");
        assert!(!trimmer.is_due(STILL + 1) && !trimmer.is_due(10 * STILL), "a burst goes on");
        assert!(trimmer.is_due(10 * STILL), "it is over");
        assert!(!trimmer.is_due(10 * STILL), "and nothing came since");
        assert!(trimmer.is_due(10 * STILL + 1), "a timer ticked");
    }
}
