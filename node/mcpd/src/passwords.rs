//! Passwords: argon2id, a bounded number at a time, and the same work whether or not there is such a user.

use argon2::password_hash::{PasswordHash, PasswordHasher, PasswordVerifier, SaltString};
use argon2::{Algorithm, Argon2, Params, Version};
use mcp_api::problem::Code;
use tokio::sync::Semaphore;
use zeroize::Zeroizing;

use crate::fault::Fault;
use crate::limits;

/// Memory in KiB, passes and lanes: the second choice of OWASP's table, 19 MiB.
const PARAMS: (u32, u32, u32) = (19 * 1024, 2, 1);

/// Hashes a password as argon2id in PHC form, which is what a user's record holds. Takes some 20 ms and 19 MiB.
pub fn hash_password(password: &str, salt: [u8; 16]) -> String {
    let salt = SaltString::encode_b64(&salt).expect("16 bytes are a salt");
    let hash = argon2id().hash_password(password.as_bytes(), &salt);
    hash.expect("these parameters hash any password").to_string()
}

/// Whether `password` is the one that was hashed. `None`: there is no such user, and the same work is done for nothing.
fn verify(password: &str, hash: Option<&str>, decoy: &str) -> bool {
    let right = PasswordHash::new(hash.unwrap_or(decoy))
        .is_ok_and(|phc| argon2id().verify_password(password.as_bytes(), &phc).is_ok());
    right && hash.is_some()
}

fn argon2id() -> Argon2<'static> {
    let (memory, passes, lanes) = PARAMS;
    let params = Params::new(memory, passes, lanes, None).expect("constant parameters are in range");
    Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
}

/// Hashing, a few at a time.
pub(crate) struct Hasher {
    turns: Semaphore,
    decoy: String,
}

impl Hasher {
    pub(crate) fn new() -> Hasher {
        Hasher {
            turns: Semaphore::new(limits::HASHING_MAX),
            decoy: hash_password("", [0; 16]),
        }
    }

    pub(crate) async fn hash(&self, password: Zeroizing<String>, salt: [u8; 16]) -> Result<String, Fault> {
        self.work(move || hash_password(&password, salt)).await
    }

    pub(crate) async fn verify(&self, password: Zeroizing<String>, hash: Option<String>) -> Result<bool, Fault> {
        let decoy = self.decoy.clone();
        self.work(move || verify(&password, hash.as_deref(), &decoy)).await
    }

    async fn work<T: Send + 'static>(&self, f: impl FnOnce() -> T + Send + 'static) -> Result<T, Fault> {
        let busy = || Fault::new(Code::TooManyRequests, "too many logins at once").retry_after_s(2);
        let turn = tokio::time::timeout(limits::HASHING_WAIT, self.turns.acquire()).await;
        let _turn = turn.ok().and_then(Result::ok).ok_or_else(busy)?;
        tokio::task::spawn_blocking(f).await.map_err(|_| busy())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_password_itself_is_right() {
        let hash = hash_password("correct horse", [7; 16]);
        assert!(hash.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{hash}");
        let decoy = hash_password("", [0; 16]);
        assert!(verify("correct horse", Some(&hash), &decoy));
        assert!(!verify("correct horsf", Some(&hash), &decoy));
        assert!(!verify("", None, &decoy), "the decoy's own password opens nothing");
        assert!(!verify("x", Some("not a hash"), &decoy));
    }
}
