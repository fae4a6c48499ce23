//! Answers that do not come, and what is done about it.

use std::time::{Duration, Instant};

use colloquy::llm::{BreakerState, ErrorClass};
use colloquy::openresponses::{FunctionCall, FunctionCallOutput, Output};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::support::eventually;
use crate::support::providers::{Ending, Limits, Script, Shortage, Wire};

const WIRES: [Wire; 4] = [Wire::Chat, Wire::Azure, Wire::Responses, Wire::Anthropic];

#[tokio::test]
async fn what_may_pass_is_tried_again_as_the_provider_asks() {
    for (failure, outcome, least, most) in [
        (Script::fails(500, "x"), "provider_error", 10, 1_000),
        (Script::fails(502, "x"), "provider_error", 10, 1_000),
        (Script::fails(503, "x"), "provider_overloaded", 10, 1_000),
        (Script::fails(429, "x").header("retry-after-ms", "150"), "provider_rate_limited", 150, 1_500),
        (Script::fails(429, "x").header("retry-after", "1"), "provider_rate_limited", 1_000, 2_500),
        // The four causes that Azure names in words alone, and the fifth form.
        (Script::lacks(Shortage::OwnQuota), "provider_rate_limited", 1_000, 2_500),
        (Script::lacks(Shortage::Estimate), "provider_rate_limited", 1_000, 2_500),
        (Script::lacks(Shortage::Wrapped), "provider_rate_limited", 1_000, 2_500),
        (Script::lacks(Shortage::Reduced), "provider_capacity", 1_000, 2_500),
        (Script::lacks(Shortage::Capacity), "provider_capacity", 10, 1_000),
        // What is exact goes before what is general.
        (
            Script::lacks(Shortage::OwnQuota).header("retry-after-ms", "150").header("retry-after", "60"),
            "provider_rate_limited",
            150,
            1_000,
        ),
    ] {
        let provider = FakeProvider::start(Wire::Azure);
        provider.next([failure]);
        let began = Instant::now();
        let opened = opened(&router(&[&provider], "", settings())).await;
        let took = began.elapsed().as_millis();
        assert_eq!(outcomes(&opened), [outcome, "begun"]);
        assert!((least..most).contains(&took), "{outcome}: {took} ms");
        assert_eq!(heard(opened.result.unwrap()).await.text, "Hello there");
    }
}

/// Where a refusal says nothing of when, the limits in its headers do: in each provider's form.
#[tokio::test]
async fn a_limit_that_is_used_up_is_waited_for_until_it_begins_anew() {
    for wire in WIRES {
        let provider = FakeProvider::start(wire);
        let reset = Duration::from_millis(1_200);
        provider.next([Script::fails(429, "x").limits(Limits::no_tokens(reset))]);
        let began = Instant::now();
        let opened = super::opened(&router(&[&provider], "", settings())).await;
        assert_eq!(outcomes(&opened), ["provider_rate_limited", "begun"], "{wire:?}");
        assert!(began.elapsed() > Duration::from_millis(1_000), "{wire:?}: {:?}", began.elapsed());
        // -1 says that nobody knows.
        provider.next([Script::fails(429, "x").limits(Limits::unknown())]);
        let began = Instant::now();
        let opened = super::opened(&router(&[&provider], "", settings())).await;
        assert_eq!(outcomes(&opened), ["provider_rate_limited", "begun"], "{wire:?}");
        assert!(began.elapsed() < Duration::from_millis(1_000), "{wire:?}: {:?}", began.elapsed());
    }
}

