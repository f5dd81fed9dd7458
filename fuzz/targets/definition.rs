//! libvirt's definition of a machine.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| livemerge_host_agent::fuzzing::definition(bytes));
