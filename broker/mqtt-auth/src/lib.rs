//! Who may connect, and who may do what: two ports, and the provider that comes with the broker.
//!
//! [`Authenticator`] says who a client is, once per connection, and may take its time. [`Authorizer`] gives [`Permissions`]: the rules
//! that concern one client, compiled, so that the way of a message only compares texts. Permissions carry a generation; when
//! [`Authorizer::generation`] differs, they are asked for again, and what was cached from them is forgotten.
//!
//! [`Access`] is the provider: a file of users and a file of rules, reloaded whole or not at all; without files, whoever may
//! connect may do everything except publish to `$…`. Whatever fails denies.

mod access;
mod acl;
mod limiter;
mod password;
mod pattern;
mod permissions;
mod port;
mod rule;
mod users;

pub use access::{Access, AccessConfig, AccessError, Anonymous};
pub use acl::AclError;
pub use limiter::LoginLimit;
pub use password::{HashCost, PasswordError, hash_password};
pub use permissions::{Permissions, Subscribing};
pub use port::{Authenticator, Authorizer, ConnectInfo, Decision, Exchange, Principal, Refusal};
pub use rule::Rules;
pub use users::{Users, UsersError};
