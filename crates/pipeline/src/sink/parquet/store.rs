//! Where files are put: a folder of this machine, or a bucket.
//!
//! A put is durable and whole when it returns: in a folder the file is written under another name, synced and renamed;
//! a bucket takes an object in one request or not at all.

use super::super::{Refused, http};
use super::sign::{self, Key};
use crate::resource::{self, Invalid, OpenError, secret};
use crate::tls::ClientTls;
use archive::export::Object;
use bytes::Bytes;
use model::time::Clock;
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// An attempt takes no longer, unless the description says otherwise.
pub const ATTEMPT_SECONDS: u64 = 60;

/// A bucket as the topology file describes it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BucketConfig {
    /// Where the bucket is, its name included: `https`, or `http` on this machine. All paths begin with that of the
    /// address.
    pub url: String,
    /// The store's region, as its signatures name it.
    #[serde(default = "region")]
    pub region: String,
    /// The file with the id of the key.
    pub key_id: PathBuf,
    /// The file with the secret of the key.
    pub key_secret: PathBuf,
    /// How the server is checked.
    #[serde(default)]
    pub tls: ClientTls,
    /// An attempt takes no longer.
    #[serde(default = "attempt_seconds")]
    pub timeout_seconds: u64,
}

fn region() -> String {
    "us-east-1".to_owned()
}

fn attempt_seconds() -> u64 {
    ATTEMPT_SECONDS
}

impl BucketConfig {
    pub(super) fn resolve(&mut self, folder: &Path) {
        resource::resolve(&mut self.key_id, folder);
        resource::resolve(&mut self.key_secret, folder);
        self.tls.resolve(folder);
    }

    pub(super) fn problems(&self) -> Vec<Invalid> {
        let problems = http::problems(&self.url, self.timeout_seconds).into_iter().chain(self.tls.problems());
        // They stand inside the bucket's table.
        let inside = |found: Invalid| Invalid::new("bucket", format!("{}: {}", found.field, found.advice));
        let mut problems: Vec<Invalid> = problems.map(inside).collect();
        if self.url.contains(['?', '#']) {
            problems.push(Invalid::new("bucket", "url: write the address of the bucket, without `?` and `#`"));
        }
        problems
    }

    /// Reads its secrets and certificates.
    pub(super) fn open(&self, clock: &Arc<dyn Clock>) -> Result<Store, OpenError> {
        let (id, region) = (secret(&self.key_id)?, self.region.clone());
        let key = Key { id, secret: secret(&self.key_secret)?, region };
        let client = http::client(&self.tls, self.timeout_seconds)?;
        let (url, clock) = (self.url.trim_end_matches('/').to_owned(), Arc::clone(clock));
        Ok(Store::Bucket(Box::new(Bucket { url, key, client, clock })))
    }
}

/// A place for files.
pub(super) enum Store {
    Folder(PathBuf),
    Bucket(Box<Bucket>),
}

/// A bucket of a store that speaks S3's protocol.
pub(super) struct Bucket {
    url: String,
    key: Key,
    client: reqwest::Client,
    clock: Arc<dyn Clock>,
}

/// A folder of this machine.
pub(super) fn folder(path: &Path) -> Result<Store, OpenError> {
    std::fs::create_dir_all(path).map_err(|error| OpenError::File { path: path.to_owned(), error })?;
    Ok(Store::Folder(path.to_owned()))
}

impl Store {
    /// Puts a file: durable when it returns. What is wrong with a store can be set right, so it is asked again.
    pub(super) async fn put(&self, object: Object) -> Result<(), Refused> {
        match self {
            Self::Bucket(bucket) => bucket.put(object).await,
            Self::Folder(root) => {
                let root = root.clone();
                let written = tokio::task::spawn_blocking(move || write(&root, &object));
                let written = written.await.unwrap_or_else(|error| Err(io::Error::other(error)));
                written.map_err(|error| Refused::Later(error.to_string()))
            }
        }
    }
}

impl Bucket {
    async fn put(&self, Object { path, bytes }: Object) -> Result<(), Refused> {
        let address = format!("{}/{}", self.url, sign::encoded(&path));
        let url = reqwest::Url::parse(&address).map_err(|error| Refused::Never(error.to_string()))?;
        let host = match (url.host_str().unwrap_or_default(), url.port()) {
            (host, None) => host.to_owned(),
            (host, Some(port)) => format!("{host}:{port}"),
        };
        let (signed, at) = (Bytes::clone(&bytes), sign::moment(self.clock.wall_ms()));
        let digest = tokio::task::spawn_blocking(move || hex::encode(keyring::mac::sha256(&signed)));
        let digest = digest.await.map_err(|error| Refused::Later(error.to_string()))?;
        let headers = [("host", host.as_str()), ("x-amz-content-sha256", &digest), ("x-amz-date", &at)];
        let authorization = self.key.authorization("PUT", url.path(), &headers, &digest, &at);
        let mut request = self.client.put(url.clone()).header("authorization", authorization).body(bytes);
        // The client says the host itself.
        for (name, value) in &headers[1..] {
            request = request.header(*name, *value);
        }
        let answer = request.send().await.map_err(|error| http::later(&error))?;
        let status = answer.status();
        // Read to its end, so that the connection serves again; what it says does not matter any more.
        let _ = http::body(answer).await;
        if status.is_success() { Ok(()) } else { Err(Refused::Later(format!("answer {status}"))) }
    }
}

/// Writes a file and all folders to it: a crash leaves it whole, or under another name.
fn write(root: &Path, object: &Object) -> io::Result<()> {
    let path = root.join(&object.path);
    let folder = path.parent().unwrap_or(root);
    std::fs::create_dir_all(folder)?;
    let fresh = path.with_extension("parquet.new");
    let mut file = File::create(&fresh)?;
    file.write_all(&object.bytes)?;
    file.sync_all()?;
    std::fs::rename(&fresh, &path)?;
    // Its name, and those of folders that may be new.
    folder
        .ancestors()
        .take_while(|folder| folder.starts_with(root))
        .try_for_each(|folder| File::open(folder)?.sync_all())
}
