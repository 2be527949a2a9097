//! `doctor` and `auth check` on the real binary: each injected fault yields the right named cause,
//! no other failure, and the exit code of its area; and no secret is ever printed.
#![allow(
    unreachable_pub,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic
)]

mod access;
mod machine;
mod network;
mod patient;
mod receivers;
#[allow(dead_code)]
#[path = "../end_to_end/scene.rs"]
mod scene;
mod servers;
mod service;
