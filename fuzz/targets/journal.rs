//! A file of the agent's journal.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| livemerge_host_agent::fuzzing::journal(bytes));
