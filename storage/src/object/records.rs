//! Small objects that hold a record as JSON, and are put only on a condition: that there is none
//! yet, or that it is still the one that was read.
//!
//! A reply that is lost leaves the caller without an answer, and a request that is tried again can
//! be refused because of itself. So whoever is told that the condition does not hold reads again.

use super::failure::{failure, hangs};
use crate::StorageError;
use bytes::Bytes;
use object_store::path::Path;
use object_store::{
    Error, ObjectStore, ObjectStoreExt as _, PutMode, PutOptions, PutPayload, UpdateVersion,
};
use serde::{Serialize, de::DeserializeOwned};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::timeout;

/// More than all tries of a request together.
const LIMIT: Duration = Duration::from_secs(30);
/// No record is larger.
const MOST_BYTES: u64 = 4 << 20;

/// A record, and which of its versions it is.
#[derive(Debug, Clone)]
pub(super) struct Read<T> {
    pub(super) record: T,
    pub(super) version: UpdateVersion,
}

/// The records of a domain.
#[derive(Debug, Clone)]
pub(super) struct Records {
    store: Arc<dyn ObjectStore>,
}

impl Records {
    pub(super) fn new(store: Arc<dyn ObjectStore>) -> Self {
        Self { store }
    }

    /// `None` when there is no such object.
    ///
    /// # Errors
    /// `Corrupt` for an object that is no such record.
    pub(super) async fn read<T: DeserializeOwned>(
        &self,
        at: &Path,
    ) -> Result<Option<Read<T>>, StorageError> {
        let Some((bytes, version)) = self.bytes(at).await? else {
            return Ok(None);
        };
        match serde_json::from_slice(&bytes) {
            Ok(record) => Ok(Some(Read { record, version })),
            Err(error) => Err(StorageError::Corrupt {
                what: format!("object {at}"),
                why: error.to_string(),
            }),
        }
    }

    async fn bytes(&self, at: &Path) -> Result<Option<(Bytes, UpdateVersion)>, StorageError> {
        let get = async {
            let got = self.store.get(at).await?;
            let version = UpdateVersion {
                e_tag: got.meta.e_tag.clone(),
                version: got.meta.version.clone(),
            };
            if got.meta.size > MOST_BYTES {
                return Err(Error::Generic {
                    store: "records",
                    source: "a record is too long".into(),
                });
            }
            Ok((got.bytes().await?, version))
        };
        match limited(at, get).await? {
            Ok(got) => Ok(Some(got)),
            Err(Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(failure(at, error)),
        }
    }

    /// Puts a record where there is none; `None` when there is one.
    pub(super) async fn create<T: Serialize>(
        &self,
        at: &Path,
        record: &T,
    ) -> Result<Option<UpdateVersion>, StorageError> {
        self.put(at, record, PutMode::Create).await
    }

    /// Puts a record in the place of one that was read; `None` when that is not there any more.
    pub(super) async fn replace<T: Serialize>(
        &self,
        at: &Path,
        record: &T,
        read: UpdateVersion,
    ) -> Result<Option<UpdateVersion>, StorageError> {
        self.put(at, record, PutMode::Update(read)).await
    }

    async fn put<T: Serialize>(
        &self,
        at: &Path,
        record: &T,
        mode: PutMode,
    ) -> Result<Option<UpdateVersion>, StorageError> {
        let bytes = serde_json::to_vec(record).map_err(|error| {
            StorageError::Invalid(format!("{at} cannot be written as JSON: {error}"))
        })?;
        let options = PutOptions::from(mode);
        let put = self.store.put_opts(at, PutPayload::from(bytes), options);
        match limited(at, put).await? {
            Ok(put) => Ok(Some(put.into())),
            Err(
                Error::AlreadyExists { .. } | Error::Precondition { .. } | Error::NotFound { .. },
            ) => Ok(None),
            Err(error) => Err(failure(at, error)),
        }
    }

    /// Takes an object away; none is none.
    pub(super) async fn delete(&self, at: &Path) -> Result<(), StorageError> {
        match limited(at, self.store.delete(at)).await? {
            Ok(()) | Err(Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(failure(at, error)),
        }
    }
}

/// Waits for an answer, but not for ever.
pub(super) async fn limited<T>(
    at: &Path,
    work: impl Future<Output = T>,
) -> Result<T, StorageError> {
    timeout(LIMIT, work).await.map_err(|_| hangs(at, LIMIT))
}
