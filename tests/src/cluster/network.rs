//! Connections between names, within the process.

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use hyper_util::rt::TokioIo;
use livemerge_api_server::hosts::Dial;
use tokio::io::DuplexStream;
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::transport::{Endpoint, Uri};
use tower::service_fn;

const BUFFER: usize = 64 << 10;

/// Who listens under which name. Clones are the same network.
#[derive(Debug, Clone, Default)]
pub(super) struct Network {
    listeners: Arc<Mutex<HashMap<String, UnboundedSender<DuplexStream>>>>,
}

impl Network {
    /// Listens under a name, in place of an earlier listener.
    pub(super) fn listen(
        &self,
        name: &str,
    ) -> impl tokio_stream::Stream<Item = io::Result<DuplexStream>> + use<> {
        let (sender, receiver) = unbounded_channel();
        self.with(|listeners| listeners.insert(name.to_owned(), sender));
        UnboundedReceiverStream::new(receiver).map(Ok)
    }

    /// Nobody listens under the name any more. Open connections end with their other side.
    pub(super) fn cut(&self, name: &str) {
        self.with(|listeners| listeners.remove(name));
    }

    /// Makes channels to names.
    pub(super) fn dial(&self) -> Dial {
        let network = self.clone();
        Arc::new(move |name| {
            let endpoint =
                Endpoint::from_shared(name.to_owned()).map_err(|error| error.to_string())?;
            let (network, name) = (network.clone(), name.to_owned());
            Ok(
                endpoint.connect_with_connector_lazy(service_fn(move |_: Uri| {
                    let connected = network.connect(&name);
                    async move { connected.map(TokioIo::new) }
                })),
            )
        })
    }

    fn connect(&self, name: &str) -> io::Result<DuplexStream> {
        let (ours, theirs) = tokio::io::duplex(BUFFER);
        let refused = || io::Error::from(io::ErrorKind::ConnectionRefused);
        self.with(|listeners| {
            let listener = listeners.get(name).ok_or_else(refused)?;
            listener.send(theirs).map_err(|_closed| refused())
        })?;
        Ok(ours)
    }

    fn with<T>(
        &self,
        work: impl FnOnce(&mut HashMap<String, UnboundedSender<DuplexStream>>) -> T,
    ) -> T {
        work(
            &mut self
                .listeners
                .lock()
                .unwrap_or_else(PoisonError::into_inner),
        )
    }
}