/// What a vendor refuses of a request, the fake one does; and it is told, not tried again.
#[tokio::test]
async fn a_request_that_a_vendor_refuses_is_refused_in_its_words() {
    let said = |role, text: &str| {
        Item::Message(Message {
            id: String::new(),
            status: ItemStatus::Completed,
            role,
            content: vec![ContentPart::InputText { text: text.to_owned() }],
            phase: None,
        })
    };
    let called = Item::FunctionCall(FunctionCall {
        id: String::new(),
        call_id: "call_1".to_owned(),
        name: "f".to_owned(),
        arguments: "{}".to_owned(),
        status: ItemStatus::Completed,
    });
    let answered = Item::FunctionCallOutput(FunctionCallOutput {
        id: String::new(),
        call_id: "call_2".to_owned(),
        output: Output::Text("1".to_owned()),
        status: ItemStatus::Completed,
    });
    for (wire, unanswered, uncalled, empty) in [
        (
            Wire::Chat,
            "must be followed by tool messages",
            "must be a response to a preceeding",
            "empty array",
        ),
        (
            Wire::Azure,
            "must be followed by tool messages",
            "must be a response to a preceeding",
            "empty array",
        ),
        (Wire::Responses, "No tool output found for function call", "No tool call found", "must be provided"),
        (Wire::Anthropic, "without `tool_result` blocks", "unexpected `tool_use_id`", "at least one message"),
    ] {
        let provider = FakeProvider::start(wire);
        let router = router(&[&provider], "", settings());
        for (items, words) in [
            (vec![said(Role::User, "Hi"), called.clone()], unanswered),
            (vec![said(Role::User, "Hi"), answered.clone()], uncalled),
            (vec![], empty),
        ] {
            let params = request("Hi").params;
            let request = ModelRequest { params, items: items.into_iter().map(Arc::new).collect() };
            let opened = router.open(router.alias("it").unwrap(), &request, OpenLimits::default()).await;
            assert_eq!(outcomes(&opened), ["provider_refused_request"], "{wire:?}");
            let error = opened.result.unwrap_err();
            assert!(error.message.contains(words), "{wire:?}: {}", error.message);
        }
        assert_eq!((provider.refused().len(), provider.charged().requests), (3, 0));
    }
}

#[tokio::test]
async fn after_the_last_round_the_error_is_told() {
    let provider = FakeProvider::start(Wire::Chat);
    provider.always(Script::fails(500, "x"));
    let opened = opened(&router(&[&provider], "", settings())).await;
    assert_eq!(outcomes(&opened), ["provider_error"; 4]);
    let error = opened.result.unwrap_err();
    assert_eq!(
        (error.class, error.status, error.to_api().status.as_u16()),
        (ErrorClass::Server, Some(500), 503)
    );
    // A wait beyond the deadline is not waited for, but told.
    provider.always(Script::fails(429, "x").header("retry-after", "600"));
    let router = router(&[&provider], "", settings());
    let began = Instant::now();
    let opened = super::opened(&router).await;
    assert_eq!(opened.result.unwrap_err().retry_after, Some(Duration::from_secs(600)));
    assert!(began.elapsed() < Duration::from_secs(5) && opened.attempts.len() == 1);
    // Until then nobody asks again.
    let again = super::opened(&router).await;
    let error = again.result.unwrap_err();
    assert_eq!((error.class, again.attempts.len()), (ErrorClass::RateLimited, 0));
    assert!(error.retry_after > Some(Duration::from_secs(590)));
}

#[tokio::test]
async fn what_will_not_pass_is_not_tried_again() {
    let spend = json!({"type": "error", "error": {"type": "rate_limit_error", "message": "x",
        "details": {"error_code": "enforced_spend_limit_reached"}}});
    let filtered = json!({"error": {"code": "content_filter", "param": "prompt", "status": 400, "message": "x",
        "innererror": {"code": "ResponsibleAIPolicyViolation", "content_filter_result": {"hate": {"filtered": true}}}}});
    for (failure, code, charged) in [
        (Script::fails_with(429, spend), "provider_spend_limit", false),
        (Script::fails_with(400, filtered), "content_filter", true),
        (Script::fails(400, "bad"), "provider_refused_request", false),
        (Script::fails(413, "large"), "provider_refused_request", false),
    ] {
        let (first, second) = (FakeProvider::start(Wire::Anthropic), FakeProvider::start(Wire::Chat));
        first.always(failure);
        let router = router(&[&first, &second], "", settings());
        for _ in 0..6 {
            let opened = opened(&router).await;
            assert_eq!((outcomes(&opened), opened.attempts[0].charged), (vec![code], charged));
        }
        assert_eq!((first.seen().len(), second.seen().len()), (6, 0));
        assert_eq!(router.health()[0].breaker, BreakerState::Closed, "{code} says nothing of the deployment");
        assert_eq!(first.charged().requests, if charged { 6 } else { 0 });
    }
}

