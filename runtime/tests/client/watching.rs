//! Watches that break.

use crate::rig::{
    HASTE, Script, Server, Step, problem, reads, request, resetting_proxy, unavailable,
};
use livemerge_runtime::client::{Seen, Watch, WatchPolicy};
use livemerge_runtime::{Backoff, Client};
use std::time::Duration;
use tokio::time::Instant;
use tonic::{Code, Status};
use tonic_health::pb::HealthCheckResponse;
use tonic_health::pb::health_client::HealthClient;

const POLICY: WatchPolicy = WatchPolicy {
    open: Duration::from_secs(60),
    silence: Duration::from_secs(60),
    backoff: HASTE,
};

type Log = Watch<'static, String, HealthCheckResponse>;

fn watch(server: &Server, policy: WatchPolicy, token: Option<&str>) -> Log {
    let client = server.client(&reads());
    let open = move |token: Option<String>| {
        let mut client = client.clone();
        async move {
            let asked = request(&token.unwrap_or_default());
            client.watch(asked).await.map(tonic::Response::into_inner)
        }
    };
    let token_of = |piece: &HealthCheckResponse| Some(piece.status.to_string());
    Watch::new(policy, "a test", token.map(str::to_owned), open, token_of)
}

/// The next number, and how often the line was lost before it.
async fn number(watch: &mut Log) -> (i32, usize) {
    let mut lost = 0;
    loop {
        match watch.next().await.unwrap() {
            Seen::Piece(piece) => return (piece.status, lost),
            Seen::Lost(_) => lost += 1,
            Seen::Afresh(status) => panic!("{status}"),
        }
    }
}

fn draining() -> Step {
    let soon = Some(Duration::from_millis(20));
    Step::Fail(problem(Code::Unavailable, "SERVER_DRAINING", soon))
}

fn expired() -> Step {
    Step::Fail(problem(Code::OutOfRange, "RESUME_TOKEN_EXPIRED", None))
}

#[tokio::test]
async fn a_watch_that_is_cut_goes_on_behind_the_last_piece() {
    let script = Script::watches([
        (2, draining()),
        (0, unavailable()),
        (1, Step::Answer(0)),
        (2, Step::Fail(Status::internal("a fault"))),
    ]);
    let server = Server::start(&script);
    let mut watch = watch(&server, POLICY, None);
    let mut seen = Vec::new();
    for _ in 0..5 {
        seen.push(number(&mut watch).await);
    }
    assert_eq!(seen, [(1, 0), (2, 0), (3, 2), (4, 1), (5, 0)]);
    assert_eq!(script.tokens(), ["", "2", "2", "3"]);
    let fault = watch.next().await.unwrap_err();
    assert_eq!((fault.code(), fault.message()), (Code::Internal, "a fault"));
    assert_eq!(watch.token().map(String::as_str), Some("5"));
}

/// Of a connection that breaks behind a proxy its client sees nothing but a stream that was reset.
#[tokio::test]
async fn a_watch_or_a_call_that_a_proxy_resets_is_made_again() {
    for reason in [h2::Reason::INTERNAL_ERROR, h2::Reason::CONNECT_ERROR] {
        let line = |address| {
            let url = format!("http://{address}");
            Client::default().line(&url, |endpoint| endpoint).unwrap()
        };
        let client = HealthClient::new(reads().over(line(resetting_proxy(reason).await)));
        let open = move |_: Option<()>| {
            let mut client = client.clone();
            async move {
                client
                    .watch(request(""))
                    .await
                    .map(tonic::Response::into_inner)
            }
        };
        let mut watch = Watch::new(POLICY, "a test", None, open, |_| None);
        let mut seen = Vec::new();
        for _ in 0..3 {
            seen.push(match watch.next().await.unwrap() {
                Seen::Piece(piece) => piece.status,
                Seen::Lost(_) => 0,
                Seen::Afresh(status) => panic!("{status}"),
            });
        }
        assert_eq!(seen, [1, 0, 2], "{reason}");
        let mut client = HealthClient::new(reads().over(line(resetting_proxy(reason).await)));
        let answer = client.check(request("")).await.unwrap();
        assert_eq!(answer.get_ref().status, 2, "{reason}");
    }
}

