//! The session as a driver sees it: events in, actions out, time by hand.

#![allow(unreachable_pub, reason = "a test has no outside")]

mod connect;
mod deliver;
mod inbox;
mod publish;
mod rig;
mod subscribe;