#[tokio::test]
async fn another_deployment_answers_at_once() {
    let gone = {
        let provider = FakeProvider::start(Wire::Chat);
        provider.deployment("gone", "")
    };
    for failure in [
        Script::fails(429, "The system is currently experiencing high demand."),
        Script::fails(429, "x").header("retry-after", "30"),
        Script::fails(500, "x"),
        Script::fails(401, "x"),
        Script::fails(404, "x"),
        Script::says("x").ending_after(0, Ending::Eof),
        Script::says("x").ending_after(0, Ending::Reset),
        Script::says("x")
            .ending_after(0, Ending::Error(json!({"error": {"message": "x", "type": "server_error"}}))),
    ] {
        let (first, second) = (FakeProvider::start(Wire::Azure), FakeProvider::start(Wire::Anthropic));
        first.always(failure.clone());
        let config = LlmConfig { retry_base: Duration::from_secs(30), ..LlmConfig::default() };
        let began = Instant::now();
        let opened = opened(&router(&[&first, &second], "", config)).await;
        assert_eq!((opened.attempts.len(), &*opened.attempts[1].deployment), (2, "d1"), "{failure:?}");
        assert_ne!(opened.attempts[0].id, opened.attempts[1].id);
        assert!(began.elapsed() < Duration::from_secs(5));
        assert_eq!(heard(opened.result.unwrap()).await.text, "Hello there");
    }
    let second = FakeProvider::start(Wire::Responses);
    let text = gone + &second.deployment("here", "") + "[models.it]\ndeployments = [\"gone\", \"here\"]";
    let opened = opened(&router_of(&text, settings())).await;
    assert_eq!(outcomes(&opened), ["provider_unreachable", "begun"]);
    assert!(!opened.attempts[0].charged, "nothing was sent");
}

