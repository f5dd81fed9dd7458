//! Requests to the services of the API server.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| livemerge_api_server::fuzzing::server_requests(bytes));
