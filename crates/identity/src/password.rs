//! Passwords: the rules of profile `tom`, and Argon2id (RFC 9106).
//!
//! A password is never stored, logged or put into an error; only its PHC string is kept.

use argon2::password_hash::{PasswordHasher, PasswordVerifier, phc};
use argon2::{Algorithm, Argon2, Params, Version};
use model::entropy::Entropy;
use serde::{Deserialize, Serialize};
use std::fmt;

/// Fewest characters of a password.
pub const CHARACTERS_MIN: usize = 12;
/// Most bytes of a password: hashing must not become a way to burn our time.
pub const BYTES_MAX: usize = 256;
/// Bytes of salt.
const SALT_BYTES: usize = 16;
/// Characters that must remain once all common words are struck out.
const UNCOMMON_CHARACTERS_MIN: usize = 6;
/// Shortest login that a password is searched for; shorter ones occur by chance.
const LOGIN_CHARACTERS_MIN: usize = 3;

/// Words that guessers try first, spelt in lower-case letters and digits.
const COMMON: &[&str] = &[
    "password",
    "passwort",
    "passphrase",
    "letmein",
    "welcome",
    "willkommen",
    "qwerty",
    "qwertz",
    "asdf",
    "iloveyou",
    "changeme",
    "default",
    "secret",
    "geheim",
    "admin",
    "administrator",
    "login",
    "master",
    "monkey",
    "dragon",
    "football",
    "baseball",
    "sunshine",
    "princess",
    "holdfast",
    "summer",
    "winter",
    "spring",
    "autumn",
    "company",
    "123456",
    "12345",
    "1234",
    "123",
    "0000",
    "1111",
    "abc",
    "2023",
    "2024",
    "2025",
    "2026",
    "2027",
];

/// One broken rule. A refused password lists all of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
pub enum Violation {
    /// Fewer than [`CHARACTERS_MIN`] characters.
    #[error("at least {CHARACTERS_MIN} characters are needed")]
    TooShort,
    /// More than [`BYTES_MAX`] bytes.
    #[error("at most {BYTES_MAX} bytes are allowed")]
    TooLong,
    /// No upper-case letter.
    #[error("an upper-case letter is needed")]
    NoUpperCase,
    /// No lower-case letter.
    #[error("a lower-case letter is needed")]
    NoLowerCase,
    /// No digit.
    #[error("a digit is needed")]
    NoDigit,
    /// Nothing besides letters and digits.
    #[error("a special character is needed")]
    NoSpecial,
    /// A control character, which no keyboard sends twice alike.
    #[error("control characters are not allowed")]
    ControlCharacter,
    /// The login is in it, in whatever spelling.
    #[error("it must not contain the login")]
    ContainsLogin,
    /// Little more than words that are guessed first, or one character repeated.
    #[error("it consists of words that are guessed first")]
    Common,
}

impl Violation {
    /// Stable word for `violations[].code` of a problem document.
    pub const fn code(self) -> &'static str {
        match self {
            Self::TooShort => "too-short",
            Self::TooLong => "too-long",
            Self::NoUpperCase => "no-upper-case",
            Self::NoLowerCase => "no-lower-case",
            Self::NoDigit => "no-digit",
            Self::NoSpecial => "no-special",
            Self::ControlCharacter => "control-character",
            Self::ContainsLogin => "contains-login",
            Self::Common => "common",
        }
    }
}

/// Checks a new password against profile `tom`; an error lists every broken rule, in order.
pub fn check_policy(password: &str, login: &str) -> Result<(), Vec<Violation>> {
    let folded = fold(password);
    let login = fold(login);
    let rules = [
        (Violation::TooShort, password.chars().count() < CHARACTERS_MIN),
        (Violation::TooLong, password.len() > BYTES_MAX),
        (Violation::NoUpperCase, !password.chars().any(char::is_uppercase)),
        (Violation::NoLowerCase, !password.chars().any(char::is_lowercase)),
        (Violation::NoDigit, !password.chars().any(char::is_numeric)),
        (Violation::NoSpecial, !password.chars().any(|c| !c.is_alphanumeric() && !c.is_control())),
        (Violation::ControlCharacter, password.chars().any(char::is_control)),
        (Violation::ContainsLogin, login.chars().count() >= LOGIN_CHARACTERS_MIN && folded.contains(&login)),
        (Violation::Common, password.len() <= BYTES_MAX && is_common(password)),
    ];
    let broken: Vec<_> = rules.into_iter().filter(|(_, is_broken)| *is_broken).map(|(rule, _)| rule).collect();
    if broken.is_empty() { Ok(()) } else { Err(broken) }
}

/// Lower case, usual substitutions undone, everything but letters and digits dropped.
fn fold(text: &str) -> String {
    let undo = |c| match c {
        '@' | '4' => 'a',
        '0' => 'o',
        '3' => 'e',
        '$' | '5' => 's',
        '!' | '1' => 'i',
        '7' => 't',
        other => other,
    };
    text.chars().flat_map(char::to_lowercase).map(undo).filter(|c| c.is_alphanumeric()).collect()
}

fn is_common(password: &str) -> bool {
    let plain: String = password.chars().flat_map(char::to_lowercase).filter(|c| c.is_alphanumeric()).collect();
    let struck = |mut text: String| {
        for word in COMMON {
            text = text.replace(word, "");
        }
        text.chars().count()
    };
    let distinct: std::collections::BTreeSet<char> = plain.chars().collect();
    distinct.len() < UNCOMMON_CHARACTERS_MIN
        || struck(plain) < UNCOMMON_CHARACTERS_MIN
        || struck(fold(password)) < UNCOMMON_CHARACTERS_MIN
}

