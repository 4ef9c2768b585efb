use crate::Permissions;
use async_trait::async_trait;
use base_types::{ClientId, TenantId};
use bytes::Bytes;
use bytestring::ByteString;
use mqtt_codec::ReasonCode;
use std::fmt;
use std::net::IpAddr;

/// What a client shows when it connects.
#[derive(Clone)]
pub struct ConnectInfo {
    /// As sent; empty when the server is to assign one.
    pub client_id: ByteString,
    /// The user name.
    pub username: Option<ByteString>,
    /// The password, any bytes.
    pub password: Option<Bytes>,
    /// Where the client is: the address in a believed PROXY header, else that of the socket.
    pub peer: IpAddr,
    /// The end-entity certificate (DER) that TLS has verified.
    pub certificate: Option<Bytes>,
    /// Authentication Method and Data (5.0 §3.1.2.11.9): enhanced authentication.
    pub exchange: Option<Exchange>,
}

impl fmt::Debug for ConnectInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Never the password, nor what an authentication method sends in its place.
        f.debug_struct("ConnectInfo")
            .field("client_id", &self.client_id)
            .field("username", &self.username)
            .field("password", &self.password.as_ref().map(|_| "***"))
            .field("peer", &self.peer)
            .field("certificate", &self.certificate.is_some())
            .field("method", &self.exchange.as_ref().map(|exchange| &exchange.method))
            .finish()
    }
}

/// One step of enhanced authentication (5.0 §4.12).
#[derive(Clone)]
pub struct Exchange {
    /// The method of the connection.
    pub method: ByteString,
    /// What the client sent.
    pub data: Option<Bytes>,
    /// The client asked for it after it was connected.
    pub reauthenticate: bool,
}

/// What became of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Let in.
    Accept {
        /// Whose world the client is in.
        tenant: TenantId,
        /// Who it is, as verified; `None`: anonymous.
        user: Option<ByteString>,
        /// For CONNACK or AUTH, with enhanced authentication.
        data: Option<Bytes>,
        /// Response Information, for a client that asks (5.0 §3.2.2.3.15).
        response_information: Option<ByteString>,
    },
    /// Enhanced authentication goes on: the client gets this data.
    Continue {
        /// For AUTH.
        data: Option<Bytes>,
    },
    /// Kept out.
    Refuse(Refusal),
}

/// Why a client is kept out. The names are those of the metric, the event and the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Refusal {
    /// User or password is wrong; which one is not told.
    BadCredentials,
    /// Without a user name nobody gets in here, or not from there.
    AnonymousNotAllowed,
    /// A rule says no.
    NotAuthorized,
    /// Too many failures from this address: nothing is checked for a while.
    TooManyFailures,
    /// Too many logins at the same time.
    Busy,
    /// No answer in time, or an error: that denies.
    Unavailable,
    /// Nobody here knows this authentication method.
    BadAuthenticationMethod,
}

impl Refusal {
    /// What the client is told.
    #[must_use]
    pub fn reason_code(self) -> ReasonCode {
        match self {
            Self::BadCredentials => ReasonCode::BadUserNameOrPassword,
            Self::AnonymousNotAllowed | Self::NotAuthorized => ReasonCode::NotAuthorized,
            Self::TooManyFailures => ReasonCode::ConnectionRateExceeded,
            Self::Busy => ReasonCode::ServerBusy,
            Self::Unavailable => ReasonCode::ServerUnavailable,
            Self::BadAuthenticationMethod => ReasonCode::BadAuthenticationMethod,
        }
    }

    /// The label of the metric.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::BadCredentials => "bad_credentials",
            Self::AnonymousNotAllowed => "anonymous_not_allowed",
            Self::NotAuthorized => "not_authorized",
            Self::TooManyFailures => "too_many_failures",
            Self::Busy => "busy",
            Self::Unavailable => "unavailable",
            Self::BadAuthenticationMethod => "bad_authentication_method",
        }
    }
}

/// Says who a client is.
///
/// There is no error: what cannot be decided is refused. An implementation answers within five seconds, and keeps what it does at
/// the same time bounded.
#[async_trait]
pub trait Authenticator: Send + Sync + 'static {
    /// Decides about a CONNECT.
    async fn authenticate(&self, info: &ConnectInfo) -> Decision;

    /// Decides about an AUTH: the next step of an exchange that a [`Decision::Continue`] asked for, or the first of a
    /// re-authentication. `info` is that of the CONNECT with the new exchange in it.
    async fn exchange(&self, info: &ConnectInfo) -> Decision {
        let _ = info;
        Decision::Refuse(Refusal::BadAuthenticationMethod)
    }
}

/// Who does something: what authentication found out, and the client id in use.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Principal {
    /// Whose world it is in.
    pub tenant: TenantId,
    /// The verified user; `None`: anonymous.
    pub user: Option<ByteString>,
    /// The client id, assigned when the client sent none.
    pub client: ClientId,
}

/// Says what a client may do. Never blocks: a provider that asks elsewhere keeps answers and raises the generation when they change.
pub trait Authorizer: Send + Sync + 'static {
    /// What this client may do, as of now.
    fn permissions(&self, principal: &Principal) -> Permissions;

    /// Grows whenever an answer may have changed. One atomic load.
    fn generation(&self) -> u64;
}
