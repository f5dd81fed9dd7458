//! What QEMU's tools tell of images.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| livemerge_storage::fuzzing::qemu_json(bytes));
