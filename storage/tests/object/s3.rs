//! The same on a real S3 server: the contract, a client without permission, wrong credentials, a
//! server that hangs, and one that asks for fewer requests.

use crate::rig::{LEASE, Objects, Rig, keys, order};
use livemerge_storage::conformance::proxy::{Proxy, Way};
use livemerge_storage::conformance::s3::{self, READER, SECRET, Server, WRITER};
use livemerge_storage::conformance::{Fixture as _, run};
use livemerge_storage::{
    Call, Metered, ObjectVolumes, RemovalState, StorageError, VolumeStore as _,
};
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt as _, PutPayload};
use std::net::TcpListener;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tempfile::TempDir;

const LIMIT: Duration = Duration::from_secs(20);

/// A server, and the place of its data.
struct Place {
    server: Server,
    _dir: TempDir,
}

impl Place {
    async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        Self {
            server: Server::start(dir.path()).await.unwrap(),
            _dir: dir,
        }
    }

    fn as_user(&self, user: &str, secret: &str) -> Arc<dyn ObjectStore> {
        self.server.objects(user, secret, LIMIT)
    }

    async fn rig(&self) -> Rig {
        Rig::over(self.as_user(WRITER, SECRET)).await
    }
}

async fn open(objects: Arc<dyn ObjectStore>) -> (Result<ObjectVolumes, StorageError>, TempDir) {
    let dir = tempfile::tempdir().unwrap();
    (crate::rig::open(objects, &dir).await, dir)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_s3_server_keeps_the_contract() {
    let server = Place::new().await;
    let rig = server.rig().await;
    let store = Metered::new(rig.store.clone());
    run(&store, &Objects(rig.store.clone())).await;
    assert!(store.list_removals().await.unwrap().is_empty());
    rig.assert_empty().await;
    let meters = store.meters();
    assert!(meters[&Call::Create].calls > 20 && meters[&Call::Create].failures > 5);
    assert!(meters[&Call::Remove].total >= meters[&Call::Remove].longest);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_is_told_of_what_is_not_permitted() {
    let server = Place::new().await;
    let rig = server.rig().await;
    let volume = rig.base("v").await;
    for (user, secret) in [(READER, SECRET), (WRITER, "wrong"), ("nobody", SECRET)] {
        let (opened, _dir) = open(server.as_user(user, secret)).await;
        let denied = opened.unwrap_err();
        assert!(
            matches!(denied, StorageError::Denied { .. }),
            "{user}: {denied:?}"
        );
        assert!(!format!("{denied:?}").contains(secret), "no secret is told");
    }
    // Permission that is taken away later.
    let permission = Arc::new(crate::permission::Revocable::new(
        server.as_user(WRITER, SECRET),
        server.as_user(READER, SECRET),
    ));
    let (opened, _dir) = open(Arc::clone(&permission) as _).await;
    let store = opened.unwrap();
    permission.revoke();
    let removal = order(&volume, Duration::ZERO);
    let denied = store.remove(&removal).await.unwrap_err();
    assert!(matches!(denied, StorageError::Denied { .. }), "{denied:?}");
    rig.store.stat(&volume.volume.name).await.unwrap();
    // In the middle of freeing it: condemned and listed, and gone on with later.
    permission.grant();
    permission.revoke_deletions();
    let denied = store.remove(&removal).await.unwrap_err();
    assert!(matches!(denied, StorageError::Denied { .. }), "{denied:?}");
    assert_eq!(store.list_removals().await.unwrap().len(), 1);
    permission.grant();
    assert_eq!(
        store.remove(&removal).await.unwrap().state,
        RemovalState::Gone
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_hangs_is_unknown() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let at = silent.local_addr().unwrap();
    let begun = Instant::now();
    let hanging = s3::objects(at, WRITER, SECRET, Duration::from_secs(1));
    let (opened, _dir) = open(hanging).await;
    let unknown = opened.unwrap_err();
    assert!(
        matches!(unknown, StorageError::Unreachable { .. }),
        "{unknown:?}"
    );
    assert!(begun.elapsed() < Duration::from_secs(30));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_throttles_loses_no_key() {
    let server = Place::new().await;
    let direct = server.rig().await;
    let volume = direct.base("v").await;
    Objects(direct.store.clone())
        .write(&volume, 0, 4096, 1)
        .await;
    let uuid = volume.identity.to_string();
    let filled = (0x1000..0x1800_u64).map(|block| {
        let at = Path::from(format!("d/{uuid}/b/{block:016x}"));
        let objects = Arc::clone(&direct.objects);
        async move { objects.put(&at, PutPayload::from("x")).await.unwrap() }
    });
    use futures::StreamExt as _;
    futures::stream::iter(filled)
        .buffer_unordered(16)
        .collect::<Vec<_>>()
        .await;
    let way = Way {
        round_trip: Duration::from_millis(1),
        limit: Some(1000),
    };
    let proxy = Proxy::before(server.server.address(), way).await.unwrap();
    let throttled = s3::objects(proxy.address(), WRITER, SECRET, LIMIT);
    let (opened, _dir) = open(throttled).await;
    let begun = Instant::now();
    let removed = opened
        .unwrap()
        .remove(&order(&volume, Duration::ZERO))
        .await;
    let (passed, refused) = proxy.counts();
    assert_eq!(removed.unwrap().state, RemovalState::Gone);
    assert!(refused > 0, "it was throttled");
    let rate = passed as f64 / (begun.elapsed().as_secs_f64() + 1.0);
    assert!(rate < 1000.0 * 1.1, "{rate}");
    let left = keys(&direct.objects).await;
    assert!(!left.iter().any(|key| key.contains(&uuid)), "{left:?}");
    assert!(begun.elapsed() < LEASE * 10);
}
