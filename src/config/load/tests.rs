use std::collections::BTreeMap;
use std::time::Duration;

use super::super::{CredentialKind, DatabaseAuth, InsightsAuth, Kept, Sampling, StorageAccess};
use super::*;
use crate::jobs::kinds::JobKind;

const SIGNING_KEY: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
const SEALING_KEY: &str = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=";

/// A folder with its own `colloquy.toml`, and the least an environment must hold, changed by `pairs`; a pair with an
/// empty value takes the variable away.
struct Setup {
    folder: PathBuf,
    environment: BTreeMap<String, String>,
}

impl Setup {
    fn new(toml: &str, pairs: &[(&str, &str)]) -> Self {
        let folder = std::env::temp_dir().join(format!("colloquy-config-{}", uuid::Uuid::now_v7()));
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join("colloquy.toml"), toml).unwrap();
        let mut environment = super::super::fixed([
            ("DATABASE_URL", "postgres://app:pw@127.0.0.1:6432/app"),
            ("AzureWebJobsStorage", "UseDevelopmentStorage=true"),
            ("FUNCTIONS_APP_ROOT_PATH", &folder.display().to_string()),
        ]);
        environment.extend(pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
        Self { folder, environment }
    }

    fn load(&self) -> Result<Config, ConfigErrors> {
        Config::load(&self.environment, &["echo"])
    }

    /// Each mistake as an operator sees it.
    fn mistakes(&self) -> Vec<String> {
        let errors = self.load().err().map(|errors| errors.0).unwrap_or_default();
        errors.iter().map(ToString::to_string).collect()
    }
}

impl Drop for Setup {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.folder)
            .unwrap_or_else(|error| eprintln!("{}: {error}", self.folder.display()));
    }
}

fn assert_mistake(found: &[String], wanted: &str) {
    assert!(found.iter().any(|mistake| mistake.contains(wanted)), "no {wanted:?} in {found:#?}");
}

#[test]
fn the_least_environment_gives_the_defaults() {
    let config = Setup::new("", &[]).load().unwrap();
    assert_eq!(config.environment, AppEnvironment::Dev);
    assert_eq!(config.database.auth, DatabaseAuth::Password);
    assert!(config.database.is_direct_only() && config.database.track_usage);
    assert_eq!(config.identity.credential, CredentialKind::Developer);
    assert_eq!((config.queues.events.as_str(), config.queues.callbacks.as_str()), ("events", "callbacks"));
    let schedule: Vec<u64> = config.work.callback_schedule.iter().map(Duration::as_secs).collect();
    assert_eq!(schedule, [0, 5, 300, 1_800, 7_200, 18_000, 36_000, 36_000]);
    assert_eq!(config.work, WorkLimits::default());
    assert_eq!(config.telemetry.log_level, "info");
    assert_eq!(config.telemetry.sampling, Sampling { kept: Kept::Share(1.0), follow_parent: false });
    assert!(config.telemetry.otlp_endpoint.is_none() && config.telemetry.insights.is_none());
    assert!(config.access.api_keys.is_empty());
}

#[test]
fn what_is_set_is_read() {
    let config = Setup::new(
        "",
        &[
            ("CALLBACK_SCHEDULE", "0s, 50ms"),
            ("WORK_LEASE", " 4s "),
            ("DB_TRACK_USAGE", "False"),
            (
                "APPLICATIONINSIGHTS_CONNECTION_STRING",
                "InstrumentationKey=0;IngestionEndpoint=https://x.example",
            ),
            ("APPLICATIONINSIGHTS_AUTHENTICATION_STRING", "Authorization=AAD;ClientId=abc"),
            ("OTEL_EXPORTER_OTLP_HEADERS", "x-key=a%20b,x-other=c"),
            ("OTEL_TRACES_SAMPLER", "parentbased_traceidratio"),
            ("OTEL_TRACES_SAMPLER_ARG", "0.25"),
        ],
    );
    let config = config.load().unwrap();
    assert_eq!(config.work.callback_schedule, [Duration::ZERO, Duration::from_millis(50)]);
    assert_eq!(config.work.lease, Duration::from_secs(4));
    assert!(!config.database.track_usage);
    let insights = config.telemetry.insights.unwrap();
    assert_eq!(insights.auth, InsightsAuth::Entra { client_id: Some("abc".into()) });
    assert_eq!(config.telemetry.otlp_headers.len(), 2);
    assert_eq!(config.telemetry.sampling, Sampling { kept: Kept::Share(0.25), follow_parent: true });
}

