//! Dying with the host.
//!
//! The host is often killed without a chance to stop its handler, which would then keep the port and go on
//! working under a host that has already started another.

use std::io;

/// Makes this process end when its parent does. Call it early in `main`, before anything is worth finishing.
///
/// The kernel's parent-death signal (`prctl(PR_SET_PDEATHSIG)`) comes when the *thread* that forked us ends,
/// not the process, and .NET's pool ends idle threads while the host lives on. So the signal is not
/// `SIGKILL`: it is `SIGURG`, ignored by default and by everybody, with a handler that asks whether the
/// parent is still the one we had and kills this process only if not. The kernel sends the signal again for
/// each thread that takes the child over and ends, so the last one is never missed.
///
/// Errors are the kernel's. On other systems than Linux this does nothing: an orphan there is found by its
/// port.
pub fn die_with_parent() -> io::Result<()> {
    #[cfg(target_os = "linux")]
    linux::arm()?;
    Ok(())
}

#[cfg(target_os = "linux")]
mod linux {
    use std::io;
    use std::os::unix::process::parent_id;
    use std::sync::atomic::{AtomicI32, Ordering};

    static PARENT: AtomicI32 = AtomicI32::new(0);

    /// Runs as a signal handler: only an atomic and three async-signal-safe system calls.
    #[expect(unsafe_code, reason = "std has no kill, and a signal handler may call little else")]
    extern "C" fn check_parent(_signal: libc::c_int) {
        // SAFETY: getppid, getpid and kill take no pointers and are async-signal-safe (signal-safety(7)).
        unsafe {
            if libc::getppid() != PARENT.load(Ordering::Relaxed) {
                libc::kill(libc::getpid(), libc::SIGKILL);
            }
        }
    }

    #[expect(unsafe_code, reason = "std offers neither sigaction nor prctl")]
    pub(super) fn arm() -> io::Result<()> {
        let parent = parent_id();
        PARENT.store(parent.cast_signed(), Ordering::Relaxed);
        // SAFETY: `action` is zeroed, which is a valid sigaction with an empty mask, and lives over the call;
        // the handler has the signature that flags without SA_SIGINFO ask for and does nothing that is not
        // signal-safe. prctl's option takes one integer. Neither keeps a pointer of ours.
        let armed = unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            action.sa_sigaction = check_parent as *const () as libc::sighandler_t;
            action.sa_flags = libc::SA_RESTART;
            libc::sigaction(libc::SIGURG, &raw const action, std::ptr::null_mut()) == 0
                && libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGURG as libc::c_ulong) == 0
        };
        if !armed {
            return Err(io::Error::last_os_error());
        }
        // It may have ended between the two; no signal comes for that.
        check_parent(libc::SIGURG);
        Ok(())
    }
}
