//! The session as a driver sees it: events in, actions out, time by hand.

#![allow(unreachable_pub, clippy::unwrap_used, clippy::expect_used, reason = "all of this is a test")]

mod connect;
mod deliver;
mod exactly_once;
mod inbox;
mod laws;
mod pair;
mod publish;
mod rig;
mod subscribe;
mod transcripts;