#[tokio::test]
async fn a_watch_that_was_read_too_slowly_or_found_no_place_goes_on() {
    let soon = Some(Duration::from_millis(1));
    let slow = problem(Code::Aborted, "WATCH_CONSUMER_TOO_SLOW", None);
    let full = problem(Code::ResourceExhausted, "WATCH_LIMIT_REACHED", soon);
    let script = Script::watches([
        (1, Step::Fail(slow)),
        (0, Step::Fail(full)),
        (1, Step::Fail(Status::aborted("of somebody else"))),
    ]);
    let server = Server::start(&script);
    let mut watch = watch(&server, POLICY, None);
    assert_eq!(number(&mut watch).await, (1, 0));
    assert_eq!(number(&mut watch).await, (2, 2));
    assert_eq!(script.tokens(), ["", "1", "1"]);
    assert_eq!(watch.next().await.unwrap_err().code(), Code::Aborted);
}

#[tokio::test(start_paused = true)]
async fn pauses_grow_as_long_as_what_comes_is_of_no_use() {
    let backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(1000));
    let policy = WatchPolicy { backoff, ..POLICY };
    let open = |_| async { Ok(futures::stream::repeat_with(|| Ok(()))) };
    let mut watch = Watch::<(), ()>::new(policy, "a test", None, open, |_| None);
    watch.next().await.unwrap();
    let mut pause = async |used: bool| {
        if used {
            watch.next().await.unwrap();
        }
        watch.leave();
        let left_at = Instant::now();
        watch.next().await.unwrap();
        left_at.elapsed()
    };
    for _ in 0..6 {
        pause(false).await;
    }
    let late = pause(false).await;
    let first = pause(true).await;
    assert!(late > 2 * first, "{late:?} {first:?}");
}

#[tokio::test]
async fn a_watch_outlives_a_server_that_is_killed_and_started_again() {
    let script = Script::watches([(2, Step::Hang)]);
    let server = Server::start(&script);
    let mut watch = watch(&server, POLICY, None);
    let mut seen = vec![number(&mut watch).await.0, number(&mut watch).await.0];
    let back = Script::watches([(2, Step::Hang)]);
    let _back = server.killed_and_back(&back);
    for _ in 0..2 {
        let (number, lost) = number(&mut watch).await;
        assert_eq!(lost > 0, seen.len() == 2);
        seen.push(number);
    }
    assert_eq!(seen, [1, 2, 3, 4]);
    assert_eq!(back.tokens(), ["2"]);
}

#[tokio::test]
async fn a_token_that_has_expired_begins_the_watch_afresh_and_says_so() {
    let script = Script::watches([(0, expired()), (1, Step::Hang)]);
    let server = Server::start(&script);
    let mut watch = watch(&server, POLICY, Some("9"));
    let Seen::Afresh(why) = watch.next().await.unwrap() else {
        panic!("it has expired");
    };
    assert_eq!(why.code(), Code::OutOfRange);
    assert_eq!(number(&mut watch).await, (1, 0));
    assert_eq!(script.tokens(), ["9", ""]);
}

#[tokio::test]
async fn what_cannot_get_better_is_the_callers() {
    let refusals = [
        expired(),
        Step::Fail(Status::permission_denied("not you")),
        Step::Fail(Status::out_of_range("of somebody else")),
    ];
    for refusal in refusals {
        let script = Script::watches([(0, refusal), (1, Step::Hang)]);
        let server = Server::start(&script);
        let mut watch = watch(&server, POLICY, None);
        watch.next().await.unwrap_err();
        assert_eq!(script.asked().len(), 1);
        assert_eq!(
            number(&mut watch).await,
            (1, 0),
            "asked again, it tries again"
        );
    }
}

#[tokio::test]
async fn a_silent_watch_is_opened_again() {
    let script = Script::watches(std::iter::repeat_n((1, Step::Hang), 50));
    let server = Server::start(&script);
    let policy = WatchPolicy {
        silence: Duration::from_millis(200),
        ..POLICY
    };
    let mut watch = watch(&server, policy, None);
    assert_eq!(number(&mut watch).await.0, 1);
    let (second, lost) = number(&mut watch).await;
    assert_eq!((second, lost > 0), (2, true));
}

#[tokio::test]
async fn a_stream_that_is_left_is_opened_behind_what_it_gave() {
    let script = Script::watches([(3, Step::Hang), (1, Step::Hang)]);
    let server = Server::start(&script);
    let mut watch = watch(&server, POLICY, None);
    assert_eq!(number(&mut watch).await.0, 1);
    watch.leave();
    assert_eq!(number(&mut watch).await.0, 2);
    assert_eq!(script.tokens(), ["", "1"]);
}
