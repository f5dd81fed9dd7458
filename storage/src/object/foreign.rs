//! What lies below a domain's prefix and is not this program's, or is no volume's.

use super::domain::Domain;
use super::failure::failure;
use super::records::limited;
use crate::StorageError;
use futures::stream::{self, StreamExt as _, TryStreamExt as _};
use object_store::ListResult;
use object_store::path::Path;
use uuid::Uuid;

/// Prefixes that are looked into at once.
const AT_ONCE: usize = 16;

/// Keys, and prefixes with a slash at their end. The blocks of volumes are not gone through.
pub(super) async fn foreign(domain: &Domain) -> Result<Vec<String>, StorageError> {
    let top = list(domain, domain.keys.prefix()).await?;
    let mut foreign = keys(domain, &top);
    let (own, others): (Vec<_>, Vec<_>) = top
        .common_prefixes
        .into_iter()
        .partition(|prefix| is_own(domain, prefix));
    foreign.extend(others.iter().map(|prefix| format!("{prefix}/")));
    let within: Vec<_> = own
        .into_iter()
        .map(|prefix| below(domain, prefix))
        .collect();
    let within: Vec<Vec<String>> = stream::iter(within)
        .buffer_unordered(AT_ONCE)
        .try_collect()
        .await?;
    foreign.extend(within.concat());
    let orphans = domain.orphans().await?.into_iter();
    foreign.extend(orphans.map(|uuid| format!("{}/", domain.keys.volume(uuid))));
    foreign.sort();
    Ok(foreign)
}

async fn below(domain: &Domain, prefix: Path) -> Result<Vec<String>, StorageError> {
    let found = list(domain, &prefix).await?;
    let uuid = prefix
        .filename()
        .and_then(|name| Uuid::try_parse(name).ok());
    let blocks = uuid.map(|uuid| domain.keys.blocks(uuid));
    let mut foreign = keys(domain, &found);
    let others = found.common_prefixes.iter();
    let others = others.filter(|below| Some(*below) != blocks.as_ref());
    foreign.extend(others.map(|below| format!("{below}/")));
    Ok(foreign)
}

fn keys(domain: &Domain, found: &ListResult) -> Vec<String> {
    let objects = found.objects.iter().map(|meta| &meta.location);
    let foreign = objects.filter(|path| domain.keys.read(path).is_none());
    foreign.map(ToString::to_string).collect()
}

fn is_own(domain: &Domain, prefix: &Path) -> bool {
    let keys = &domain.keys;
    let uuid = prefix
        .filename()
        .and_then(|name| Uuid::try_parse(name).ok());
    *prefix == keys.names()
        || *prefix == keys.removals()
        || uuid.is_some_and(|uuid| keys.volume(uuid) == *prefix)
}

async fn list(domain: &Domain, prefix: &Path) -> Result<ListResult, StorageError> {
    let listed = domain.bucket.patient.list_with_delimiter(Some(prefix));
    let listed = limited(prefix, listed).await?;
    listed.map_err(|error| failure(prefix, error))
}
