//! What a test puts between the services and what they work with.

use std::sync::Arc;

use livemerge_api_server::store::Store;
use livemerge_host_agent::hypervisor::Hypervisor;
use livemerge_host_agent::hypervisor::fake::FakeHypervisor;
use livemerge_proto::reason::Reason;
use livemerge_storage::VolumeName;
use tonic::async_trait;

/// One of the two services.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Who {
    /// The API server.
    Server,
    /// The host agent.
    Agent,
}

impl Who {
    /// Its endpoint in the network.
    pub const fn address(self) -> &'static str {
        match self {
            Self::Server => "http://api:7420",
            Self::Agent => "http://agent:7421",
        }
    }
}

/// How a call goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Upset {
    /// Understood, and nothing is done.
    Refused,
    /// No answer, and nothing is done.
    Unreached,
    /// No answer, and it is done.
    Lost,
    /// No answer in time, and it is done afterwards.
    Late,
    /// An answer with this reason, and nothing is done.
    Answers(Reason),
}

/// Stands between the services and their surroundings. Of itself it changes nothing.
#[async_trait]
pub trait Between: Send + Sync + 'static {
    /// A thread of a service begins.
    fn thread_starts(&self, _who: Who) {}

    /// The agent's hypervisor.
    fn hypervisor(&self, real: FakeHypervisor) -> Arc<dyn Hypervisor> {
        Arc::new(real)
    }

    /// The API server's record.
    fn store(&self, real: Arc<dyn Store>) -> Arc<dyn Store> {
        real
    }

    /// An RPC arrives at a service. Tells what goes wrong with it.
    fn rpc(&self, _at: Who, _method: &str) -> Option<Upset> {
        None
    }

    /// Storage is called. Tells what goes wrong with it.
    fn storage(&self, _call: &'static str) -> Option<Upset> {
        None
    }

    /// A volume is about to go for good.
    async fn removing(&self, _volume: &VolumeName) {}
}

/// Nothing stands between.
pub(super) struct Nothing;

impl Between for Nothing {}
