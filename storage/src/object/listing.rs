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

#[cfg(test)]
mod tests {
    use super::*;
    use object_store::aws::AmazonS3Builder;
    use object_store::gcp::GoogleCloudStorageBuilder;
    use object_store::local::LocalFileSystem;
    use object_store::memory::InMemory;

    #[test]
    fn a_store_lists_in_order_only_where_that_is_known() {
        let _chosen_before = rustls::crypto::ring::default_provider().install_default();
        let s3 = |bucket| AmazonS3Builder::new().with_bucket_name(bucket).build();
        let google = GoogleCloudStorageBuilder::new().with_bucket_name("images");
        assert!(is_ordered(&s3("images").unwrap()));
        assert!(is_ordered(&google.build().unwrap()));
        assert!(is_ordered(&InMemory::new()));
        assert!(!is_ordered(&s3("images--use1-az4--x-s3").unwrap()));
        assert!(!is_ordered(&LocalFileSystem::new()));
    }
}
