//! Services without a transport, called with what nobody has looked at: for the fuzz targets of `fuzz/`,
//! and for the tests that replay what those have found. Nobody else's interface.
//!
//! ```text
//!   ┌ 2 bytes ─┬ the rest ─┐
//!   │ a method │ a message │ ──▶ Routes ──▶ tonic's decoder ──▶ a handler ──▶ status
//!   └──────────┴───────────┘
//! ```
//!
//! A number stands for the method whose own number is the next one: a method that comes anew changes the
//! meaning of few inputs.

mod sample;

use futures::FutureExt as _;
use http_body::Body as _;
use http_body_util::Full;
use prost::Message as _;
use prost_types::FileDescriptorSet;
use std::collections::BTreeMap;
use std::future::poll_fn;
use std::pin::pin;
use tokio::runtime::{Builder, Runtime};
use tonic::Status;
use tonic::body::Body;
use tonic::service::Routes;
use tower::Service as _;

/// Services, and the runtime that they live on.
#[derive(Debug)]
pub struct Edge {
    runtime: Runtime,
    routes: Routes,
    methods: BTreeMap<u16, String>,
}

impl Edge {
    /// The services that `open` gives, of which these are the names and descriptors.
    ///
    /// # Panics
    /// When there is no runtime to be had, or the descriptors are none.
    pub fn new(descriptors: &[u8], names: &[&str], open: impl Future<Output = Routes>) -> Self {
        let runtime = Builder::new_current_thread().enable_all().build();
        let runtime = runtime.expect("a runtime");
        let routes = runtime.block_on(open);
        let paths = methods(descriptors, names).into_iter();
        let count = paths.len();
        let methods: BTreeMap<u16, String> = paths.map(|(path, _)| (number(&path), path)).collect();
        assert_eq!(methods.len(), count, "each method has a number of its own");
        Self {
            runtime,
            routes,
            methods,
        }
    }

    /// Calls a method with a message; `None` when it was not refused.
    ///
    /// # Panics
    /// When the answer says that the server, and not the request, is wrong.
    pub fn call(&mut self, bytes: &[u8]) -> Option<Status> {
        let (method, message) = bytes.split_first_chunk::<2>()?;
        let next = self.methods.range(u16::from_be_bytes(*method)..).next();
        let (_, path) = next.or_else(|| self.methods.first_key_value())?;
        let length = u32::try_from(message.len()).ok()?;
        let framed = [&[0][..], &length.to_be_bytes(), message].concat();
        let request = http::Request::post(path)
            .header(http::header::CONTENT_TYPE, "application/grpc")
            .body(Body::new(Full::from(framed)))
            .expect("a path of a method is one of a URI");
        let status = self.runtime.block_on(async {
            let Ok(response) = self.routes.call(request).await;
            let (head, body) = response.into_parts();
            // An answer is encoded when somebody reads it; a watch may have nothing to say yet.
            let mut body = pin!(body);
            let first = poll_fn(|cx| body.as_mut().poll_frame(cx)).now_or_never();
            let refused = first.flatten().and_then(Result::err);
            refused.or_else(|| Status::from_header_map(&head.headers))
        })?;
        // Of a message that is none, tonic says so too, but without details.
        let ours = status.code() == tonic::Code::Internal && !status.details().is_empty();
        assert!(!ours, "{path}: {status:?}");
        (status.code() != tonic::Code::Ok).then_some(status)
    }
}

/// For each method of these services its path and a call that [`Edge::call`] takes, with something in
/// each field.
///
/// # Panics
/// When the descriptors are none.
#[must_use]
pub fn methods(descriptors: &[u8], names: &[&str]) -> Vec<(String, Vec<u8>)> {
    let set = FileDescriptorSet::decode(descriptors).expect("descriptors");
    let mut methods = Vec::new();
    for file in &set.file {
        for service in &file.service {
            let name = format!("{}.{}", file.package(), service.name());
            for method in &service.method {
                if names.contains(&name.as_str()) {
                    let path = format!("/{name}/{}", method.name());
                    let message = sample::message(&set, method.input_type());
                    let call = [&number(&path).to_be_bytes()[..], &message].concat();
                    methods.push((path, call));
                }
            }
        }
    }
    methods
}

/// FNV-1a, folded: the same in each build.
fn number(path: &str) -> u16 {
    let hash = path.bytes().fold(0x811c_9dc5_u32, |hash, byte| {
        (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193)
    });
    (hash >> 16) as u16 ^ hash as u16
}
