//! Where a domain's objects are, by its URL.
//!
//! ```text
//!   s3://BUCKET/PREFIX     S3 and what speaks like it   AWS_ACCESS_KEY_ID, AWS_ENDPOINT, a role, …
//!   gs://BUCKET/PREFIX     Google Cloud Storage         GOOGLE_SERVICE_ACCOUNT, …
//!   az://CONTAINER/PREFIX  Azure Blob Storage           AZURE_STORAGE_ACCOUNT_NAME, …
//!   file:///DIRECTORY      a directory
//!   memory:///PREFIX       this process's memory, gone with it: for tests
//! ```
//!
//! Credentials come from the environment, or from where the environment says; a URL that holds any
//! is refused, because URLs are logged.

use super::local::Directory;
use crate::StorageError;
use object_store::aws::AmazonS3Builder;
use object_store::azure::MicrosoftAzureBuilder;
use object_store::gcp::GoogleCloudStorageBuilder;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{BackoffConfig, ClientOptions, ObjectStore, ObjectStoreScheme, RetryConfig};
use std::sync::Arc;
use std::time::Duration;
use url::Url;

/// What is tried again is so for this long.
const PATIENCE: Duration = Duration::from_secs(15);
const RETRIES: usize = 4;

/// The objects of a domain, and whatever else lies there.
#[derive(Debug, Clone)]
pub(super) struct Bucket {
    /// What it was opened by.
    pub(super) url: String,
    /// Tries again by itself what fails.
    pub(super) patient: Arc<dyn ObjectStore>,
    /// For those who decide themselves what they try again, and when.
    pub(super) plain: Arc<dyn ObjectStore>,
    pub(super) prefix: Path,
}

impl Bucket {
    /// Opens what a URL names, with the credentials of this process's environment. Asks nobody. A
    /// request has `limit`.
    ///
    /// # Errors
    /// `Invalid` for a URL that is none of these, and when credentials are half there.
    pub(super) fn open(url: &str, limit: Duration) -> Result<Self, StorageError> {
        let invalid = |why: &dyn std::fmt::Display| StorageError::Invalid(format!("{url}: {why}"));
        let parsed = Url::parse(url).map_err(|error| StorageError::Invalid(error.to_string()))?;
        // Not even its user is told: it may be a key.
        if parsed.password().is_some() || parsed.query().is_some() {
            let text = "a URL of objects holds no credentials: they come from the environment";
            return Err(StorageError::Invalid(text.to_owned()));
        }
        let (scheme, path) = ObjectStoreScheme::parse(&parsed).map_err(|error| invalid(&error))?;
        let at =
            |retries| connect(&scheme, &parsed, limit, retries).map_err(|error| invalid(&error));
        let (patient, plain) = match scheme {
            ObjectStoreScheme::Memory => {
                let memory: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
                (Arc::clone(&memory), memory)
            }
            ObjectStoreScheme::Local => {
                let root = parsed.to_file_path().map_err(|()| invalid(&"no path"))?;
                let directory: Arc<dyn ObjectStore> = Arc::new(Directory::open(&root)?);
                return Ok(Self {
                    url: url.to_owned(),
                    patient: Arc::clone(&directory),
                    plain: directory,
                    prefix: Path::default(),
                });
            }
            _ => (at(RETRIES)?, at(0)?),
        };
        Ok(Self {
            url: url.to_owned(),
            patient,
            plain,
            prefix: path,
        })
    }

    /// Objects that are there already, for tests.
    #[cfg(any(test, feature = "conformance"))]
    pub(super) fn of(store: Arc<dyn ObjectStore>, prefix: Path) -> Self {
        Self {
            url: "memory:".to_owned(),
            patient: Arc::clone(&store),
            plain: store,
            prefix,
        }
    }
}

fn connect(
    scheme: &ObjectStoreScheme,
    url: &Url,
    limit: Duration,
    retries: usize,
) -> object_store::Result<Arc<dyn ObjectStore>> {
    use_ring();
    let retry = RetryConfig {
        max_retries: retries,
        retry_timeout: PATIENCE,
        backoff: BackoffConfig::default(),
    };
    let options = ClientOptions::new()
        .with_timeout(limit)
        .with_connect_timeout(limit.min(Duration::from_secs(5)))
        // Plain HTTP only where the environment names such an endpoint.
        .with_allow_http(true);
    Ok(match scheme {
        ObjectStoreScheme::AmazonS3 => Arc::new(
            AmazonS3Builder::from_env()
                .with_url(url.as_str())
                .with_client_options(options)
                .with_retry(retry)
                .build()?,
        ),
        ObjectStoreScheme::GoogleCloudStorage => Arc::new(
            GoogleCloudStorageBuilder::from_env()
                .with_url(url.as_str())
                .with_client_options(options)
                .with_retry(retry)
                .build()?,
        ),
        ObjectStoreScheme::MicrosoftAzure => Arc::new(
            MicrosoftAzureBuilder::from_env()
                .with_url(url.as_str())
                .with_client_options(options)
                .with_retry(retry)
                .build()?,
        ),
        _ => {
            return Err(object_store::Error::NotSupported {
                source: "must be s3, gs, az, file or memory".into(),
            });
        }
    })
}

/// One provider of cryptography for the process; it may have been chosen before.
fn use_ring() {
    let _chosen_before = rustls::crypto::ring::default_provider().install_default();
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(1);

    #[test]
    fn a_url_chooses_what_holds_the_objects() {
        let dir = tempfile::tempdir().unwrap();
        let local = Url::from_directory_path(dir.path()).unwrap();
        for (url, prefix) in [
            ("s3://bucket/a/b", "a/b"),
            ("gs://bucket/a/b", "a/b"),
            ("abfss://container@account.dfs.core.windows.net/a", "a"),
            ("memory:///x", "x"),
            (local.as_str(), ""),
        ] {
            let bucket = Bucket::open(url, LIMIT).unwrap();
            assert_eq!(bucket.prefix.as_ref(), prefix, "{url}");
        }
        // Its account comes from the environment.
        match Bucket::open("az://container/a", LIMIT) {
            Ok(bucket) => assert_eq!(bucket.prefix.as_ref(), "a"),
            Err(error) => assert!(error.to_string().contains("ccount"), "{error}"),
        }
        for bad in [
            "",
            "bucket",
            "ftp://a/b",
            "http://a/b",
            "file:///no/such/directory",
        ] {
            assert!(Bucket::open(bad, LIMIT).is_err(), "{bad}");
        }
    }

    #[test]
    fn credentials_in_a_url_are_refused_and_not_told() {
        for secret in ["s3://key:hush@bucket/a", "s3://bucket/a?secret=hush"] {
            let error = Bucket::open(secret, LIMIT).unwrap_err();
            assert!(matches!(error, StorageError::Invalid(_)));
            assert!(!error.to_string().contains("hush"), "{error}");
        }
    }
}
