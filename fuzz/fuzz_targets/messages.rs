#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| colloquy::fuzzing::run("messages", data));
