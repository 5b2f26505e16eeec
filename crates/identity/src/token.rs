//! Signed tokens: what every region can check without asking another.
//!
//! Layout, then base64url without padding: version byte, key id (4 bytes, big endian), postcard body, HMAC-SHA256 over
//! all before it. Each kind of token has a key of its own, derived from the session key, so that one kind never passes
//! for another. Nothing of the body is read before its tag is verified.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use keyring::Secret;
use keyring::mac::{MacKey, TAG_SIZE_BYTES, Tag};
use model::entropy::Entropy;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::collections::BTreeMap;
use std::fmt;

/// Most characters of a token.
pub const TOKEN_CHARACTERS_MAX: usize = 4096;
/// Most keys kept: the newest and those whose tokens have not all expired.
pub const KEYS_MAX: usize = 16;
const KEY_ID_BYTES: usize = 4;

/// Which session key signed a token. Later keys have larger ids.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct KeyId(u32);

impl KeyId {
    /// The first key of a cluster.
    pub const FIRST: Self = Self(1);
    /// The id with this number.
    pub const fn new(number: u32) -> Self {
        Self(number)
    }
    /// Its number.
    pub const fn get(self) -> u32 {
        self.0
    }
    /// The id of the key that replaces this one.
    pub const fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "k{}", self.0)
    }
}

/// A session key as the control plane keeps it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionKey {
    /// Its id.
    pub id: KeyId,
    /// Its bytes.
    pub secret: Secret,
}

impl SessionKey {
    /// Draws a new key.
    pub fn generate(id: KeyId, entropy: &dyn Entropy) -> Self {
        Self { id, secret: Secret::generate(entropy) }
    }
}

/// The kinds of token, each with its own derived key.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Session,
    Vector,
}

#[derive(Clone)]
struct Keys {
    session: MacKey,
    vector: MacKey,
}

impl Keys {
    fn of(&self, kind: Kind) -> &MacKey {
        match kind {
            Kind::Session => &self.session,
            Kind::Vector => &self.vector,
        }
    }
}

/// The keys of a cluster, ready for use: the newest signs, all verify.
#[derive(Clone)]
pub struct SessionKeys {
    keys: BTreeMap<KeyId, Keys>,
}

/// Why keys cannot be used: there are none, too many, or two with one id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("session keys must be 1 to {KEYS_MAX}, each with its own id")]
pub struct SessionKeysError;

/// Why a token is not one of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OpenError {
    Malformed,
    UnknownKey,
}

impl fmt::Debug for SessionKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.keys.keys()).finish()
    }
}

impl SessionKeys {
    /// Prepares the control plane's keys.
    pub fn new<'a>(keys: impl IntoIterator<Item = &'a SessionKey>) -> Result<Self, SessionKeysError> {
        let mut prepared = BTreeMap::new();
        for key in keys {
            let derived = |purpose| MacKey::new(&key.secret.derive(purpose));
            let entry =
                Keys { session: derived("holdfast session token 1"), vector: derived("holdfast vector token 1") };
            if prepared.len() == KEYS_MAX || prepared.insert(key.id, entry).is_some() {
                return Err(SessionKeysError);
            }
        }
        if prepared.is_empty() { Err(SessionKeysError) } else { Ok(Self { keys: prepared }) }
    }

    /// The key that signs.
    pub fn newest(&self) -> KeyId {
        *self.keys.last_key_value().expect("there is at least one key since construction").0
    }

    pub(crate) fn seal<T: Serialize>(&self, kind: Kind, body: &T) -> String {
        let (id, keys) = self.keys.last_key_value().expect("there is at least one key since construction");
        let encoded = model::codec::encode(body);
        let (version, body) = encoded.split_at(1);
        let mut bytes = [version, &id.0.to_be_bytes(), body].concat();
        let tag = keys.of(kind).sign(&bytes);
        bytes.extend_from_slice(tag.as_bytes());
        URL_SAFE_NO_PAD.encode(bytes)
    }

    pub(crate) fn open<T: DeserializeOwned>(&self, kind: Kind, token: &str) -> Result<T, OpenError> {
        if token.len() > TOKEN_CHARACTERS_MAX {
            return Err(OpenError::Malformed);
        }
        let bytes = URL_SAFE_NO_PAD.decode(token).map_err(|_| OpenError::Malformed)?;
        let (signed, tag) = bytes.split_last_chunk::<TAG_SIZE_BYTES>().ok_or(OpenError::Malformed)?;
        let (version, rest) = signed.split_first().ok_or(OpenError::Malformed)?;
        let (id, body) = rest.split_first_chunk::<KEY_ID_BYTES>().ok_or(OpenError::Malformed)?;
        if *version != model::codec::VERSION {
            return Err(OpenError::Malformed);
        }
        let keys = self.keys.get(&KeyId(u32::from_be_bytes(*id))).ok_or(OpenError::UnknownKey)?;
        keys.of(kind).verify(signed, &Tag::from_bytes(*tag)).map_err(|_| OpenError::Malformed)?;
        model::codec::decode(&[&[*version], body].concat()).map_err(|_| OpenError::Malformed)
    }
}
