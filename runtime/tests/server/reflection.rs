//! Reflection, which may be configured off.

use crate::rig::{hasty, start};
use crate::{OVERALL, ends_within, health};
use livemerge_runtime::ServerConfig;
use std::time::Duration;
use tonic::Code;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_reflection::pb::v1::ServerReflectionRequest;
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;

#[tokio::test]
async fn reflection_is_served_unless_it_is_configured_off() {
    for (reflection, answers) in [(true, Ok(())), (false, Err(Code::Unimplemented))] {
        let config = ServerConfig {
            reflection,
            ..hasty()
        };
        let server = start(config, None).await;
        let mut client = ServerReflectionClient::new(server.channel().await);
        let list = ServerReflectionRequest {
            host: String::new(),
            message_request: Some(MessageRequest::ListServices(String::new())),
        };
        let asked = futures::stream::iter([list]);
        let answer = client.server_reflection_info(asked).await;
        let answer = answer.map(drop).map_err(|status| status.code());
        assert_eq!(answer, answers);
        let overall = health(&server, OVERALL).await;
        assert_eq!(overall, Ok(ServingStatus::NotServing));
        server.shutdown.cancel();
        ends_within(server, Duration::from_secs(5)).await;
    }
}
