use argon2::password_hash::phc::PasswordHash;
use argon2::password_hash::{PasswordHasher, PasswordVerifier};
use argon2::{Algorithm, Argon2, Params, Version};

/// Memory in KiB that a hash in a file may ask for: a mistake there must not take the node down.
const MEMORY_KIB_MAX: u32 = 262_144;

/// Why a password or its hash is not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PasswordError {
    /// Not in PHC form.
    #[error("the hash is not of the form $argon2id$…")]
    NoHash,
    /// Another algorithm.
    #[error("the hash is made with {0}; only argon2id is accepted")]
    Algorithm(String),
    /// It would take too much memory to check.
    #[error("the hash asks for {0} KiB of memory, more than {MEMORY_KIB_MAX}")]
    Memory(u32),
    /// Too long, or no randomness for the salt.
    #[error("the password cannot be hashed: {0}")]
    NotHashed(String),
    /// An empty password is none.
    #[error("the password is empty")]
    Empty,
}

/// What one hash costs whoever makes or guesses it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HashCost {
    /// KiB.
    pub memory: u32,
    /// Passes over the memory.
    pub passes: u32,
}

impl Default for HashCost {
    /// 19 MiB and two passes, the least that OWASP advises for argon2id.
    fn default() -> Self {
        Self { memory: Params::DEFAULT_M_COST, passes: Params::DEFAULT_T_COST }
    }
}

impl HashCost {
    /// As little as there is: for tests.
    #[must_use]
    pub fn minimal() -> Self {
        Self { memory: Params::MIN_M_COST, passes: Params::MIN_T_COST }
    }
}

/// Hashes a password with a random salt. Takes tens of milliseconds, on purpose.
///
/// # Errors
/// When the password is empty or longer than argon2 takes, or there is no randomness.
pub fn hash_password(password: &[u8], cost: HashCost) -> Result<String, PasswordError> {
    if password.is_empty() {
        return Err(PasswordError::Empty);
    }
    let params = Params::new(cost.memory, cost.passes, 1, None).map_err(|e| PasswordError::NotHashed(e.to_string()))?;
    let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
    let hash = argon2.hash_password(password).map_err(|error| PasswordError::NotHashed(error.to_string()))?;
    Ok(hash.to_string())
}

/// Whether a text can be used as a hash.
pub(crate) fn check_hash(text: &str) -> Result<(), PasswordError> {
    let hash = PasswordHash::new(text).map_err(|_| PasswordError::NoHash)?;
    if hash.algorithm.as_str() != "argon2id" {
        return Err(PasswordError::Algorithm(hash.algorithm.as_str().to_owned()));
    }
    if hash.hash.is_none() || hash.salt.is_none() {
        return Err(PasswordError::NoHash);
    }
    let params = Params::try_from(&hash).map_err(|_| PasswordError::NoHash)?;
    if params.m_cost() > MEMORY_KIB_MAX {
        return Err(PasswordError::Memory(params.m_cost()));
    }
    Ok(())
}

/// Whether a password belongs to a hash; compared in constant time.
pub(crate) fn verify(password: &[u8], hash: &str) -> bool {
    Argon2::default().verify_password(password, hash).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_belongs_to_its_hash_only() {
        let hash = hash_password(b"correct horse", HashCost::minimal()).unwrap();
        assert!(hash.starts_with("$argon2id$v=19$m=8,t=1,p=1$"), "{hash}");
        assert_eq!(check_hash(&hash), Ok(()));
        assert!(verify(b"correct horse", &hash));
        assert!(!verify(b"correct horsf", &hash));
        assert!(!verify(b"", &hash));
        assert_ne!(hash, hash_password(b"correct horse", HashCost::minimal()).unwrap());
        assert_eq!(hash_password(b"", HashCost::minimal()), Err(PasswordError::Empty));
    }

    #[test]
    fn other_hashes_are_refused() {
        let hash = hash_password(b"x", HashCost::minimal()).unwrap();
        assert_eq!(check_hash("secret"), Err(PasswordError::NoHash));
        assert_eq!(check_hash("$argon2id$v=19$m=8,t=1,p=1"), Err(PasswordError::NoHash));
        assert!(matches!(check_hash(&hash.replace("argon2id", "argon2d")), Err(PasswordError::Algorithm(_))));
        assert_eq!(check_hash(&hash.replace("m=8,", "m=4000000,")), Err(PasswordError::Memory(4_000_000)));
    }
}
