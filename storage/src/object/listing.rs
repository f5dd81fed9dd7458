//! What lies below a prefix.

use super::failure::failure;
use super::records::limited;
use crate::StorageError;
use futures::TryStreamExt as _;
use object_store::ObjectStore;
use object_store::path::Path;
use std::sync::Arc;

/// All keys below a prefix: for prefixes that hold few.
pub(super) async fn paths(
    store: &Arc<dyn ObjectStore>,
    prefix: &Path,
) -> Result<Vec<Path>, StorageError> {
    let listed = store.list(Some(prefix));
    let found = limited(prefix, listed.map_ok(|meta| meta.location).try_collect()).await?;
    found.map_err(|error| failure(prefix, error))
}

/// Whether a store is known to list in the order of the keys.
pub(super) fn is_ordered(store: &dyn ObjectStore) -> bool {
    let store = store.to_string();
    match store.split_once('(') {
        // Its directory buckets do not.
        Some(("AmazonS3", bucket)) => !bucket.ends_with("--x-s3)"),
        Some(("GoogleCloudStorage", _)) => true,
        _ => store == "InMemory" || store.starts_with("MicrosoftAzure "),
    }
}
