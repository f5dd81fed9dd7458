//! Clients that break HTTP/2 or gRPC: each is answered with an error or cut off, and the server goes on
//! for everybody else.

mod frames;

use super::{OVERALL, Running, hasty, health, of, start};
use frames::{Raw, kind};
use tonic::Code;
use tonic::metadata::MetadataValue;
use tonic_health::pb::health_client::HealthClient;

const CHECK: &str = "grpc.health.v1.Health/Check";

// Error codes of HTTP/2.
const PROTOCOL_ERROR: u32 = 1;
const FLOW_CONTROL_ERROR: u32 = 3;
const STREAM_CLOSED: u32 = 5;
const FRAME_SIZE_ERROR: u32 = 6;
const ENHANCE_YOUR_CALM: u32 = 11;

/// Kind, flags, stream and content of a frame; the length that is told, where it is another one; the error.
type Case = (u8, u8, u32, Vec<u8>, Option<u32>, u32);

async fn server() -> Running {
    start(hasty(), None).await
}

async fn serves_others(server: &Running) {
    assert!(health(server, OVERALL).await.is_ok());
}

#[tokio::test]
async fn what_is_no_http_2_is_cut_off() {
    let server = server().await;
    let noise: Vec<u8> = (0..=255).cycle().take(4096).collect();
    for said in [
        &b"GET / HTTP/1.1\r\nhost: a\r\n\r\n"[..],
        b"PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n________________",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        &noise,
    ] {
        let mut client = Raw::open(&server).await;
        client.say(said).await;
        client.hang_up().await;
        client.is_cut().await;
        serves_others(&server).await;
    }
}

#[tokio::test]
async fn broken_frames_end_the_connection_with_their_error() {
    let server = server().await;
    let most = (1_u32 << 31) - 1;
    let cases: [Case; 9] = [
        (kind::DATA, 0, 1, vec![], Some(0xff_ffff), FRAME_SIZE_ERROR),
        (kind::PING, 0, 0, vec![0; 7], None, FRAME_SIZE_ERROR),
        (kind::SETTINGS, 0, 0, vec![0; 5], None, FRAME_SIZE_ERROR),
        (kind::SETTINGS, 0, 1, vec![], None, PROTOCOL_ERROR),
        (kind::DATA, 0, 1, vec![0; 8], None, PROTOCOL_ERROR),
        (kind::CONTINUATION, 4, 1, vec![0; 8], None, PROTOCOL_ERROR),
        (kind::WINDOW_UPDATE, 0, 0, vec![0; 4], None, PROTOCOL_ERROR),
        (
            kind::HEADERS,
            5,
            2,
            frames::call(CHECK, &[]),
            None,
            PROTOCOL_ERROR,
        ),
        // A window of its own and one as large again.
        (
            kind::WINDOW_UPDATE,
            0,
            0,
            most.to_be_bytes().to_vec(),
            None,
            FLOW_CONTROL_ERROR,
        ),
    ];
    for (kind, flags, stream, content, told, error) in cases {
        let mut client = Raw::greet(&server).await;
        let mut frame = frames::frame(kind, flags, stream, &content);
        if let Some(told) = told {
            frame[..3].copy_from_slice(&told.to_be_bytes()[1..]);
        }
        client.say(&frame).await;
        let told = client.goes_away().await.expect("it says why");
        // Which may stand for any other.
        let is_it = told == error || told == PROTOCOL_ERROR;
        assert!(is_it, "{told} for {kind} on {stream}");
        serves_others(&server).await;
    }
}

#[tokio::test]
async fn headers_without_end_are_not_collected() {
    let server = server().await;
    let mut client = Raw::greet(&server).await;
    let call = frames::call(CHECK, &[]);
    client.say(&frames::frame(kind::HEADERS, 0, 1, &call)).await;
    let header = frames::field("x", &[b'a'; 100]).repeat(100);
    let more = frames::frame(kind::CONTINUATION, 0, 1, &header);
    // 200 MiB, if anybody takes them.
    let taken = client.say_again(&more, 20_000).await;
    assert!(taken < 20_000, "all of it was taken");
    let error = client.goes_away().await;
    assert!(
        error.is_none_or(|error| [ENHANCE_YOUR_CALM, PROTOCOL_ERROR].contains(&error)),
        "{error:?}"
    );
    serves_others(&server).await;
}

#[tokio::test]
async fn headers_that_are_too_many_are_refused_and_the_connection_goes_on() {
    let server = server().await;
    let mut client = Raw::greet(&server).await;
    let call = frames::call(CHECK, &[]);
    let many = frames::field("x", &[b'a'; 100]).repeat(300);
    let (first, rest) = many.split_at(16_000);
    client
        .say(&frames::frame(
            kind::HEADERS,
            1,
            1,
            &[&call[..], first].concat(),
        ))
        .await;
    client
        .say(&frames::frame(kind::CONTINUATION, 4, 1, rest))
        .await;
    client.answer_on(1).await;
    // It still talks on this connection.
    let call = frames::call(CHECK, &[]);
    client.say(&frames::frame(kind::HEADERS, 5, 3, &call)).await;
    client.answer_on(3).await;
    serves_others(&server).await;
}

