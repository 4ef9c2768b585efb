//! A secret that callers must know.

use std::fmt;
use std::hint::black_box;

/// A bearer token, `apiServerConfig.token`. Neither shown nor compared in a time that depends on what is wrong with a guess.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(Box<[u8]>);

impl Token {
    /// `None` for an empty text, which would let everybody in.
    pub fn new(token: &str) -> Option<Self> {
        (!token.is_empty()).then(|| Self(token.as_bytes().into()))
    }

    /// Whether this is the token.
    pub(super) fn is(&self, given: &[u8]) -> bool {
        let mut different = self.0.len() ^ given.len();
        for (at, byte) in given.iter().enumerate() {
            different |= usize::from(black_box(*byte ^ self.0[at % self.0.len()]));
        }
        black_box(different) == 0
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_token_is_the_token() {
        let token = Token::new("secret").unwrap();
        assert!(token.is(b"secret"));
        for wrong in ["", "s", "Secret", "secret ", "secretsecret", "secre", "terces"] {
            assert!(!token.is(wrong.as_bytes()), "{wrong}");
        }
        assert_eq!(Token::new(""), None);
        assert!(!format!("{token:?}").contains("secret"));
    }
}
