//! Processes whose clock is wrong.

use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;

use super::Surroundings;

/// Stands before the C library's own and adds `SKEW_SECONDS` to the time of day; waits and timeouts stay as they are.
const SOURCE: &str = r#"
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <time.h>

int clock_gettime(clockid_t clock, struct timespec *at) {
    static int (*real)(clockid_t, struct timespec *);
    static long skew;
    if (!real) {
        const char *text = getenv("SKEW_SECONDS");
        skew = text ? atol(text) : 0;
        real = dlsym(RTLD_NEXT, "clock_gettime");
    }
    int code = real(clock, at);
    if (code == 0 && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)) at->tv_sec += skew;
    return code;
}
"#;

/// The settings of a process whose clock is so many seconds fast (or slow, below zero). Needs a C compiler, as the build
/// does.
pub fn skewed(seconds: i64) -> [(&'static str, String); 2] {
    static LIBRARY: OnceLock<PathBuf> = OnceLock::new();
    let library = LIBRARY.get_or_init(|| {
        let directory = Surroundings::read().directory("skew");
        let (source, library) = (directory.join("skew.c"), directory.join("skew.so"));
        std::fs::write(&source, SOURCE).expect("a source");
        let mut compiler = Command::new("cc");
        compiler.args(["-shared", "-fPIC", "-O1", "-o"]).arg(&library).arg(&source).arg("-ldl");
        assert!(compiler.status().expect("cc").success(), "cc");
        library
    });
    [("LD_PRELOAD", library.display().to_string()), ("SKEW_SECONDS", seconds.to_string())]
}
