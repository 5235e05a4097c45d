//! Names of containers: what is valid, and random ones for who gives none.

use crate::error::{Result, usage};

/// Refuses a name that podman and docker would refuse.
///
/// # Errors
/// The name is empty, too long for a file name, or has other characters than letters, digits, `_.-`.
pub fn check(name: &str) -> Result<()> {
    let mut bytes = name.bytes();
    let head = bytes.next().is_some_and(|b| b.is_ascii_alphanumeric());
    if head && name.len() <= 200 && bytes.all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(&b))
    {
        return Ok(());
    }
    Err(usage(format!(
        "name {name:?}: names must match [a-zA-Z0-9][a-zA-Z0-9_.-]* and have at most 200 characters"
    ))
    .into())
}

/// A random `adjective_surname`; `entropy` picks it.
#[must_use]
pub fn random(entropy: u64) -> String {
    let pick = |list: &[&'static str], n: u64| {
        list[usize::try_from(n % list.len() as u64).unwrap_or_default()]
    };
    let adjective = pick(&ADJECTIVES, entropy >> 32);
    let surname = pick(&SURNAMES, entropy & 0xffff_ffff);
    format!("{adjective}_{surname}")
}

const ADJECTIVES: [&str; 64] = [
    "able", "airy", "amber", "apt", "ardent", "autumn", "bold", "brave", "breezy", "bright",
    "brisk", "calm", "candid", "cheery", "civil", "clear", "clever", "cosy", "crisp", "daring",
    "deft", "dewy", "eager", "early", "fair", "fleet", "fond", "frank", "free", "fresh", "gentle",
    "glad", "golden", "hardy", "hazel", "honest", "jolly", "keen", "kind", "light", "lively",
    "loyal", "lucid", "merry", "mild", "misty", "neat", "noble", "patient", "placid", "plucky",
    "polite", "quick", "quiet", "ready", "rosy", "serene", "steady", "sunny", "swift", "tidy",
    "vivid", "warm", "witty",
];

const SURNAMES: [&str; 64] = [
    "abel",
    "adams",
    "allen",
    "babbage",
    "bell",
    "bohr",
    "boole",
    "born",
    "cantor",
    "carson",
    "cauchy",
    "church",
    "curie",
    "dijkstra",
    "dirac",
    "erdos",
    "euler",
    "faraday",
    "fermat",
    "floyd",
    "fourier",
    "franklin",
    "galois",
    "gauss",
    "germain",
    "goedel",
    "hamilton",
    "hamming",
    "herschel",
    "hilbert",
    "hooke",
    "hopper",
    "huygens",
    "joule",
    "kepler",
    "knuth",
    "kovalevsky",
    "lagrange",
    "lamarr",
    "lamport",
    "laplace",
    "leibniz",
    "lovelace",
    "markov",
    "maxwell",
    "meitner",
    "mendel",
    "milner",
    "nash",
    "newton",
    "noether",
    "pascal",
    "peano",
    "planck",
    "ramanujan",
    "riemann",
    "ritchie",
    "shannon",
    "somerville",
    "turing",
    "volta",
    "wiles",
    "wirth",
    "zuse",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_podman_refuses_are_refused() {
        for bad in ["", "-a", ".a", "_a", "a/b", "a b", "ä", &"x".repeat(201)] {
            assert!(check(bad).is_err(), "{bad:?}");
        }
        for good in ["a", "A1", "a_b.c-d", "0"] {
            assert!(check(good).is_ok(), "{good:?}");
        }
    }

    #[test]
    fn random_names_are_valid_and_differ() {
        assert_ne!(random(1), random(2));
        assert_ne!(random(1 << 32), random(2 << 32));
        assert!(check(&random(u64::MAX)).is_ok());
    }
}
