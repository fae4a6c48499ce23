//! Answers that come, in every form a provider may give them.

use std::time::{Duration, Instant};

use colloquy::config::{AppConfig, ModelKeys, Reader, fixed};
use colloquy::llm::Embeddings;
use serde_json::{Value, json};

use super::*;
use crate::support::eventually;
use crate::support::providers::{Ending, Limits, Script, Tool, UsageForm, Wire};

const WIRES: [Wire; 4] = [Wire::Chat, Wire::Azure, Wire::Responses, Wire::Anthropic];

#[tokio::test]
async fn every_format_gives_text_usage_and_a_finish() {
    for wire in WIRES {
        let provider = FakeProvider::start(wire);
        let router = router(&[&provider], "", settings());
        let scripts = [
            Script::says("Hëllo wide world"),
            Script::says("Hëllo wide world").crlf().comments(),
            Script::says("Hëllo wide world").drip(1),
            Script::says("Hëllo wide world").drip(7).crlf().pace(Duration::from_millis(2)),
            Script::says("Hëllo wide world").usage(UsageForm::NullChoices),
            Script::says("Hëllo wide world").usage(UsageForm::NoChoices),
            Script::says("Hëllo wide world").usage(UsageForm::RealChoice),
            Script::says("Hëllo wide world").older_prompt_frame(),
            Script::says("Hëllo wide world").bursts(2).pace(Duration::from_millis(2)),
            Script::says("Hëllo wide world").restates(),
            Script::says("Hëllo wide world").limits(Limits::unknown()),
            Script::says("Hëllo wide world").limits(Limits::no_tokens(Duration::from_secs(600))),
        ];
        let count = scripts.len() as u64;
        for script in scripts {
            provider.next([script.clone()]);
            let heard = answer(&router).await;
            assert_eq!(
                (heard.text.as_str(), heard.finish),
                ("Hëllo wide world", Some(Finish::Stop)),
                "{wire:?} {script:?}"
            );
            let usage = heard.usage.unwrap();
            assert_eq!((usage.input, usage.cached, usage.output), (11, 4, 7), "{wire:?}");
        }
        assert_eq!(provider.charged().requests, count);
        assert_eq!(provider.charged().output, 7 * count);
        assert_eq!(provider.connections(), 1, "{wire:?}: connections are used again");
        assert_eq!(provider.abandoned(), 0);
        let seen = provider.seen();
        assert_eq!((&seen[0].body["model"], &seen[0].body["stream"]), (&json!("m-d0"), &json!(true)));
    }
}

#[tokio::test]
async fn every_format_thinks_and_calls_tools() {
    for wire in WIRES {
        let provider = FakeProvider::start(wire);
        let mut script = Script::calls("f", "{\"x\":\"ü\"}").thinks("hm");
        script.tools.push(Tool { id: Some("call_2"), name: "g", arguments: "{}" });
        provider.next([script.redacts("UNSEEN")]);
        let heard = answer(&router(&[&provider], "", settings())).await;
        assert_eq!(heard.finish, Some(Finish::ToolCalls), "{wire:?}");
        let arguments = |wanted: u16| {
            let parts = heard.chunks.iter().filter_map(|chunk| match chunk {
                Chunk::ToolArguments { index, delta } if *index == wanted => Some(&**delta),
                _ => None,
            });
            parts.collect::<String>()
        };
        assert_eq!((arguments(0), arguments(1)), ("{\"x\":\"ü\"}".to_owned(), "{}".to_owned()), "{wire:?}");
        let sealed = heard.chunks.iter().filter_map(|chunk| match chunk {
            Chunk::ReasoningEncrypted(content) => Some(&**content),
            _ => None,
        });
        let sealed: Vec<&str> = sealed.collect();
        let wanted: &[&str] = match wire {
            Wire::Chat | Wire::Azure => &[],
            Wire::Responses => &["d0~gAAAup"],
            Wire::Anthropic => &["d0~redacted~UNSEEN", "d0~SIG"],
        };
        assert_eq!(sealed, wanted);
    }
}

