use super::*;
use object_store::ObjectStore;
use object_store::memory::InMemory;
use object_store::path::Path;

const TIMES: Times = Times {
    lease: Duration::from_millis(600),
    request: Duration::from_millis(100),
};
const PATIENCE: Duration = Duration::from_secs(10);

struct Rig {
    records: Records,
    keys: Keys,
    uuid: Uuid,
}

impl Rig {
    fn new() -> Self {
        let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
        Self {
            records: Records::new(store),
            keys: Keys::new(Path::default()),
            uuid: Uuid::new_v4(),
        }
    }

    async fn take(&self) -> Result<Held, StorageError> {
        self.take_as(Uuid::new_v4()).await
    }

    async fn take_as(&self, holder: Uuid) -> Result<Held, StorageError> {
        let (records, keys) = (self.records.clone(), self.keys.clone());
        Held::take(records, keys, self.uuid, TIMES, holder).await
    }

    async fn lease(&self) -> Lease {
        let read = self.records.read(&self.keys.lease(self.uuid)).await;
        read.unwrap().unwrap().record
    }
}

#[tokio::test]
async fn a_lease_that_is_renewed_has_one_holder() {
    let rig = Rig::new();
    let held = rig.take().await.unwrap();
    held.may_write(PATIENCE).await.unwrap();
    let refused = rig.take().await.unwrap_err();
    assert!(matches!(refused, StorageError::InUse { .. }), "{refused:?}");
    held.count(7);
    held.release().await.unwrap();
    let next = rig.take().await.unwrap();
    let lease = rig.lease().await;
    assert_eq!((lease.generation, lease.blocks), (2, 7));
    drop(next);
}

#[tokio::test]
async fn one_that_nobody_renews_is_taken_after_its_time_and_not_before() {
    let rig = Rig::new();
    drop(rig.take().await.unwrap());
    let (begun, seen) = (Instant::now(), Seen::default());
    assert!(seen.is_live(rig.uuid, Some(&rig.lease().await)));
    let next = rig.take().await.unwrap();
    assert!(begun.elapsed() > TIMES.lease);
    assert_eq!(rig.lease().await.generation, 2);
    drop(next);
    assert!(seen.is_live(rig.uuid, Some(&rig.lease().await)), "another");
    tokio::time::sleep(TIMES.lease * 2).await;
    assert!(!seen.is_live(rig.uuid, Some(&rig.lease().await)));
}

#[tokio::test]
async fn that_of_a_dead_process_is_taken_when_its_requests_have_ended() {
    let rig = Rig::new();
    drop(rig.take().await.unwrap());
    let dead = rig.lease().await.holder;
    let begun = Instant::now();
    let next = rig.take_as(dead).await.unwrap();
    assert!(begun.elapsed() > TIMES.request);
    assert!(begun.elapsed() < TIMES.lease);
    assert_eq!(next.taken_from, Some(dead));
    drop(next);
    // Not in another name.
    let begun = Instant::now();
    rig.take().await.unwrap();
    assert!(begun.elapsed() > TIMES.lease);
}

#[tokio::test]
async fn who_has_lost_it_writes_no_more() {
    let rig = Rig::new();
    let held = rig.take().await.unwrap();
    let at = rig.keys.lease(rig.uuid);
    // As if it had stood still for so long that another one took it.
    let stolen = Lease {
        holder: Uuid::new_v4(),
        generation: 2,
        ..rig.lease().await
    };
    rig.records.delete(&at).await.unwrap();
    rig.records.create(&at, &stolen).await.unwrap();
    let lost = loop {
        if let Err(error) = held.may_write(Duration::ZERO).await
            && held.is_lost()
        {
            break error;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    assert!(matches!(lost, StorageError::InUse { .. }), "{lost:?}");
    held.release().await.unwrap();
    assert_eq!(rig.lease().await, stolen, "it is left to who has it");
}

#[tokio::test]
async fn who_takes_it_in_the_name_of_another_is_not_that_one() {
    let rig = Rig::new();
    let holder = Uuid::new_v4();
    let stands_still = rig.take_as(holder).await.unwrap();
    stands_still.renewing.abort();
    let next = rig.take_as(holder).await.unwrap();
    assert_eq!(next.taken_from, Some(holder));
    // It goes on.
    let (tell, standing) = watch::channel(Standing::Until(Instant::now()));
    let latest = Arc::clone(&stands_still.latest);
    let renewing = renew(stands_still.place.clone(), latest, Arc::default(), tell);
    renewing.await;
    assert!(matches!(*standing.borrow(), Standing::Lost));
    next.may_write(PATIENCE).await.unwrap();
}
