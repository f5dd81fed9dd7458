//! Copies of an order that come after those that were given later.

use super::*;

/// The server has taken the refusal for its end: what is refused has never begun, and never will.
#[tokio::test]
async fn an_order_that_comes_after_its_refusal_begins_nothing_also_after_a_restart() {
    let mut host = Host::new(&["vda"]).await;
    let order = host.commit(&vda(), 1, 2);
    let id = order.id;
    host.qemu().set_migrating(host.vm, true);
    let again = |host: &Host, sequence| {
        let (merges, order) = (Arc::clone(&host.merges), order.clone());
        async move { merges.start_beside(vec![order], sequence, vec![]).await }
    };
    let refused = again(&host, 2).await.unwrap_err();
    assert_eq!(refused.reason, Reason::VmMigrating);
    host.qemu().set_migrating(host.vm, false);
    for _ in 0..2 {
        for late in [1, 2] {
            let refused = again(&host, late).await.unwrap_err();
            assert_eq!(refused.reason, Reason::StaleGeneration, "{late}");
        }
        host.restart().await;
    }
    assert!(host.merges.get(id).is_none());
    // What is in the journal is no refusal, however late it is.
    again(&host, 3).await.unwrap();
    again(&host, 1).await.unwrap();
    host.job(&vda()).await;
}
