//! From a connection to an export.

use super::serve::Export;
use super::wire::{self, Answer, Asked};
use crate::StorageError;
use async_trait::async_trait;
use std::io;
use std::sync::Arc;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

/// Far more options than any client has.
const MOST_OPTIONS: usize = 1000;

/// What an export is like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::object) struct Facts {
    pub(in crate::object) bytes: u64,
    pub(in crate::object) read_only: bool,
}

impl Facts {
    fn flags(self) -> u16 {
        let read_only = if self.read_only { wire::READ_ONLY } else { 0 };
        wire::EXPORT_FLAGS | read_only
    }
}

/// What a server offers.
#[async_trait]
pub(in crate::object) trait Exports: Send + Sync + 'static {
    async fn names(&self) -> Result<Vec<String>, StorageError>;

    /// # Errors
    /// `NotFound` when there is none of that name.
    async fn facts(&self, name: &str) -> Result<Facts, StorageError>;

    /// Opens an export, until it is closed.
    async fn open(&self, name: &str) -> Result<Arc<dyn Export>, StorageError>;
}

/// Leads a client to an export; `None` when it leaves without.
pub(super) async fn handshake<S: AsyncRead + AsyncWrite + Unpin + Send>(
    stream: &mut S,
    exports: &dyn Exports,
) -> io::Result<Option<Arc<dyn Export>>> {
    let mut greeting = wire::GREETING.to_be_bytes().to_vec();
    greeting.extend(wire::OPTION.to_be_bytes());
    greeting.extend((wire::FIXED_NEWSTYLE | wire::NO_ZEROES).to_be_bytes());
    stream.write_all(&greeting).await?;
    let client = stream.read_u32().await?;
    let zeroes = client & u32::from(wire::NO_ZEROES) == 0;
    for _ in 0..MOST_OPTIONS {
        let (option, data) = read_option(stream).await?;
        let answered = match Asked::parse(option, &data) {
            Asked::Abort => {
                stream
                    .write_all(&wire::answer(option, Answer::Ack, &[]))
                    .await?;
                return Ok(None);
            }
            // The old way knows no refusal.
            Asked::ExportName(name) => {
                let export = exports.open(&name).await.map_err(io::Error::other)?;
                let mut start = wire::export_info(export.facts().bytes, export.facts().flags());
                start.drain(..2);
                start.extend(vec![0; if zeroes { 124 } else { 0 }]);
                stream.write_all(&start).await?;
                return Ok(Some(export));
            }
            Asked::Go(name) => match exports.open(&name).await {
                Ok(export) => {
                    let answers = told(option, export.facts());
                    stream.write_all(&answers).await?;
                    return Ok(Some(export));
                }
                Err(error) => refusal(option, &error),
            },
            Asked::Info(name) => match exports.facts(&name).await {
                Ok(facts) => told(option, facts),
                Err(error) => refusal(option, &error),
            },
            Asked::List => list(option, exports).await,
            Asked::Unknown => wire::answer(option, Answer::Unsupported, &[]),
            Asked::Invalid => wire::answer(option, Answer::Invalid, &[]),
        };
        stream.write_all(&answered).await?;
    }
    Err(io::Error::other("a client asks without end"))
}

async fn read_option<S: AsyncRead + Unpin>(stream: &mut S) -> io::Result<(u32, Vec<u8>)> {
    if stream.read_u64().await? != wire::OPTION {
        return Err(io::Error::other("what a client says is no option"));
    }
    let option = stream.read_u32().await?;
    let length = stream.read_u32().await?;
    if length > wire::MOST_OPTION {
        return Err(io::Error::other("an option is too long"));
    }
    let mut data = vec![0; length as usize];
    stream.read_exact(&mut data).await?;
    Ok((option, data))
}

fn told(option: u32, facts: Facts) -> Vec<u8> {
    let export = wire::export_info(facts.bytes, facts.flags());
    let mut answers = wire::answer(option, Answer::Info, &export);
    answers.extend(wire::answer(option, Answer::Info, &wire::block_info()));
    answers.extend(wire::answer(option, Answer::Ack, &[]));
    answers
}

async fn list(option: u32, exports: &dyn Exports) -> Vec<u8> {
    let names = match exports.names().await {
        Ok(names) => names,
        Err(error) => return refusal(option, &error),
    };
    let names = names.iter().flat_map(|name| {
        let data = wire::server_info(name);
        wire::answer(option, Answer::Server, &data)
    });
    let mut answers: Vec<u8> = names.collect();
    answers.extend(wire::answer(option, Answer::Ack, &[]));
    answers
}

/// Clients show its text, and know by its kind what is certainly not there.
fn refusal(option: u32, error: &StorageError) -> Vec<u8> {
    let kind = match error {
        StorageError::NotFound { .. } => Answer::UnknownExport,
        StorageError::InUse { .. } | StorageError::Denied { .. } => Answer::Policy,
        _ => Answer::Shutdown,
    };
    let text: String = error.to_string().chars().take(500).collect();
    wire::answer(option, kind, text.as_bytes())
}