#[test]
fn a_lease_too_short_to_be_renewed_is_refused_by_name() {
    let found = Setup::new("", &[("WORK_LEASE", "2s")]).mistakes();
    assert!(found.iter().any(|mistake| mistake.contains("WORK_LEASE: is shorter than 3s")), "{found:?}");
}

#[test]
fn every_mistake_is_reported_in_one_run_and_no_secret_is_shown() {
    let setup = Setup::new(
        "[sources.stripe]\nkind = \"stripe\"\n[sources.sp]\nkind = \"sailpoint\"\n[targets.t]\nurl = \"https://t.example/\"\nx = 1",
        &[
            ("APP_ENV", "prod"),
            ("DATABASE_URL", "mysql://secret-in-url"),
            ("DB_PASSWORD", "@Microsoft.KeyVault(SecretUri=https://v.example/s)"),
            ("WORK_LEASE", "60"),
            ("JOB_MAX_ATTEMPTS", "many"),
            ("CALLBACK_SCHEDULE", "0s,5"),
            ("QUEUE_EVENTS", "Events"),
            ("QUEUE_JOBS", "callbacks"),
            (
                "AUTH_API_KEYS",
                "[{\"name\": \"a\", \"sha256\": \"clq_pasted-key\", \"scopes\": [], \"owner\": \"o\"}]",
            ),
            ("CALLBACK_SECRET_T", "whsec_short"),
            ("ENCRYPTION_KEY", "dG9vIHNob3J0"),
            ("WEBHOOK_SECRET_STRIPE", ""),
            ("WEBHOOK_SECRET_SP__", "x"),
            ("APP_LOG_LEVEL", "colloquy=loud"),
            ("RETRY_CAP", "1s"),
        ],
    );
    let found = setup.mistakes();
    for wanted in [
        "APP_ENV: expected one of dev, staging, production, not \"prod\"",
        "DATABASE_URL: expected an address like postgres://",
        "DB_PASSWORD: the Key Vault reference was not resolved",
        "WORK_LEASE: expected a time above zero, such as 10s, not \"60\"",
        "JOB_MAX_ATTEMPTS: expected a whole number from 1 to 1000, not \"many\"",
        "CALLBACK_SCHEDULE: expected times with their units",
        "QUEUE_EVENTS: expected 3 to 56 lower-case letters",
        "QUEUE_CALLBACKS: names the same queue",
        "AUTH_API_KEYS: entry 0: sha256 is not as expected",
        "CALLBACK_SECRET_T: expected base64 of 24 to 64 bytes",
        "ENCRYPTION_KEY: expected base64 of 32 bytes",
        "WEBHOOK_SECRET_SP__: expected a name like WEBHOOK_SECRET_<NAME>",
        "APP_LOG_LEVEL: expected a level for everything",
        "RETRY_CAP: is shorter than RETRY_BASE",
        "targets.t.x (line 7, column 1): \"x\" is no known key",
    ] {
        assert_mistake(&found, wanted);
    }
    let all = found.join("\n");
    for secret in ["secret-in-url", "pasted-key", "whsec_short", "dG9vIHNob3J0", "v.example"] {
        assert!(!all.contains(secret), "{secret} is shown in {all}");
    }
}

#[test]
fn an_empty_environment_names_what_is_missing() {
    let setup = Setup::new(
        "[sources.stripe]\nkind = \"stripe\"\n[sources.sp]\nkind = \"sailpoint\"\n\
         [sources.grid]\nkind = \"event-grid\"\nauth.entra = { tenant = \"t\", audience = \"a\" }\n\
         [targets.my-app]\nurl = \"https://t.example/\"",
        &[("DATABASE_URL", ""), ("AzureWebJobsStorage", "")],
    );
    let found = setup.mistakes();
    assert_eq!(found.len(), 6, "{found:#?}");
    for wanted in [
        "DATABASE_URL: is not set",
        "AzureWebJobsStorage: is not set",
        "WEBHOOK_SECRET_STRIPE: is not set; source stripe",
        "WEBHOOK_SECRET_SP: is not set",
        "CALLBACK_SECRET_MY_APP: is not set; target my-app",
        "ENCRYPTION_KEY: is not set; source sp",
    ] {
        assert_mistake(&found, wanted);
    }
}

