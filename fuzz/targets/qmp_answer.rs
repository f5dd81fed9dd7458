//! What QEMU's monitor tells of its devices.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| livemerge_host_agent::fuzzing::qmp_answer(bytes));
