use super::*;
use crate::config::{Reader, fixed};

fn parsed(text: &str) -> Result<AppConfig, Vec<String>> {
    let environment = fixed([("AOAI_URL", "https://r.openai.azure.com"), ("PRICE", "0.15")]);
    AppConfig::parse(text, Some(&environment), &[])
        .map_err(|mistakes| mistakes.iter().map(ToString::to_string).collect())
}

#[test]
fn money_is_exact() {
    for (text, wanted) in
        [("2.50", 2_500_000), ("0", 0), ("0.000001", 1), ("15", 15_000_000), ("1_000.5", 1_000_500_000)]
    {
        assert_eq!(micros(text), Some(wanted), "{text}");
    }
    for wrong in ["", ".5", "-1", "1e3", "0.0000001", "9999999999", "1,5", "NaN"] {
        assert_eq!(micros(wrong), None, "{wrong}");
    }
}

#[test]
fn everything_that_can_be_said_is_understood() {
    let app = parsed(
        r#"
        [deployments.gpt]
        provider = "azure"
        url = "${AOAI_URL}"
        model = "gpt-5-mini"
        api_version = "2024-10-21"
        auth = "entra"
        tokens_per_minute = 1_000
        price = { input = "2.50", cached_input = 1.25, output = 10, cache_write = "${PRICE}" }
        [deployments.claude]
        provider = "anthropic"
        url = "https://api.anthropic.com"
        thinking = "budget"
        [models."gpt-4.1"]
        deployments = ["gpt", "claude"]
        reasoning = true
        silence_seconds = 90
        small = "gpt-4.1"
        "#,
    )
    .unwrap();
    let gpt = &app.deployments["gpt"];
    assert_eq!(
        (gpt.provider, gpt.auth(), gpt.tokens_per_minute),
        (ProviderKind::Azure, DeploymentAuth::Entra, 1_000)
    );
    assert_eq!(gpt.url.as_deref(), Some("https://r.openai.azure.com"));
    let price = PriceConfig {
        input: Some(2_500_000),
        cached_input: Some(1_250_000),
        cache_write: Some(150_000),
        output: Some(10_000_000),
    };
    assert_eq!(gpt.price, price);
    let claude = &app.deployments["claude"];
    assert_eq!((claude.requests_per_minute, claude.thinking), (720, ThinkingStyle::Budget));
    assert_eq!(claude.auth(), DeploymentAuth::Key);
    let alias = &app.models["gpt-4.1"];
    assert_eq!((alias.first_event().as_secs(), alias.silence().as_secs()), (300, 90));
}

#[test]
fn every_mistake_has_its_place() {
    let found = parsed(
        r#"
        [deployments.a]
        provider = "azure"
        price.input = "-1"
        [deployments.b]
        provider = "demo"
        url = "https://x.example"
        auth = "key"
        api_version = "2024-10-21"
        [deployments.c]
        provider = "openai"
        url = "https://x.example/v1"
        max_output_tokens = 2000
        context_window = 2000
        [models.x]
        deployments = ["a", "nope", "a"]
        small = "y"
        [models.z]
        deployments = []
        [models."b d"]
        deployments = ["a"]
        "#,
    )
    .unwrap_err();
    for wanted in [
        "deployments.a.price.input",
        "deployments.a.url (line 2, column 22): is missing",
        "deployments.b.url",
        "deployments.b.auth",
        "deployments.b.api_version",
        "deployments.c.max_output_tokens",
        "models.x.deployments[1] (line 16, column 9): there is no [deployments.nope]",
        "models.x.deployments[2]",
        "models.x.small",
        "models.z.deployments",
        "expected a name of letters",
    ] {
        assert!(found.iter().any(|mistake| mistake.contains(wanted)), "no {wanted:?} in {found:#?}");
    }
    assert_eq!(found.len(), 11, "{found:#?}");
}

#[test]
fn keys_and_the_demo_are_the_servers_business() {
    let app = parsed(
        r#"
        [deployments.my-gpt]
        provider = "openai"
        url = "http://x.example/v1"
        [deployments.demo]
        provider = "demo"
        "#,
    )
    .unwrap();
    let keys = |pairs: &[(&str, &str)]| {
        let owned = pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        let environment: std::collections::BTreeMap<String, String> = owned.collect();
        ModelKeys::read(&Reader::new(&environment))
    };
    let places = |environment, keys: &ModelKeys| {
        app.models_refused_in(environment, keys).into_iter().map(|mistake| mistake.place).collect::<Vec<_>>()
    };
    assert_eq!(places(AppEnvironment::Dev, &keys(&[])), ["LLM_MY_GPT_API_KEY"]);
    let set = keys(&[("LLM_MY_GPT_API_KEY", "k")]);
    assert!(places(AppEnvironment::Dev, &set).is_empty());
    assert_eq!(
        places(AppEnvironment::Production, &set),
        ["deployments.demo.provider", "deployments.my-gpt.url"]
    );
    assert!(app.refused_in(AppEnvironment::Production).is_empty());
}

#[test]
fn the_file_compiled_in_has_a_model_that_needs_no_key() {
    let app =
        AppConfig::parse(include_str!("../../../../colloquy.toml"), None, &["count-event", "note-rotation"])
            .unwrap();
    for alias in ["demo", "small"] {
        assert!(app.models.contains_key(alias), "{alias}");
    }
    assert!(app.models_refused_in(AppEnvironment::Dev, &ModelKeys::default()).is_empty());
}
