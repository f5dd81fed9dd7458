//! A journal of an agent that was damaged is told of once, and found until it is taken away.

use super::*;

impl Rig {
    async fn findings(&mut self) -> Vec<v1::Finding> {
        let request = v1::CheckConsistencyRequest::default();
        let answer = self.inventory.check_consistency(request).await.unwrap();
        let findings = answer.into_inner().findings.into_iter();
        let damaged = v1::FindingKind::JournalDamaged;
        findings.filter(|it| it.kind() == damaged).collect()
    }
}

#[tokio::test]
async fn a_damaged_journal_is_told_of_once_and_found_until_it_is_gone() {
    let file = "/var/lib/livemerge/agent/merges/1.corrupt";
    let mut rig = Rig::open(&["vda"]).await;
    assert_eq!(rig.findings().await, []);
    rig.agent.script().damaged.push(file.to_owned());
    for _ in 0..2 {
        rig.restart().await;
        // A host that can be looked at was heard, and what it showed was told.
        until("the finding", async || {
            (rig.findings().await.len() == 1).then_some(())
        })
        .await;
        let told = rig.events_of(v1::EventType::HostJournalDamaged).await;
        assert_eq!(told.len(), 1, "{told:?}");
        assert_eq!(told[0].severity(), v1::EventSeverity::Error);
        assert_eq!(
            (told[0].host_id.as_str(), &*told[0].details["journal"]),
            (HOST, file)
        );
    }
    let [found] = <[v1::Finding; 1]>::try_from(rig.findings().await).unwrap();
    assert_eq!(found.severity(), v1::FindingSeverity::Error);
    assert_eq!(found.repair(), v1::Repair::Unspecified);
    assert_eq!(
        (found.host_ids[0].as_str(), &*found.details["journal"]),
        (HOST, file)
    );
    assert!(found.no_repair.contains("blockjob"), "{}", found.no_repair);
    rig.agent.script().damaged.clear();
    assert_eq!(rig.findings().await, []);
}