#[tokio::test]
async fn finishes_and_missing_usage() {
    for wire in WIRES {
        let provider = FakeProvider::start(wire);
        let router = router(&[&provider], "", settings());
        for (word, wanted) in [("length", Finish::Length), ("content_filter", Finish::ContentFilter)] {
            provider.next([Script::says("a b").finish(word).usage(UsageForm::Never)]);
            let heard = answer(&router).await;
            assert_eq!((heard.finish, heard.usage, heard.error), (Some(wanted), None, None), "{wire:?}");
        }
    }
    // Chat completions may end without their mark.
    let provider = FakeProvider::start(Wire::Chat);
    provider.next([Script::says("a b").ending(Ending::Eof)]);
    let heard = answer(&router(&[&provider], "", settings())).await;
    assert_eq!((heard.finish, heard.error), (Some(Finish::Stop), None));
}

#[tokio::test]
async fn pieces_come_as_they_are_sent() {
    let provider = FakeProvider::start(Wire::Azure);
    provider.always(Script::words(5).pace(Duration::from_millis(60)));
    let mut stream = opened(&router(&[&provider], "", settings())).await.result.unwrap();
    let began = Instant::now();
    let mut times = Vec::new();
    while let Some(next) = stream.next().await {
        if matches!(next, Ok(Upstream::Chunk(_))) {
            times.push(began.elapsed());
        }
    }
    assert!(times[4] >= Duration::from_millis(4 * 55), "{times:?}");
    assert!(times[0] < Duration::from_millis(50), "{times:?}");
}

#[tokio::test]
async fn whoever_drops_an_answer_ends_the_call() {
    for wire in WIRES {
        let provider = FakeProvider::start(wire);
        provider.always(Script::words(1_000).pace(Duration::from_millis(5)));
        let router = router(&[&provider], "", settings());
        let mut stream = opened(&router).await.result.unwrap();
        stream.next().await.unwrap().unwrap();
        drop(stream);
        eventually("the provider notices", Duration::from_secs(5), async || provider.abandoned() == 1).await;
    }
}

#[tokio::test]
async fn keys_go_where_each_provider_reads_them() {
    for (wire, name, wanted) in [
        (Wire::Chat, "authorization", "Bearer the-key"),
        (Wire::Azure, "api-key", "the-key"),
        (Wire::Responses, "authorization", "Bearer the-key"),
        (Wire::Anthropic, "x-api-key", "the-key"),
    ] {
        let provider = FakeProvider::start(wire);
        let text = provider.deployment("my-dep", "").replace("\"none\"", "\"key\"");
        let app = format!("{text}[models.it]\ndeployments = [\"my-dep\"]\n");
        let app = AppConfig::parse(&app, Some(&fixed([])), &[]).unwrap();
        let environment = fixed([("LLM_MY_DEP_API_KEY", "the-key")]);
        let config = LlmConfig { keys: ModelKeys::read(&Reader::new(&environment)), ..settings() };
        let router = Router::new(&app, config, None).unwrap();
        let opened = opened(&router).await;
        let report = &opened.attempts[0];
        let stream = opened.result.unwrap();
        assert_eq!((stream.deployment(), stream.attempt()), ("my-dep", report.id));
        assert_eq!((report.outcome, report.charged, report.id.get_version_num()), ("begun", false, 7));
        heard(stream).await;
        let seen = provider.seen();
        assert_eq!(seen[0].headers[name], wanted);
        let path = match wire {
            Wire::Chat => "/v1/chat/completions",
            Wire::Azure => "/openai/v1/chat/completions",
            Wire::Responses => "/v1/responses",
            Wire::Anthropic => "/v1/messages",
        };
        assert_eq!(seen[0].path, path);
        assert!(!format!("{router:?}").contains("the-key"));
    }
}

