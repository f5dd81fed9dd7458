//! Who says where a host is: its agent, the configuration, somebody by hand.

use super::*;

/// What an agent of that start says of itself; 0 is nobody's.
fn at(endpoint: &str, generation: i64) -> v1::RegisterHostRequest {
    v1::RegisterHostRequest {
        request_id: any_id(),
        host_id: HOST.to_owned(),
        endpoint: endpoint.to_owned(),
        generation,
        version: String::new(),
    }
}

impl Rig {
    async fn register(&mut self, host: v1::RegisterHostRequest) -> Result<v1::Host, Reason> {
        match self.inventory.register_host(host).await {
            Ok(answer) => Ok(answer.into_inner().host.unwrap()),
            refused => Err(refusal(refused).reason),
        }
    }
}

/// Where the same agent is reached, too.
fn beside(endpoint: &str) -> String {
    endpoint.replace("127.0.0.1", "localhost")
}

#[tokio::test]
async fn a_word_by_hand_never_stands_above_the_agents() {
    let vm = any_id();
    let (agent, endpoint) = Agent::serve(vm.clone(), &["vda"]).await;
    let mut rig = Rig::around(vm, agent, vec![(HOST, endpoint.clone())]).await;
    rig.host_is(HOST, v1::HostStatus::Up).await;
    // A host of which only somebody has said where it is: not another one's address.
    let nobody = "http://127.0.0.1:1";
    let taken = rig.register(at(nobody, 0)).await;
    assert_eq!(taken.unwrap_err(), Reason::HostUnreachable);
    let moved = rig.register(at(&beside(&endpoint), 0)).await.unwrap();
    assert_eq!((moved.generation, moved.endpoint), (0, beside(&endpoint)));

    // Its agent goes before, however young it is.
    let own = rig.register(at(&endpoint, 1)).await.unwrap();
    assert_eq!(own.generation, 1);
    for _again in 0..2 {
        let taken = rig.register(at(nobody, 0)).await;
        assert_eq!(taken.unwrap_err(), Reason::HostUnreachable);
        let twin = rig.register(at(&beside(&endpoint), 0)).await;
        assert_eq!(twin.unwrap_err(), Reason::StaleGeneration);
        let same = rig.register(at(&endpoint, 0)).await.unwrap();
        assert_eq!(same.generation, 1);
        rig.register(at(&endpoint, 1)).await.unwrap();
    }

    // Where a newer start of it answers it is found, and may still say itself where it is.
    rig.agent.script().generation = 2;
    let found = rig.register(at(&beside(&endpoint), 0)).await.unwrap();
    assert_eq!((found.generation, found.endpoint), (1, beside(&endpoint)));
    let own = rig.register(at(&endpoint, 2)).await.unwrap();
    assert_eq!((own.generation, own.endpoint), (2, endpoint));
}

#[tokio::test]
async fn a_configured_host_that_registers_itself_keeps_its_address() {
    let vm = any_id();
    let (agent, endpoint) = Agent::serve(vm.clone(), &["vda"]).await;
    let mut rig = Rig::around(vm, agent, vec![(HOST, endpoint.clone())]).await;
    rig.host_is(HOST, v1::HostStatus::Up).await;
    let own = beside(&endpoint);
    rig.register(at(&own, 1)).await.unwrap();
    // The configuration has the other address still.
    rig.restart().await;
    let again = rig.register(at(&own, 1)).await.unwrap();
    assert_eq!((again.generation, again.endpoint), (1, own));
}