/// How much work a guess costs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Cost {
    /// 19 MiB, two passes, one lane: the first choice of the OWASP password storage cheat sheet.
    #[default]
    Standard,
    /// 64 KiB, one pass: for simulation and tests, never for people.
    Cheap,
}

impl Cost {
    fn argon2(self) -> Argon2<'static> {
        let (memory_kib, passes) = match self {
            Self::Standard => (19 * 1024, 2),
            Self::Cheap => (64, 1),
        };
        let params = Params::new(memory_kib, passes, 1, None).expect("both sets are within Argon2's bounds");
        Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
    }
}

/// A stored password: an Argon2id PHC string with its own salt and cost.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct PasswordHash(String);

impl fmt::Debug for PasswordHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PasswordHash(..)")
    }
}

impl PasswordHash {
    /// Hashes a password that has passed [`check_policy`]. Takes tens of milliseconds at standard cost: callers run
    /// it where blocking is allowed, and never inside the state machine.
    pub fn new(password: &str, cost: Cost, entropy: &dyn Entropy) -> Self {
        let mut salt = [0; SALT_BYTES];
        entropy.fill(&mut salt);
        let hash: phc::PasswordHash = cost
            .argon2()
            .hash_password_with_salt(password.as_bytes(), &salt)
            .expect("salt and output have fixed sizes");
        Self(hash.to_string())
    }

    fn verify(&self, password: &str) -> bool {
        // The cost is read from the stored string, so an old hash stays valid when the constants are raised.
        phc::PasswordHash::new(&self.0)
            .is_ok_and(|hash| Cost::Standard.argon2().verify_password(password.as_bytes(), &hash).is_ok())
    }
}

/// Checks a password against an account's hash, or against nobody's at the same cost, so that time does not tell
/// which logins exist.
pub fn verify(password: &str, hash: Option<&PasswordHash>, cost: Cost) -> bool {
    if password.len() > BYTES_MAX {
        return false;
    }
    match hash {
        Some(hash) => hash.verify(password),
        None => {
            let mut output = [0; Params::DEFAULT_OUTPUT_LEN];
            let outcome = cost.argon2().hash_password_into(password.as_bytes(), &[0; SALT_BYTES], &mut output);
            // Keeps the work from being optimised away; nobody's password is never right.
            std::hint::black_box((outcome.is_ok(), output));
            false
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Violation::*;

    struct Fixed;
    impl Entropy for Fixed {
        fn fill(&self, bytes: &mut [u8]) {
            bytes.fill(7);
        }
    }

    fn check(password: &str, expect: &[Violation]) {
        let found = check_policy(password, "carol").err().unwrap_or_default();
        assert_eq!(found, expect, "{password:?}");
    }

    #[test]
    fn every_broken_rule_is_listed_and_good_passwords_pass() {
        check("Tr4velling-Lamp", &[]);
        check("Grün-12-Blätter", &[]);
        check("My password is 9 blue Whales", &[]);
        check("Tr4velling-", &[TooShort]);
        check("velling-lamp", &[NoUpperCase, NoDigit]);
        check("VELLINGLAMP9", &[NoLowerCase, NoSpecial]);
        check("", &[TooShort, NoUpperCase, NoLowerCase, NoDigit, NoSpecial, Common]);
        check("Tr4velling-\u{7}Lamp", &[ControlCharacter]);
        check(&"Tr4velling-Lamp".repeat(20), &[TooLong]);
    }

    #[test]
    fn the_login_is_found_in_every_spelling() {
        check("Hello-Carol-1848", &[ContainsLogin]);
        check("Hello-c.A.r.0.l-1848", &[ContainsLogin]);
        assert_eq!(check_policy("Bo-velling-Lamp9", "bo"), Ok(()), "two letters occur by chance");
    }

    #[test]
    fn words_that_are_guessed_first_are_refused() {
        check("Password123!", &[Common]);
        check("P@ssw0rd1234", &[Common]);
        check("Welcome-2026!", &[Common]);
        check("Aa1!Aa1!Aa1!", &[Common]);
        check("Holdfast-Admin-1", &[Common]);
    }

    #[test]
    fn only_the_right_password_opens_and_nobodys_never_does() {
        let hash = PasswordHash::new("Tr4velling-Lamp", Cost::Cheap, &Fixed);
        assert!(verify("Tr4velling-Lamp", Some(&hash), Cost::Standard), "the cost is read from the hash");
        assert!(!verify("Tr4velling-Lamq", Some(&hash), Cost::Cheap));
        assert!(!verify("Tr4velling-Lamp", None, Cost::Cheap));
        assert!(!verify(&"x".repeat(BYTES_MAX + 1), Some(&hash), Cost::Cheap));
        assert!(!verify("", Some(&PasswordHash("no PHC string".into())), Cost::Cheap));
        assert_eq!(format!("{hash:?}"), "PasswordHash(..)");
    }

    #[test]
    fn the_standard_cost_is_written_into_the_hash() {
        let hash = PasswordHash::new("Tr4velling-Lamp", Cost::Standard, &Fixed);
        assert!(hash.0.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{}", hash.0);
    }

    proptest::proptest! {
        #[test]
        fn arbitrary_text_never_panics(password in "\\PC{0,40}", login in "\\PC{0,10}", hash in "\\PC{0,60}") {
            let _ = check_policy(&password, &login);
            proptest::prop_assert!(!verify(&password, Some(&PasswordHash(hash)), Cost::Cheap));
        }
    }
}