#[tokio::test]
async fn floods_keep_nobody_else_waiting() {
    let server = server().await;
    let reset = [
        frames::frame(kind::HEADERS, 4, 1, &frames::call(CHECK, &[])),
        frames::frame(kind::RST_STREAM, 0, 1, &8_u32.to_be_bytes()),
    ];
    let settings = frames::frame(kind::SETTINGS, 0, 0, &[0, 4, 0, 0, 255, 255]);
    let ping = frames::frame(kind::PING, 0, 0, &[7; 8]);
    let empty = frames::frame(kind::DATA, 0, 1, &[]);
    for flood in [settings, ping, empty] {
        let mut client = Raw::greet(&server).await;
        client
            .say(&frames::frame(
                kind::HEADERS,
                4,
                1,
                &frames::call(CHECK, &[]),
            ))
            .await;
        // Nothing of what is answered is read meanwhile.
        client.say_again(&flood.repeat(100), 1000).await;
        serves_others(&server).await;
    }
    // Calls that are given up as soon as they are made.
    let mut client = Raw::greet(&server).await;
    let mut taken = 0;
    for stream in (1..40_000_u32).step_by(2) {
        let mut pair = reset.concat();
        let second = reset[0].len();
        pair[5..9].copy_from_slice(&stream.to_be_bytes());
        pair[second + 5..second + 9].copy_from_slice(&stream.to_be_bytes());
        if client.say_again(&pair, 1).await == 0 {
            break;
        }
        taken += 1;
    }
    assert!(taken < 20_000, "nobody has had enough");
    let error = client.goes_away().await;
    assert!(
        error.is_none_or(|error| error == ENHANCE_YOUR_CALM),
        "{error:?}"
    );
    serves_others(&server).await;
}

#[tokio::test]
async fn data_on_a_stream_that_is_closed_is_refused() {
    let server = server().await;
    let mut client = Raw::greet(&server).await;
    let call = frames::call(CHECK, &[]);
    client.say(&frames::frame(kind::HEADERS, 5, 1, &call)).await;
    client.answer_on(1).await;
    client.say(&frames::frame(kind::DATA, 1, 1, b"more")).await;
    let error = client.is_refused_on(1).await;
    assert!(
        error.is_none_or(|error| error == STREAM_CLOSED),
        "{error:?}"
    );
    serves_others(&server).await;
}

#[tokio::test]
async fn a_stream_s_window_has_an_end() {
    let server = server().await;
    let mut client = Raw::greet(&server).await;
    let call = frames::call(CHECK, &[]);
    client.say(&frames::frame(kind::HEADERS, 4, 1, &call)).await;
    let most = ((1_u32 << 31) - 1).to_be_bytes();
    client
        .say(&frames::frame(kind::WINDOW_UPDATE, 0, 1, &most))
        .await;
    let error = client.is_refused_on(1).await;
    assert_eq!(error, Some(FLOW_CONTROL_ERROR));
    serves_others(&server).await;
}

#[tokio::test]
async fn more_metadata_than_allowed_is_refused() {
    let server = server().await;
    let mut client = HealthClient::new(server.channel().await);
    let mut request = tonic::Request::new(of(OVERALL));
    let value = MetadataValue::try_from("a".repeat(64 << 10)).unwrap();
    request.metadata_mut().insert("x-much", value);
    client.check(request).await.unwrap_err();
    // The same connection, and another one.
    client.check(of(OVERALL)).await.unwrap();
    serves_others(&server).await;
}

#[tokio::test]
async fn metadata_that_is_no_text_is_answered() {
    let server = server().await;
    let empty = vec![0; 5];
    for name in [
        "authorization",
        "grpc-timeout",
        "grpc-encoding",
        "traceparent",
        "tracestate",
        "x-request-id",
        "user-agent",
        "x-any",
        "x-any-bin",
    ] {
        for value in [
            &b"\xff\xfe\x80"[..],
            b"",
            b"\t",
            b"99999999999999999999S",
            b"-1S",
        ] {
            let ended = server.send(CHECK, vec![(name, value)], empty.clone()).await;
            let status = ended.status.unwrap_or_else(|| panic!("{name}: {value:?}"));
            let is_fault = [Code::Internal, Code::Unknown].contains(&status.code());
            assert!(!is_fault, "{name}: {value:?}: {status:?}");
        }
    }
    serves_others(&server).await;
}

/// A message with its prefix.
fn framed(message: &[u8]) -> Vec<u8> {
    let length = u32::try_from(message.len()).unwrap();
    [&[0][..], &length.to_be_bytes(), message].concat()
}

#[tokio::test]
async fn messages_that_are_none_are_answered_with_an_error() {
    let server = server().await;
    // Groups within groups, of a field that nobody knows.
    let deep = [vec![0x7b; 100_000], vec![0x7c; 100_000]].concat();
    let cases = [
        ("text that is none", framed(b"\x0a\x02\xff\xfe")),
        ("groups without end", framed(&[0x7b; 100_000])),
        ("groups within groups", framed(&deep)),
        (
            "a length beyond the message",
            framed(b"\x0a\xff\xff\xff\xff\x0f"),
        ),
        ("a number without end", framed(&[0xff; 64])),
        ("a kind that is none", framed(b"\x0f")),
        ("field 0", framed(b"\x00\x00")),
        (
            "a length that is too large",
            vec![0, 0xff, 0xff, 0xff, 0xff],
        ),
        ("less than was told", vec![0, 0, 0, 0, 9, 1, 2]),
        ("packed in an unknown way", vec![1, 0, 0, 0, 1, 0]),
        ("a flag that is none", vec![9, 0, 0, 0, 0]),
        ("nothing", vec![]),
    ];
    for (what, body) in cases {
        let ended = server.send(CHECK, vec![], body).await;
        let status = ended.status.unwrap_or_else(|| panic!("{what}"));
        assert_ne!(status.code(), Code::Ok, "{what}");
        serves_others(&server).await;
    }
}
