//! Connections between names, within the process.

use std::collections::{HashMap, HashSet};
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};

use futures::stream::BoxStream;
use hyper_util::rt::TokioIo;
use livemerge_api_server::hosts::Dial;
use livemerge_runtime::Line;
use tokio::io::DuplexStream;
use tokio::net::TcpListener;
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};
use tokio::task::AbortHandle;
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::transport::{Channel, Endpoint, Uri};
use tower::service_fn;

const BUFFER: usize = 64 << 10;

/// The connections to a listener, as they come.
pub(super) type Incoming = BoxStream<'static, io::Result<DuplexStream>>;

/// Who listens under which name. Clones are the same network.
#[derive(Debug, Clone, Default)]
pub struct Network(Arc<Mutex<Lines>>);

#[derive(Debug, Default)]
struct Lines {
    listeners: HashMap<String, UnboundedSender<DuplexStream>>,
    /// Carry the bytes of the open connections to each name.
    relays: HashMap<String, Vec<AbortHandle>>,
    broken: HashSet<String>,
}

impl Network {
    /// Listens under a name, in place of an earlier listener.
    pub(super) fn listen(&self, name: &str) -> Incoming {
        let (sender, receiver) = unbounded_channel();
        self.with(|lines| lines.listeners.insert(name.to_owned(), sender));
        Box::pin(UnboundedReceiverStream::new(receiver).map(Ok))
    }

    /// Nobody listens under the name any more. Open connections end with their other side.
    pub(super) fn cut(&self, name: &str) {
        self.with(|lines| lines.listeners.remove(name));
    }

    /// Breaks all connections to a name, and lets no new one through until it is mended.
    pub fn break_line(&self, name: &str) {
        let relays = self.with(|lines| {
            lines.broken.insert(name.to_owned());
            lines.relays.remove(name)
        });
        for relay in relays.into_iter().flatten() {
            relay.abort();
        }
    }

    /// Ends everything. A relay that is remembered would keep the runtime that it ran on, and that
    /// what a test has put before the service, which may lead back here.
    pub(super) fn close(&self) {
        let relays = self.with(std::mem::take).relays;
        for relay in relays.into_values().flatten() {
            relay.abort();
        }
    }

    /// Whether a line is broken.
    pub fn is_broken(&self, name: &str) -> bool {
        self.with(|lines| lines.broken.contains(name))
    }

    /// Lets connections to a name through again.
    pub fn mend_line(&self, name: &str) {
        self.with(|lines| lines.broken.remove(name));
    }

    /// Makes lines to names.
    pub(super) fn dial(&self) -> Dial {
        let network = self.clone();
        Arc::new(move |_, name| network.channel(name).map(Line::from))
    }

    /// A channel to a name.
    pub(super) fn channel(&self, name: &str) -> Result<Channel, String> {
        let endpoint = Endpoint::from_shared(name.to_owned()).map_err(|error| error.to_string())?;
        let (network, name) = (self.clone(), name.to_owned());
        Ok(
            endpoint.connect_with_connector_lazy(service_fn(move |_: Uri| {
                let connected = network.connect(&name);
                async move { connected.map(TokioIo::new) }
            })),
        )
    }

    /// A port of this machine's loopback that leads to a name, for programs of their own. Closed with the
    /// runtime that it is opened on.
    ///
    /// # Errors
    /// When there is no free port.
    pub async fn open_port(&self, name: &'static str) -> io::Result<SocketAddr> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let (address, network) = (listener.local_addr()?, self.clone());
        tokio::spawn(async move {
            while let Ok((mut outside, _)) = listener.accept().await {
                if let Ok(mut inside) = network.connect(name) {
                    let carry = async move {
                        let _cut = tokio::io::copy_bidirectional(&mut outside, &mut inside).await;
                    };
                    tokio::spawn(carry);
                }
            }
        });
        Ok(address)
    }

    fn connect(&self, name: &str) -> io::Result<DuplexStream> {
        let (ours, mut near) = tokio::io::duplex(BUFFER);
        let (mut far, theirs) = tokio::io::duplex(BUFFER);
        let refused = || io::Error::from(io::ErrorKind::ConnectionRefused);
        self.with(|lines| {
            if lines.broken.contains(name) {
                return Err(refused());
            }
            let listener = lines.listeners.get(name).ok_or_else(refused)?;
            listener.send(theirs).map_err(|_closed| refused())?;
            let carry = async move { tokio::io::copy_bidirectional(&mut near, &mut far).await };
            let relay = tokio::spawn(carry).abort_handle();
            let relays = lines.relays.entry(name.to_owned()).or_default();
            relays.retain(|relay| !relay.is_finished());
            relays.push(relay);
            Ok(())
        })?;
        Ok(ours)
    }

    fn with<T>(&self, work: impl FnOnce(&mut Lines) -> T) -> T {
        work(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
