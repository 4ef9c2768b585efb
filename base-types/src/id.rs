use bytestring::ByteString;
use std::fmt;

/// Why a text is not an id.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    /// The text is empty.
    #[error("an id must not be empty")]
    Empty,
    /// The text is longer than MQTT's two-byte length allows.
    #[error("an id of {length} bytes is longer than the {limit} bytes that are allowed")]
    TooLong {
        /// Length in bytes.
        length: usize,
        /// The longest that is allowed, in bytes.
        limit: usize,
    },
    /// The text contains U+0000.
    #[error("an id must not contain U+0000")]
    Nul,
}

macro_rules! text_id {
    ($(#[$doc:meta])* $name:ident, $limit:expr) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(ByteString);

        impl $name {
            /// The longest id, in bytes.
            pub const LENGTH_MAX: usize = $limit;

            /// Takes a text as an id.
            ///
            /// # Errors
            /// When the text is empty, too long, or contains U+0000.
            pub fn new(text: impl Into<ByteString>) -> Result<Self, IdError> {
                let text = text.into();
                if text.is_empty() {
                    return Err(IdError::Empty);
                }
                if text.len() > Self::LENGTH_MAX {
                    return Err(IdError::TooLong { length: text.len(), limit: Self::LENGTH_MAX });
                }
                if text.as_bytes().contains(&0) {
                    return Err(IdError::Nul);
                }
                Ok(Self(text))
            }

            /// The id as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }

            /// The id as shared text.
            #[must_use]
            pub fn as_bytestring(&self) -> &ByteString {
                &self.0
            }

            /// A copy that does not keep the buffer alive from which the id was cut.
            #[must_use]
            pub fn detached(&self) -> Self {
                Self(ByteString::from(self.0.to_string()))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:?}", &*self.0)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                // Client ids come from strangers: control characters never reach a terminal or a log as they are.
                write!(f, "{}", self.0.escape_debug())
            }
        }
    };
}

text_id! {
    /// Whose world this is: nothing ever crosses from one tenant to another.
    TenantId, 255
}

text_id! {
    /// The client identifier of MQTT (5.0 §3.1.3.1), unique within a tenant.
    ClientId, 65_535
}

impl Default for TenantId {
    /// The tenant of a broker that knows only one.
    fn default() -> Self {
        Self(ByteString::from_static("default"))
    }
}

/// A node, for as long as its data directory lives. Random, persisted at first start, never reused.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(pub u64);

impl fmt::Debug for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// How often something has been started or made anew; a larger one wins over a smaller one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Incarnation(pub u64);

/// One run of one node: what dies with the process belongs to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeIncarnation {
    /// The node.
    pub node: NodeId,
    /// Which start of it.
    pub incarnation: Incarnation,
}
