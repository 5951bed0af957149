//! Which tokens' signatures were found good. Checking one takes longer than all else that a small request needs, and clients
//! send the same token with every request.

use std::collections::HashSet;
use std::mem;

use parking_lot::Mutex;
use sha2::{Digest as _, Sha256};

/// How many tokens a generation has.
const GENERATION: usize = 4096;

/// A token's SHA-256: what is remembered of it lets nobody in.
type Digest = [u8; 32];

/// Tokens by their digests, in two generations: one that is not seen while `GENERATION` others are is forgotten.
///
/// Only for signatures by keys that stay as long as this does. What else a token must be is not remembered.
#[derive(Default)]
pub(super) struct Proven(Mutex<Generations>);

#[derive(Default)]
struct Generations {
    young: HashSet<Digest>,
    old: HashSet<Digest>,
}

impl Proven {
    /// Has `prove` look at a token that is not known to be good.
    pub(super) fn check<E>(&self, token: &str, prove: impl FnOnce() -> Result<(), E>) -> Result<(), E> {
        let digest = Sha256::digest(token).into();
        if !self.0.lock().has(digest) {
            prove()?;
            self.0.lock().add(digest);
        }
        Ok(())
    }
}

impl Generations {
    fn has(&mut self, digest: Digest) -> bool {
        if self.young.contains(&digest) {
            return true;
        }
        let found = self.old.remove(&digest);
        if found {
            self.add(digest);
        }
        found
    }

    fn add(&mut self, digest: Digest) {
        if self.young.len() >= GENERATION {
            self.old = mem::take(&mut self.young);
        }
        self.young.insert(digest);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Proof = Result<(), &'static str>;
    const GOOD: Proof = Ok(());
    const ASKED: Proof = Err("was asked");

    #[test]
    fn a_good_token_is_proven_once_and_a_bad_one_each_time() {
        let proven = Proven::default();
        assert_eq!(proven.check("bad", || ASKED), ASKED);
        assert_eq!(proven.check("bad", || ASKED), ASKED);
        assert_eq!(proven.check("good", || GOOD), GOOD);
        assert_eq!(proven.check("good", || ASKED), GOOD);
    }

    #[test]
    fn what_is_used_stays_and_no_more_than_two_generations_are_kept() {
        let proven = Proven::default();
        proven.check("used", || GOOD).unwrap();
        proven.check("unused", || GOOD).unwrap();
        for number in 0..4 * GENERATION {
            proven.check(&number.to_string(), || GOOD).unwrap();
            assert_eq!(proven.check("used", || ASKED), GOOD, "{number}");
        }
        assert_eq!(proven.check("unused", || ASKED), ASKED);
        let generations = proven.0.lock();
        assert!(generations.young.len() + generations.old.len() <= 2 * GENERATION);
    }
}