#[test]
fn secrets_are_found_by_name_and_label() {
    let config = Setup::new(
        "[sources.event-grid]\nkind = \"event-grid\"\n[targets.t]\nurl = \"https://t.example/\"",
        &[
            ("WEBHOOK_SECRET_EVENT_GRID", "1-hunter"),
            ("WEBHOOK_SECRET_EVENT_GRID__65a1b2_x", "2-hunter"),
            ("WEBHOOK_SECRET_STRPE", "x"),
            ("CALLBACK_SECRET_T__2026", SIGNING_KEY),
            ("ENCRYPTION_KEY__a", SEALING_KEY),
            ("ENCRYPTION_KEY__b", SEALING_KEY),
        ],
    );
    let config = config.load().unwrap();
    let secrets = config.webhook_secrets.of("event-grid");
    let seen: Vec<(&str, &str)> =
        secrets.iter().map(|secret| (secret.label.as_str(), secret.expose())).collect();
    assert_eq!(seen, [("default", "1-hunter"), ("65a1b2_x", "2-hunter")], "the unlabelled one comes first");
    assert_eq!(config.callback_secrets.of("t")[0].label, "2026");
    assert!(config.webhook_secrets.of("other").is_empty());
    assert_eq!(config.webhook_secrets.unused(&config.app), ["WEBHOOK_SECRET_STRPE"]);
    assert!(config.callback_secrets.unused(&config.app).is_empty());
    let labels: Vec<&str> = config.encryption_keys.all().iter().map(|key| key.label.as_str()).collect();
    assert_eq!(labels, ["b", "a"], "the label that sorts last seals");
    let shown = format!("{config:?}");
    for secret in ["hunter", "MfKQ9r8G", "pw@"] {
        assert!(!shown.contains(secret), "{secret} is shown by Debug");
    }
}

#[test]
fn production_refuses_what_is_only_safe_on_one_machine() {
    let unsafe_ones = [
        ("DB_AUTH_MODE", "password"),
        ("AZURE_CREDENTIAL", "developer"),
        ("WEBHOOK_SECRET_A", "x"),
        ("CALLBACK_SECRET_T", SIGNING_KEY),
    ];
    let toml = "[sources.a]\nkind = \"github\"\n\
                [targets.t]\nurl = \"http://10.0.0.1/\"\nallow_http = true\nallow_networks = [\"10.0.0.0/8\"]";
    let mut pairs = unsafe_ones.to_vec();
    pairs.push(("APP_ENV", "production"));
    let found = Setup::new(toml, &pairs).mistakes();
    assert_eq!(found.len(), 4, "{found:#?}");
    for wanted in [
        "DB_AUTH_MODE: password is refused with APP_ENV=production",
        "AzureWebJobsStorage: development storage is refused",
        "AZURE_CREDENTIAL: developer is refused",
        "targets.t.allow_http: plain http is refused",
    ] {
        assert_mistake(&found, wanted);
    }
    pairs.push(("APP_ENV", "staging"));
    let found = Setup::new(toml, &pairs).mistakes();
    assert_mistake(&found, "DB_AUTH_MODE: password is refused with APP_ENV=staging");
    assert_eq!(found.len(), 2, "{found:#?}");
}

#[test]
fn plain_http_goes_to_this_machine_in_dev_and_elsewhere_only_on_request() {
    let mistakes = |url: &str, environment: &str| {
        let toml = format!("[targets.t]\nurl = \"{url}\"");
        Setup::new(&toml, &[("APP_ENV", environment), ("CALLBACK_SECRET_T", SIGNING_KEY)])
            .mistakes()
            .into_iter()
            .filter(|mistake| mistake.to_string().starts_with("targets.t.url: plain http"))
            .count()
    };
    for near in ["http://127.0.0.1:9000/", "http://localhost/", "http://[::1]:9000/"] {
        assert_eq!(mistakes(near, "dev"), 0, "{near}");
        assert_eq!(mistakes(near, "staging"), 1, "{near}");
    }
    for far in ["http://10.0.0.1/", "http://example.com/"] {
        assert_eq!(mistakes(far, "dev"), 1, "{far}");
    }
}