/// Anthropic counts the input before its first word; an error behind that has shown nobody anything.
#[tokio::test]
async fn a_count_of_tokens_is_no_first_event() {
    let overloaded = json!({"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}});
    for (ending, outcome) in [
        (Ending::Error(overloaded), "provider_overloaded"),
        (Ending::Eof, "provider_interrupted"),
        (Ending::Stall, "provider_first_event_timeout"),
    ] {
        let (first, second) = (FakeProvider::start(Wire::Anthropic), FakeProvider::start(Wire::Chat));
        first.always(Script::says("x").ending_after(0, ending));
        let opened = opened(&router(&[&first, &second], "first_event_seconds = 1", settings())).await;
        assert_eq!(outcomes(&opened), [outcome, "begun"]);
        assert!(opened.attempts[0].charged, "{outcome}: its input was read");
        assert_eq!(heard(opened.result.unwrap()).await.text, "Hello there");
    }
}

#[tokio::test]
async fn an_answer_that_does_not_begin_is_given_up_and_may_cost_money() {
    for script in [
        Script::says("x").delayed(Duration::from_secs(60)),
        Script::says("x").first_after(Duration::from_secs(60)),
        Script::says("x").ending_after(0, Ending::Stall),
        Script::says("x").ending_after(0, Ending::Pings),
    ] {
        let (first, second) = (FakeProvider::start(Wire::Chat), FakeProvider::start(Wire::Chat));
        first.always(script.clone());
        let opened = opened(&router(&[&first, &second], "first_event_seconds = 1", settings())).await;
        assert_eq!(outcomes(&opened), ["provider_first_event_timeout", "begun"], "{script:?}");
        assert!(opened.attempts[0].charged && opened.result.is_ok());
    }
}

#[tokio::test]
async fn an_answer_that_stops_ends_in_an_error_and_is_not_tried_again() {
    for wire in WIRES {
        let error = match wire {
            Wire::Anthropic => {
                json!({"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}})
            }
            Wire::Responses => json!({"type": "error", "code": "server_error", "message": "x"}),
            Wire::Chat | Wire::Azure => json!({"error": {"type": "server_error", "message": "x"}}),
        };
        for (ending, wanted) in [
            (Ending::Eof, &["provider_interrupted"][..]),
            (Ending::Reset, &["provider_interrupted"]),
            (Ending::Stall, &["provider_silent"]),
            (Ending::Pings, &["provider_silent"]),
            (Ending::Garbage, &["provider_protocol_error"]),
            (Ending::Error(error), &["provider_error", "provider_overloaded"]),
        ] {
            let provider = FakeProvider::start(wire);
            provider.always(Script::says("one two three").ending_after(2, ending.clone()));
            let patience = "first_event_seconds = 2\nsilence_seconds = 1";
            let heard = answer(&router(&[&provider], patience, settings())).await;
            let error = heard.error.unwrap();
            assert!(wanted.contains(&error.code), "{wire:?} {ending:?}: {error:?}");
            assert_eq!(
                (heard.text.as_str(), error.charged, heard.finish),
                ("one two ", true, None),
                "{wire:?} {ending:?}"
            );
            assert_eq!(provider.seen().len(), 1);
        }
    }
}

#[tokio::test]
async fn a_breaker_opens_probes_and_closes() {
    let provider = FakeProvider::start(Wire::Chat);
    provider.always(Script::fails(500, "x"));
    let config = LlmConfig {
        retries: 0,
        breaker_failures: 3,
        breaker_pause: Duration::from_millis(300),
        ..settings()
    };
    let router = router(&[&provider], "", config);
    for _ in 0..3 {
        assert_eq!(outcomes(&opened(&router).await), ["provider_error"]);
    }
    let refused = opened(&router).await;
    let error = refused.result.unwrap_err();
    assert_eq!((error.code, refused.attempts.len()), ("provider_unavailable", 0));
    assert!(error.retry_after.is_some() && error.to_api().status == 503);
    assert_eq!(router.health()[0].breaker, BreakerState::Open);
    provider.always(Script::says("Back").first_after(Duration::from_millis(200)));
    eventually("the pause is over", Duration::from_secs(5), async || {
        // Of many at once, one goes.
        let asked = provider.seen().len();
        let all = futures_util::future::join_all((0..5).map(|_| opened(&router))).await;
        let answered = all.iter().filter(|opened| opened.result.is_ok()).count();
        assert!(answered <= 1 && provider.seen().len() - asked == answered, "{answered}");
        answered == 1
    })
    .await;
    assert_eq!(router.health()[0].breaker, BreakerState::Closed);
    assert!(opened(&router).await.result.is_ok());
}

#[tokio::test]
async fn our_own_limits_are_waited_for_or_told() {
    let provider = FakeProvider::start(Wire::Chat);
    let text = provider.deployment("d", "requests_per_minute = 60\ntokens_per_minute = 0");
    let text = text + "[models.it]\ndeployments = [\"d\"]";
    let router = router_of(&text, LlmConfig { quota_wait: Duration::from_millis(1_500), ..settings() });
    // Ten seconds' worth at once, then one a second.
    for _ in 0..10 {
        assert!(opened(&router).await.result.is_ok());
    }
    let began = Instant::now();
    assert!(opened(&router).await.result.is_ok());
    assert!(began.elapsed() > Duration::from_millis(500), "{:?}", began.elapsed());
    let both = futures_util::future::join_all((0..4).map(|_| opened(&router))).await;
    let refused: Vec<_> = both.iter().filter_map(|opened| opened.result.as_ref().err()).collect();
    assert!(!refused.is_empty() && refused.len() < 4, "{refused:?}");
    assert!(
        refused.iter().all(|error| error.code == "deployment_quota_exceeded" && error.retry_after.is_some())
    );
    assert_eq!(refused[0].to_api().status.as_u16(), 429);
    // Another deployment needs no wait.
    let second = FakeProvider::start(Wire::Chat);
    let small = provider.deployment("small", "requests_per_minute = 1");
    let text = small + &second.deployment("large", "") + "[models.it]\ndeployments = [\"small\", \"large\"]";
    let router = router_of(&text, settings());
    for wanted in ["small", "large", "large"] {
        assert_eq!(opened(&router).await.result.unwrap().deployment(), wanted);
    }
}

#[tokio::test]
async fn the_process_spends_its_retries_together() {
    let provider = FakeProvider::start(Wire::Chat);
    provider.always(Script::fails(500, "x"));
    let config =
        LlmConfig { retry_reserve: 2, retry_budget_percent: 0, breaker_failures: 1_000, ..settings() };
    let router = router(&[&provider], "", config);
    let attempts: Vec<usize> = {
        let mut all = Vec::new();
        for _ in 0..4 {
            all.push(opened(&router).await.attempts.len());
        }
        all
    };
    assert_eq!((attempts[0], attempts[3]), (3, 1), "{attempts:?}");
}

#[tokio::test]
async fn cancelling_leaves_a_report_of_what_may_cost_money() {
    let provider = FakeProvider::start(Wire::Chat);
    provider.always(Script::says("x").ending_after(0, Ending::Stall));
    let router = router(&[&provider], "", settings());
    let cancel = CancellationToken::new();
    let first = uuid::Uuid::now_v7();
    let limits = OpenLimits { first_attempt: Some(first), cancel: cancel.clone(), ..OpenLimits::default() };
    let alias = router.alias("it").unwrap();
    let request = request("Hi");
    let open = router.open(alias, &request, limits);
    let stop = async {
        eventually("the request", Duration::from_secs(5), async || provider.seen().len() == 1).await;
        cancel.cancel();
    };
    let (opened, ()) = tokio::join!(open, stop);
    assert_eq!((outcomes(&opened), opened.attempts[0].charged), (vec!["cancelled"], true));
    assert_eq!(opened.attempts[0].id, first);
    eventually("the provider notices", Duration::from_secs(5), async || provider.abandoned() == 1).await;
}

#[tokio::test]
async fn a_deployment_that_does_not_take_the_request_is_passed_over() {
    let (claude, gpt) = (FakeProvider::start(Wire::Anthropic), FakeProvider::start(Wire::Chat));
    let router = router(&[&claude, &gpt], "", settings());
    let alias = router.alias("it").unwrap();
    let mut asked = request("Hi");
    Arc::make_mut(&mut asked.params).frequency_penalty = Some(0.5);
    assert!(alias.check(&asked.params).is_ok());
    let opened = router.open(alias, &asked, OpenLimits::default()).await;
    assert_eq!(opened.result.unwrap().deployment(), "d1");
    let router = self::router(&[&claude], "", settings());
    let alias = router.alias("it").unwrap();
    assert_eq!(alias.check(&asked.params).unwrap_err().param.as_deref(), Some("frequency_penalty"));
    let opened = router.open(alias, &asked, OpenLimits::default()).await;
    assert_eq!(
        (opened.result.unwrap_err().param.as_deref(), opened.attempts.len()),
        (Some("frequency_penalty"), 0)
    );
}
