//! Requests to the services of an agent.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| livemerge_host_agent::fuzzing::agent_requests(bytes));
