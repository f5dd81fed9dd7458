//! The first bytes of an image.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| livemerge_storage::fuzzing::qcow2_head(bytes));