#[test]
fn production_takes_identities() {
    let pairs = [
        ("APP_ENV", "production"),
        ("DATABASE_URL", "postgres://app@db.example:6432/app"),
        ("DATABASE_DIRECT_URL", "postgres://app@db.example:5432/app"),
        ("AzureWebJobsStorage", ""),
        ("AzureWebJobsStorage__accountName", "colloquyprod"),
        ("AzureWebJobsStorage__credential", "managedidentity"),
        ("AZURE_CLIENT_ID", "client"),
        ("IDENTITY_ENDPOINT", "http://127.0.0.1:42356/msi/token"),
        ("IDENTITY_HEADER", "h"),
    ];
    let config = Setup::new("", &pairs).load().unwrap();
    assert_eq!(config.database.auth, DatabaseAuth::Entra);
    assert_eq!(config.telemetry.sampling.kept, Kept::PerSecond(5.0));
    assert_eq!(config.identity.credential, CredentialKind::ManagedIdentity);
    let StorageAccess::Identity { queue_endpoint, blob_endpoint, client_id } = config.storage.access else {
        panic!("an identity was configured");
    };
    assert_eq!(queue_endpoint.as_str(), "https://colloquyprod.queue.core.windows.net/");
    assert_eq!(blob_endpoint.as_str(), "https://colloquyprod.blob.core.windows.net/");
    assert_eq!(client_id.as_deref(), Some("client"));

    let with = |more: &[(&str, &str)]| {
        let mut pairs = pairs.to_vec();
        pairs.extend_from_slice(more);
        Setup::new("", &pairs).mistakes()
    };
    assert_mistake(
        &with(&[("DATABASE_URL", "postgres://app:pw@db.example/app")]),
        "DATABASE_URL: holds a password",
    );
    assert_mistake(&with(&[("DB_PASSWORD", "pw")]), "DB_PASSWORD: is set although");
    assert_mistake(
        &with(&[("OTEL_TRACES_SAMPLER_ARG", "-1")]),
        "OTEL_TRACES_SAMPLER_ARG: expected a number of",
    );
    let share = [("OTEL_TRACES_SAMPLER", "traceidratio"), ("OTEL_TRACES_SAMPLER_ARG", "5")];
    assert_mistake(&with(&share), "OTEL_TRACES_SAMPLER_ARG: expected a share from 0 to 1");
    let key = ("AzureWebJobsStorage", "DefaultEndpointsProtocol=https;AccountName=a;AccountKey=aGk=");
    assert_mistake(&with(&[key, ("AzureWebJobsStorage__accountName", "")]), "an account key is refused");
    assert_mistake(
        &with(&[key]),
        "AzureWebJobsStorage: is set together with AzureWebJobsStorage__accountName",
    );
    assert_mistake(
        &with(&[("IDENTITY_HEADER", "")]),
        "IDENTITY_HEADER: is not set, and DB_AUTH_MODE=entra needs",
    );
    assert_eq!(with(&[("IDENTITY_ENDPOINT", "")]).len(), 1);
    let plain = ("AzureWebJobsStorage__queueServiceUri", "http://q.example");
    assert_mistake(&with(&[plain]), "AzureWebJobsStorage__queueServiceUri: plain http is refused");
    let half = [
        ("AzureWebJobsStorage__accountName", ""),
        ("AzureWebJobsStorage__blobServiceUri", "https://b.example"),
    ];
    assert_mistake(&with(&half), "AzureWebJobsStorage__queueServiceUri: is not set although");
}

#[test]
fn what_only_models_need_is_asked_of_those_who_use_models() {
    let toml = "[deployments.gpt]\nprovider = \"openai\"\nauth = \"none\"\nurl = \"${LLM_URL}\"\n\
                tokens_per_minute = \"${LLM_TPM}\"\n[models.gpt]\ndeployments = [\"gpt\"]\n\
                [budgets]\ntotal = \"${BUDGET}\"";
    let with_models = |setup: &Setup| {
        let found = Config::load_with_models(&setup.environment, &["echo"]);
        found.err().map(|errors| errors.0).unwrap_or_default().iter().map(ToString::to_string).collect()
    };
    let setup = Setup::new(toml, &[]);
    assert_eq!(setup.mistakes(), Vec::<String>::new(), "a process without models starts");
    let found: Vec<String> = with_models(&setup);
    for place in ["deployments.gpt.url", "deployments.gpt.tokens_per_minute", "budgets.total"] {
        assert_mistake(&found, place);
    }
    assert_mistake(&found, "the environment variable LLM_URL is not set");
    assert_eq!(found.len(), 3, "{found:#?}");

    let set = [("LLM_URL", "https://llm.example/v1"), ("LLM_TPM", "1000"), ("BUDGET", "5")];
    let setup = Setup::new(toml, &set);
    assert_eq!(with_models(&setup), Vec::<String>::new());
    assert_eq!(setup.load().unwrap().app.deployments["gpt"].url.as_deref(), Some("https://llm.example/v1"));
    // What is set must be right in any case, and a variable's name too.
    let wrong = Setup::new(toml, &[("LLM_URL", "nonsense")]);
    assert_mistake(&wrong.mistakes(), "deployments.gpt.url");
    assert_mistake(&Setup::new(&toml.replace("LLM_URL", "LLM-URL"), &[]).mistakes(), "deployments.gpt.url");
}