/// An identity endpoint as App Service has it, which gives a token for one resource.
async fn identity(listener: tokio::net::TcpListener, resource: &str) {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let (mut connection, _) = listener.accept().await.unwrap();
    let mut request = [0; 4_096];
    let length = connection.read(&mut request).await.unwrap();
    let request = String::from_utf8_lossy(&request[..length]).into_owned();
    assert!(request.contains(&format!("resource=https%3A%2F%2F{resource}&")), "{request}");
    let expiry = jiff::Timestamp::now().as_second() + 3_600;
    let body =
        format!(r#"{{"access_token": "for-{resource}", "expires_on": "{expiry}", "token_type": "Bearer"}}"#);
    let head = format!(
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    connection.write_all((head + &body).as_bytes()).await.unwrap();
    std::future::pending::<()>().await;
}

/// Microsoft's pages disagree on the audience: it is configuration, and a token for the wrong one is refused.
#[tokio::test]
async fn azure_takes_an_entra_token_for_the_audience_that_is_configured() {
    for (scope, resource) in
        [("", "cognitiveservices.azure.com"), ("scope = \"https://ai.azure.com/.default\"", "ai.azure.com")]
    {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}/msi/token", listener.local_addr().unwrap());
        let credential = colloquy::azure::Credential::ManagedIdentity(colloquy::azure::ManagedIdentity {
            endpoint: endpoint.parse().unwrap(),
            header: "header".to_owned().into(),
            client_id: None,
        });
        let tokens = colloquy::azure::TokenSource::new(credential);
        let provider = FakeProvider::start(Wire::Azure);
        let text = provider.deployment("d", scope).replace("\"none\"", "\"entra\"")
            + "[models.it]\ndeployments = [\"d\"]";
        let app = AppConfig::parse(&text, Some(&fixed([])), &[]).unwrap();
        let without = Router::new(&app, settings(), None).unwrap();
        assert_eq!(opened(&without).await.result.unwrap_err().code, "provider_auth_failed");
        let router = Router::new(&app, settings(), Some(tokens)).unwrap();
        let begun = tokio::select! {
            begun = opened(&router) => begun,
            () = identity(listener, resource) => unreachable!(),
        };
        assert!(begun.result.is_ok(), "{begun:?}");
        assert_eq!(provider.seen()[0].headers["authorization"], format!("Bearer for-{resource}"));
        provider.accept_token(&format!("for-{resource}"));
        assert!(opened(&router).await.result.is_ok());
        provider.accept_token("for-another.audience");
        assert_eq!(opened(&router).await.result.unwrap_err().code, "provider_auth_failed");
        assert!(provider.refused()[0].contains("audience is incorrect"));
    }
}

#[tokio::test]
async fn embeddings_go_through_and_others_refuse_them() {
    let body = br#"{"model": "it", "input": ["a", "b"], "dimensions": 2, "user": "u"}"#;
    let asked = Embeddings::parse(body).unwrap();
    assert_eq!(asked.model().as_deref(), Some("it"));
    let provider = FakeProvider::start(Wire::Azure);
    provider.next([Script::fails(500, "once")]);
    let one = router(&[&provider], "", settings());
    let embedded = one.embeddings(one.alias("it").unwrap(), &asked, OpenLimits::default()).await;
    let (body, usage) = embedded.result.unwrap();
    assert_eq!((usage.map(|usage| usage.input), embedded.attempts.len()), (Some(11), 2));
    assert_eq!(serde_json::from_slice::<Value>(&body).unwrap()["data"][0]["embedding"], json!([0.5, -0.5]));
    let seen = &provider.seen()[1];
    assert_eq!(seen.path, "/openai/v1/embeddings");
    assert_eq!(seen.body, json!({"model": "m-d0", "input": ["a", "b"], "dimensions": 2, "user": "u"}));
    let claude = FakeProvider::start(Wire::Anthropic);
    let other = router(&[&claude], "", settings());
    let alias = other.alias("it").unwrap();
    let refused = other.embeddings(alias, &asked, OpenLimits::default()).await;
    assert_eq!((alias.embeds(), refused.result.unwrap_err().code), (false, "unsupported_value"));
    let demo =
        router_of("[deployments.d]\nprovider = \"demo\"\n[models.it]\ndeployments = [\"d\"]", settings());
    let embedded = demo.embeddings(demo.alias("it").unwrap(), &asked, OpenLimits::default()).await;
    let body: Value = serde_json::from_slice(&embedded.result.unwrap().0).unwrap();
    assert_eq!(body["data"][1]["embedding"].as_array().map(Vec::len), Some(2));
}

#[tokio::test]
async fn the_demo_answers_through_the_router() {
    let config = LlmConfig { demo_tokens_per_second: 0, ..settings() };
    let router =
        router_of("[deployments.d]\nprovider = \"demo\"\n[models.it]\ndeployments = [\"d\"]", config);
    let alias = router.alias("it").unwrap();
    let opened = router.open(alias, &request("Say \"pong\""), OpenLimits::default()).await;
    let heard = heard(opened.result.unwrap()).await;
    assert_eq!((heard.text.as_str(), heard.finish), ("pong", Some(Finish::Stop)));
    assert!(heard.usage.is_some());
    let opened = router.open(alias, &request("/fail 429 x"), OpenLimits::default()).await;
    assert_eq!(opened.result.unwrap_err().code, "provider_rate_limited");
}
