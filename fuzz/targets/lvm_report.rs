//! What LVM reports of a volume group.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| livemerge_storage::fuzzing::lvm_report(bytes));