#[test]
fn the_file_in_force() {
    let setup = Setup::new("# here", &[]);
    let file = AppFile::find(&setup.environment).unwrap();
    assert_eq!((file.path, file.text.as_str()), (Some(setup.folder.join("colloquy.toml")), "# here"));

    let other = setup.folder.join("other.toml");
    std::fs::write(&other, "# there").unwrap();
    let mut environment = setup.environment.clone();
    environment.insert("COLLOQUY_CONFIG".into(), other.display().to_string());
    assert_eq!(AppFile::find(&environment).unwrap().text, "# there");

    environment.insert("COLLOQUY_CONFIG".into(), setup.folder.join("none.toml").display().to_string());
    let mistake = AppFile::find(&environment).unwrap_err();
    assert_eq!(mistake.place, "COLLOQUY_CONFIG");

    environment.remove("COLLOQUY_CONFIG");
    environment.insert("FUNCTIONS_APP_ROOT_PATH".into(), setup.folder.join("nowhere").display().to_string());
    let file = AppFile::find(&environment).unwrap();
    assert_eq!(file.path, None);
    assert!(AppConfig::parse(&file.text, None, &JobKind::names()).is_ok(), "the file compiled in is right");
}

#[test]
fn the_conversation_server_needs_no_storage() {
    let setup = Setup::new("", &[("AzureWebJobsStorage", "")]);
    assert_mistake(&setup.mistakes(), "AzureWebJobsStorage: is not set");
    let (config, _) = Config::load_with_models(&setup.environment, &[]).unwrap();
    assert!(matches!(config.storage.access, StorageAccess::Absent));
}

#[test]
fn a_key_names_only_targets_that_there_are() {
    let key = |limits: &str| {
        let hash = "0".repeat(64);
        format!(r#"[{{"name":"k","sha256":"{hash}","scopes":[],"owner":"o","limits":{limits}}}]"#)
    };
    let target = "[targets.t]\nurl = \"https://t.example/\"";
    let secret = ("CALLBACK_SECRET_T", "whsec_MDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAw");
    for known in [r#"{"callback":"t","callback_targets":["t"]}"#, r#"{"callback":"https://t.example/"}"#] {
        assert!(Setup::new(target, &[("AUTH_API_KEYS", &key(known)), secret]).load().is_ok(), "{known}");
    }
    for unknown in [r#"{"callback":"u"}"#, r#"{"callback_targets":["t","u"]}"#] {
        let setup = Setup::new(target, &[("AUTH_API_KEYS", &key(unknown)), secret]);
        let wanted =
            "AUTH_API_KEYS: entry \"k\" names the callback target \"u\", which colloquy.toml has not";
        assert_mistake(&setup.mistakes(), wanted);
    }
    for uncovered in ["http://169.254.169.254/latest", "https://t.example/below", "https://u.example/", "://"]
    {
        let limits = format!(r#"{{"callback":"{uncovered}"}}"#);
        let setup = Setup::new(target, &[("AUTH_API_KEYS", &key(&limits)), secret]);
        let wanted = "AUTH_API_KEYS: entry \"k\" names a callback URL that no target of colloquy.toml covers";
        assert_mistake(&setup.mistakes(), wanted);
    }
    for uncovered in ["http://169.254.169.254/latest", "https://t.example/below", "https://u.example/", "://"]
    {
        let limits = format!(r#"{{"callback":"{uncovered}"}}"#);
        let setup = Setup::new(target, &[("AUTH_API_KEYS", &key(&limits)), secret]);
        let wanted = "AUTH_API_KEYS: entry \"k\" names a callback URL that no target of colloquy.toml covers";
        assert_mistake(&setup.mistakes(), wanted);
    }
}
