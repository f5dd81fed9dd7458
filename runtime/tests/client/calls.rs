//! What is called again, and what is not.

use crate::rig::{Script, Server, Step, methods, policy, problem, reads, request, unavailable};
use livemerge_runtime::client::{CallPolicy, Methods, Patience};
use prost_types::method_options::IdempotencyLevel;
use std::num::NonZeroU32;
use std::time::Duration;
use tonic::{Code, Request, Status};

const REPEATABLE: [IdempotencyLevel; 2] = [
    IdempotencyLevel::NoSideEffects,
    IdempotencyLevel::Idempotent,
];

#[tokio::test]
async fn what_is_unavailable_is_called_again_with_the_same_request() {
    for level in REPEATABLE {
        let script = Script::checks([unavailable(), unavailable(), Step::Answer(7)]);
        let server = Server::start(&script);
        let mut client = server.client(&Patience::new(methods(level), policy()));
        let answer = client.check(request("one id")).await.unwrap();
        assert_eq!(answer.get_ref().status, 7);
        assert_eq!(script.tokens(), ["one id"; 3]);
    }
}

#[tokio::test]
async fn a_server_that_stays_unavailable_is_called_so_often_and_no_more() {
    let script = Script::checks(std::iter::repeat_n(unavailable(), 9));
    let server = Server::start(&script);
    let refused = server
        .client(&reads())
        .check(request(""))
        .await
        .unwrap_err();
    assert_eq!(
        (refused.code(), script.asked().len()),
        (Code::Unavailable, 4)
    );
    assert_eq!(refused.message(), "as the script says");
}

#[tokio::test]
async fn no_other_code_is_called_again() {
    for level in REPEATABLE {
        for code in (1..=16)
            .map(Code::from)
            .filter(|code| *code != Code::Unavailable)
        {
            let status = problem(code, "ANY", Some(Duration::from_millis(1)));
            let script = Script::checks([Step::Fail(status), Step::Answer(7)]);
            let server = Server::start(&script);
            let mut client = server.client(&Patience::new(methods(level), policy()));
            let refused = client.check(request("")).await.unwrap_err();
            assert_eq!((refused.code(), script.asked().len()), (code, 1));
        }
    }
}

#[tokio::test]
async fn a_server_that_is_full_is_called_again_when_it_says_so() {
    let soon = Some(Duration::from_millis(1));
    for level in REPEATABLE {
        for (reason, after, times) in [
            ("SERVER_OVERLOADED", soon, 2),
            ("WATCH_LIMIT_REACHED", soon, 2),
            ("SERVER_OVERLOADED", None, 1),
            // It is no less full in a while.
            ("INSUFFICIENT_SPACE", soon, 1),
        ] {
            let status = problem(Code::ResourceExhausted, reason, after);
            let script = Script::checks([Step::Fail(status), Step::Answer(7)]);
            let server = Server::start(&script);
            let mut client = server.client(&Patience::new(methods(level), policy()));
            let answer = client.check(request("one id")).await;
            assert_eq!(answer.is_ok(), times == 2, "{reason}");
            assert_eq!(script.tokens(), vec!["one id"; times], "{reason}");
        }
    }
}

#[tokio::test]
async fn a_change_without_an_id_and_a_method_that_is_not_known_are_called_once() {
    let change = methods(IdempotencyLevel::IdempotencyUnknown);
    let of_others = methods(IdempotencyLevel::Idempotent).reads_alone();
    for methods in [change, of_others, Methods::default()] {
        let script = Script::checks([unavailable(), Step::Answer(7)]);
        let server = Server::start(&script);
        let mut client = server.client(&Patience::new(methods, policy()));
        let refused = client.check(request("")).await.unwrap_err();
        assert_eq!(
            (refused.code(), script.asked().len()),
            (Code::Unavailable, 1)
        );
    }
}

#[tokio::test]
async fn the_next_try_waits_for_what_retry_info_says() {
    let wait = Duration::from_millis(300);
    let status = problem(Code::Unavailable, "SERVER_DRAINING", Some(wait));
    let script = Script::checks([Step::Fail(status), Step::Answer(7)]);
    let server = Server::start(&script);
    server.client(&reads()).check(request("")).await.unwrap();
    let asked = script.asked();
    assert!(asked[1].at - asked[0].at >= wait, "{asked:?}");
}

#[tokio::test]
async fn a_wait_that_outlasts_the_call_is_not_begun() {
    let wait = Duration::from_secs(600);
    let status = problem(Code::Unavailable, "SERVER_DRAINING", Some(wait));
    let script = Script::checks([Step::Fail(status)]);
    let server = Server::start(&script);
    let mut asked = Request::new(request(""));
    asked.set_timeout(Duration::from_secs(60));
    let refused = server.client(&reads()).check(asked).await.unwrap_err();
    assert_eq!(
        (refused.code(), script.asked().len()),
        (Code::Unavailable, 1)
    );
}

#[tokio::test]
async fn repetitions_end_with_the_budget() {
    let script = Script::checks([Step::Answer(1), Step::Answer(1)]);
    script
        .checks
        .lock()
        .unwrap()
        .extend(std::iter::repeat_n(unavailable(), 9));
    let server = Server::start(&script);
    let policy = CallPolicy {
        repeats_per_second: 0,
        repeats_per_call: 0.5,
        ..policy()
    };
    let patience = Patience::new(methods(IdempotencyLevel::NoSideEffects), policy);
    let mut client = server.client(&patience);
    for _ in 0..2 {
        client.check(request("good")).await.unwrap();
    }
    // Two good calls allow one repetition, to all clients of the line together.
    client.check(request("")).await.unwrap_err();
    assert_eq!(script.asked().len(), 4);
    server
        .client(&patience)
        .check(request(""))
        .await
        .unwrap_err();
    assert_eq!(script.asked().len(), 5);
}

#[tokio::test]
async fn a_call_outlives_a_server_that_is_killed_and_started_again() {
    let policy = CallPolicy {
        tries: NonZeroU32::new(10_000).unwrap(),
        ..policy()
    };
    for level in REPEATABLE {
        let script = Script::checks([Step::Hang]);
        let server = Server::start(&script);
        let mut client = server.client(&Patience::new(methods(level), policy));
        let calling = tokio::spawn(async move { client.check(request("one id")).await });
        script.asked_times(1).await;
        let back = Script::checks([Step::Answer(7)]);
        let _back = server.killed_and_back(&back);
        assert_eq!(calling.await.unwrap().unwrap().get_ref().status, 7);
        assert_eq!(back.tokens(), ["one id"]);
    }
}

#[tokio::test]
async fn a_change_that_may_be_made_twice_is_not_made_again_when_the_connection_breaks() {
    let script = Script::checks([Step::Hang]);
    let server = Server::start(&script);
    let patience = Patience::new(methods(IdempotencyLevel::IdempotencyUnknown), policy());
    let mut client = server.client(&patience);
    let calling = tokio::spawn(async move { client.check(request("")).await });
    script.asked_times(1).await;
    let back = Script::default();
    let _back = server.killed_and_back(&back);
    let lost: Status = calling.await.unwrap().unwrap_err();
    assert!(lost.code() != Code::Ok && back.asked().is_empty());
}
