//! Page tokens: where a list goes on, sealed, so that a client can neither read nor change nor reuse it elsewhere.

use crate::core::Core;
use crate::limit::PAGE_TOKEN_BYTES_MAX;
use crate::problem::Problem;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use identity::Session;
use keyring::{SealKey, Secret};

/// Seals the places of one list: of one user, one route and one set of parameters.
pub(crate) struct Seal {
    key: SealKey,
    context: Vec<u8>,
}

impl Seal {
    /// For the list of `route` with `parameters`, in their order.
    pub(crate) fn new(core: &dyn Core, session: &Session, route: &str, parameters: &[Option<&str>]) -> Self {
        let mut context = session.user().get().to_be_bytes().to_vec();
        for part in std::iter::once(&Some(route)).chain(parameters) {
            context.push(u8::from(part.is_some()));
            let part = part.unwrap_or_default();
            context.extend((part.len() as u64).to_be_bytes());
            context.extend(part.as_bytes());
        }
        Self { key: SealKey::new(&Secret::from_bytes(core.page_secret())), context }
    }

    /// The token for a place. The same place gives the same token: nothing here draws randomness.
    pub(crate) fn seal(&self, place: &str) -> String {
        URL_SAFE_NO_PAD.encode(self.key.seal_derived(place.as_bytes(), &self.context))
    }

    /// The place of a token.
    pub(crate) fn open(&self, token: Option<&str>) -> Result<Option<String>, Problem> {
        let Some(token) = token else { return Ok(None) };
        let refused = || Problem::invalid("page_token", "not a token of this list with these parameters");
        if token.len() > PAGE_TOKEN_BYTES_MAX {
            return Err(refused());
        }
        let sealed = URL_SAFE_NO_PAD.decode(token).map_err(|_| refused())?;
        let place = self.key.open(&sealed, &self.context).map_err(|_| refused())?;
        String::from_utf8(place).map(Some).map_err(|_| refused())
    }
}
