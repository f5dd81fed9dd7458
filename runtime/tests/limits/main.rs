//! What a server refuses, and what it goes on with meanwhile, over real sockets on loopback.

#![allow(
    clippy::unwrap_used,
    reason = "what goes wrong in a test ends the test"
)]

mod age;
mod flood;
mod frames;
mod raw;
mod rig;
mod slow;
