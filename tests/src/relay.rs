//! A line between two services that can be cut: a TCP port of its own before another's.
//!
//! ```text
//!   Through   bytes are carried on
//!   Reset     connections are broken (RST), new ones too: a router that refuses, a restarted firewall
//!   Silent    nothing is carried, nobody is told: a cable that is pulled. What was sent meanwhile
//!             arrives later, if its connection lives so long
//! ```

use std::net::SocketAddr;

use anyhow::{Context, Result};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

const CHUNK: usize = 16 << 10;

/// What the line does with what is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Line {
    /// Carries it.
    Through,
    /// Breaks the connection.
    Reset,
    /// Keeps it, and says nothing.
    Silent,
}

/// Works as long as it lives.
#[derive(Debug)]
pub struct Relay {
    endpoint: String,
    line: watch::Sender<Line>,
    task: JoinHandle<()>,
}

impl Relay {
    /// One before the service at this endpoint (`http://127.0.0.1:7420`).
    pub async fn before(endpoint: &str) -> Result<Self> {
        let target = endpoint.strip_prefix("http://").context("no TCP")?;
        let target: SocketAddr = target.parse()?;
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let endpoint = format!("http://{}", listener.local_addr()?);
        let (line, mode) = watch::channel(Line::Through);
        let task = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(connect(client, target, mode.clone()));
            }
        });
        Ok(Self {
            endpoint,
            line,
            task,
        })
    }

    /// What to call in place of the service.
    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// Sets the line, as [`Self::set`] does, for who has not got the relay.
    pub(crate) fn line(&self) -> watch::Sender<Line> {
        self.line.clone()
    }

    /// From now on the line does this.
    pub fn set(&self, line: Line) {
        self.line.send_replace(line);
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.task.abort();
        self.set(Line::Reset);
    }
}

async fn connect(client: TcpStream, target: SocketAddr, mut mode: watch::Receiver<Line>) {
    let server = match open(&mut mode, target).await {
        Some(server) => server,
        None => return reset(client),
    };
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    let ((from_client, to_server), (from_server, to_client)) = tokio::join!(
        carry(from_client, to_server, mode.clone()),
        carry(from_server, to_client, mode.clone())
    );
    if *mode.borrow() == Line::Reset {
        for (read, write) in [(from_client, to_client), (from_server, to_server)] {
            if let Ok(stream) = read.reunite(write) {
                reset(stream);
            }
        }
    }
}

async fn open(mode: &mut watch::Receiver<Line>, target: SocketAddr) -> Option<TcpStream> {
    let line = *mode.wait_for(|line| *line != Line::Silent).await.ok()?;
    match line {
        Line::Through => TcpStream::connect(target).await.ok(),
        Line::Reset | Line::Silent => None,
    }
}

/// Carries bytes until an end is closed or the line is reset.
async fn carry(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mut mode: watch::Receiver<Line>,
) -> (OwnedReadHalf, OwnedWriteHalf) {
    let mut chunk = vec![0; CHUNK];
    let mut broken = mode.clone();
    loop {
        let count = tokio::select! {
            count = from.read(&mut chunk) => count.unwrap_or(0),
            _ = broken.wait_for(|line| *line == Line::Reset) => break,
        };
        let speaks = mode.wait_for(|line| *line != Line::Silent).await;
        let through = speaks.is_ok_and(|line| *line == Line::Through);
        if !through || count == 0 || to.write_all(&chunk[..count]).await.is_err() {
            break;
        }
    }
    if *mode.borrow() != Line::Reset {
        let _it_may_be_gone = to.shutdown().await;
    }
    (from, to)
}

fn reset(stream: TcpStream) {
    // Without it the other end would see an orderly end.
    let _it_may_be_gone = stream.set_zero_linger();
    drop(stream);
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    async fn echo() -> Result<String> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let endpoint = format!("http://{}", listener.local_addr()?);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let (mut read, mut write) = stream.into_split();
                    let _ = tokio::io::copy(&mut read, &mut write).await;
                });
            }
        });
        Ok(endpoint)
    }

    async fn say(stream: &mut TcpStream) -> std::io::Result<u8> {
        stream.write_all(b"x").await?;
        stream.read_u8().await
    }

    #[tokio::test]
    async fn a_silent_line_delivers_later_and_a_reset_one_breaks() -> Result<()> {
        let relay = Relay::before(&echo().await?).await?;
        let at = relay.endpoint().strip_prefix("http://").context("TCP")?;
        let mut stream = TcpStream::connect(at).await?;
        assert_eq!(say(&mut stream).await?, b'x');

        relay.set(Line::Silent);
        let short = Duration::from_millis(50);
        let heard = tokio::time::timeout(short, say(&mut stream)).await;
        assert!(heard.is_err(), "{heard:?}");
        relay.set(Line::Through);
        assert_eq!(stream.read_u8().await?, b'x');

        relay.set(Line::Reset);
        let error = stream.read_u8().await.unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
        let mut refused = TcpStream::connect(at).await?;
        assert!(say(&mut refused).await.is_err());

        relay.set(Line::Through);
        assert_eq!(say(&mut TcpStream::connect(at).await?).await?, b'x');
        Ok(())
    }
}
