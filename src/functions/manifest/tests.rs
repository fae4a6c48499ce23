//! The check, against folders written for each test and against the repository's own.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use http::{Method, StatusCode};

use super::*;
use crate::functions::{AuthLevel, Binary, HttpResponse, Outcome, QueueMessage};

/// A folder that goes when the test ends.
struct Root(PathBuf);

impl Root {
    fn new() -> Self {
        let path = std::env::temp_dir().join(format!("functions-{}", uuid::Uuid::now_v7()));
        std::fs::create_dir(&path).expect("a folder");
        Self(path)
    }

    /// The app of `app()`, as it should be.
    fn good() -> Self {
        let root = Self::new();
        root.write("host.json", HOST);
        root.write("hook/function.json", HOOK);
        root.write("work/function.json", WORK);
        root.write("tick/function.json", TICK);
        root
    }

    fn write(&self, file: &str, text: &str) {
        let path = self.0.join(file);
        std::fs::create_dir_all(path.parent().expect("a parent")).expect("a folder");
        std::fs::write(path, text).expect("written");
    }

    /// The good app with one text replaced in one file.
    fn with(file: &str, from: &str, to: &str) -> Self {
        let root = Self::good();
        let text = std::fs::read_to_string(root.0.join(file)).expect("there");
        assert!(text.contains(from), "`{from}` is not in {file}");
        root.write(file, &text.replace(from, to));
        root
    }
}

impl Drop for Root {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.0).ok();
    }
}

const HOST: &str = r#"{
    "version": "2.0",
    "functionTimeout": "00:10:00",
    "extensionBundle": {"id": "Microsoft.Azure.Functions.ExtensionBundle", "version": "[4.*, 5.0.0)"},
    "customHandler": {
        "description": {"defaultExecutablePath": "function-handlers"},
        "initializationTimeout": "00:01:00",
        "enableProxyingHttpRequest": true,
        "enableForwardingHttpRequest": true
    },
    "extensions": {"http": {"routePrefix": "api"}, "queues": {
        "batchSize": 16, "maxDequeueCount": 100, "messageEncoding": "base64", "visibilityTimeout": "00:00:10"
    }}
}"#;
const HOOK: &str = r#"{"bindings": [
    {"type": "httpTrigger", "direction": "in", "name": "req", "authLevel": "anonymous", "methods": ["post"], "route": "hook/{id}"},
    {"type": "http", "direction": "out", "name": "res"}
]}"#;
const WORK: &str = r#"{"bindings": [
    {"type": "queueTrigger", "direction": "in", "name": "message", "queueName": "%QUEUE_WORK%", "connection": "Store"}
]}"#;
const TICK: &str = r#"{"bindings": [
    {"type": "timerTrigger", "direction": "in", "name": "timer", "schedule": "0 * * * * *"}
]}"#;

async fn ok<R, I>(_: R, _: I) -> HttpResponse {
    HttpResponse::new(StatusCode::OK)
}

async fn done<D, I>(_: D, _: I) -> Outcome {
    Outcome::Done
}

fn app() -> App {
    App::new()
        .http("hook", "hook/{id}", &[Method::POST], ok)
        .queue("work", "%QUEUE_WORK%", done::<QueueMessage<String>, _>)
        .connection("Store")
        .timer("tick", "0 * * * * *", done)
}

fn differences(app: &App, root: &Root) -> Vec<String> {
    match app.check(&root.0) {
        Ok(_) => Vec::new(),
        Err(error) => error.differences.iter().map(ToString::to_string).collect(),
    }
}

#[test]
fn an_app_that_agrees_gives_what_serving_needs() {
    let manifest = app().check(&Root::good().0).expect("no difference");
    assert_eq!(
        manifest.host,
        HostFile {
            function_timeout: Some(Duration::from_secs(600)),
            initialization_timeout: Duration::from_secs(60),
            route_prefix: "api".to_owned(),
        }
    );
    let bindings: Vec<_> = manifest.bindings.iter().map(|(f, b)| (f.as_str(), b.as_str())).collect();
    assert_eq!(bindings, [("hook", "req"), ("tick", "timer"), ("work", "message")]);
}

#[test]
fn defaults_are_the_hosts() {
    let root = Root::good();
    root.write("host.json", r#"{"version": "2.0", "extensionBundle": {"id": "x"}, "customHandler": {"description": {"defaultExecutablePath": "h"}, "enableProxyingHttpRequest": true, "enableForwardingHttpRequest": true}, "extensions": {"queues": {"maxDequeueCount": 20, "visibilityTimeout": "00:00:01"}}}"#);
    root.write("hook/function.json", r#"{"bindings": [{"type": "HttpTrigger", "direction": "IN", "name": "req"}, {"Type": "http", "Direction": "out", "Name": "$return"}]}"#);
    let app = App::new()
        .http("hook", "hook", &[], ok)
        .auth_level(AuthLevel::Function)
        .queue("work", "%QUEUE_WORK%", done::<QueueMessage<String>, _>)
        .connection("Store")
        .timer("tick", "0 * * * * *", done);
    assert_eq!(differences(&app, &root), [""; 0]);
    assert_eq!(app.check(&root.0).expect("agrees").host, HostFile::default());
}

#[test]
fn each_difference_is_found_and_says_what_to_do() {
    let cases = [
        (
            "hook/function.json",
            r#""hook/{id}""#,
            r#""hook/{name}""#,
            "route is `hook/{name}`, registered is `hook/{id}`; change one of the two",
        ),
        (
            "hook/function.json",
            r#"["post"]"#,
            r#"["post", "get"]"#,
            "methods is `GET, POST`, registered is `POST`",
        ),
        ("hook/function.json", r#""methods": ["post"], "#, "", "methods is `all`, registered is `POST`"),
        (
            "hook/function.json",
            r#""anonymous""#,
            r#""admin""#,
            "authLevel is `admin`, registered is `anonymous`",
        ),
        (
            "hook/function.json",
            r#""authLevel": "anonymous", "#,
            "",
            "authLevel is `function`, registered is `anonymous`",
        ),
        (
            "hook/function.json",
            ",\n    {\"type\": \"http\", \"direction\": \"out\", \"name\": \"res\"}",
            "",
            "has not exactly one binding of type http",
        ),
        (
            "hook/function.json",
            r#"{"type": "http", "#,
            r#"{"type": "queue", "direction": "out", "name": "more", "queueName": "q"}, {"type": "http", "#,
            "has a binding `more` of type queue; remove it",
        ),
        ("hook/function.json", r#""name": "req""#, r#""name": "re-q""#, "binding name `re-q`; use a letter"),
        (
            "hook/function.json",
            "httpTrigger",
            "queueTrigger",
            "the trigger is queueTrigger (in), registered is httpTrigger (in)",
        ),
        ("work/function.json", "%QUEUE_WORK%", "work", "queueName is `work`, registered is `%QUEUE_WORK%`"),
        (
            "work/function.json",
            r#""Store""#,
            r#""""#,
            "connection is `AzureWebJobsStorage`, registered is `Store`",
        ),
        (
            "work/function.json",
            r#"{"bindings": ["#,
            r#"{"bindings": [{"type": "timerTrigger", "direction": "in", "name": "t"},"#,
            "has 2 triggers; leave exactly one",
        ),
        (
            "work/function.json",
            r#""queueName""#,
            r#""datatype": "Binary", "queueName""#,
            "dataType is `binary`, registered is `string`; change one of the two",
        ),
        (
            "work/function.json",
            r#"{"bindings""#,
            r#"{"disabled": true, "bindings""#,
            "`disabled` is set; remove it",
        ),
        (
            "hook/function.json",
            r#"{"bindings""#,
            r#"{"Disabled": "HOOK_OFF", "bindings""#,
            "`disabled` is set",
        ),
        (
            "tick/function.json",
            r#"{"bindings""#,
            r#"{"retry": {"strategy": "fixedDelay", "maxRetryCount": 3}, "bindings""#,
            "`retry` is set; remove it",
        ),
        ("work/function.json", "bindings", "binding", "has no list `bindings`; add the trigger"),
        ("work/function.json", "]", "", "is not JSON"),
        (
            "tick/function.json",
            "0 * * * * *",
            "0 0 * * * *",
            "schedule is `0 0 * * * *`, registered is `0 * * * * *`",
        ),
        ("host.json", r#""version": "2.0""#, r#""version": "1.0""#, "version is not \"2.0\""),
        (
            "host.json",
            "function-handlers",
            "./function-handlers",
            "defaultExecutablePath is `./function-handlers`; drop the leading `./`",
        ),
        ("host.json", "function-handlers", "", "defaultExecutablePath is missing or empty"),
        (
            "host.json",
            r#""enableProxyingHttpRequest": true"#,
            r#""enableHttpProxyingRequest": true"#,
            "customHandler.enableProxyingHttpRequest is not true",
        ),
        (
            "host.json",
            r#""enableForwardingHttpRequest": true"#,
            r#""enableForwardingHttpRequest": "true""#,
            "customHandler.enableForwardingHttpRequest is not true",
        ),
        ("host.json", "base64", "none", "messageEncoding is `none`; set it to \"base64\""),
        ("host.json", "extensionBundle", "extensionBundles", "extensionBundle is missing"),
        ("host.json", "00:10:00", "10", "functionTimeout: `10` is not a duration"),
        ("host.json", r#""00:10:00""#, "600", "functionTimeout: `600` is not a string"),
        ("host.json", "00:01:00", "1m", "initializationTimeout: `1m` is not a duration"),
        (
            "host.json",
            r#""customHandler": {"#,
            r#""customHandler": {"http": {"routes": []}, "#,
            "customHandler.http.routes is set; remove it",
        ),
        (
            "host.json",
            r#""maxDequeueCount": 100"#,
            r#""maxDequeueCount": 19"#,
            "maxDequeueCount is 19; set it to 20",
        ),
        (
            "host.json",
            r#""maxDequeueCount": 100, "#,
            "",
            "extensions.queues.maxDequeueCount is 5; set it to 20",
        ),
        (
            "host.json",
            r#""batchSize": 16"#,
            r#""BatchSize": 33"#,
            "extensions.queues.batchSize is 33; set it to 1 to 32",
        ),
        ("host.json", r#""batchSize": 16"#, r#""batchSize": "16""#, "batchSize is \"16\"; set it to 1 to 32"),
        (
            "host.json",
            r#""00:00:10""#,
            r#""00:00:00""#,
            "visibilityTimeout is `00:00:00`; set it to 00:00:01 or more",
        ),
        (
            "host.json",
            r#""customHandler": {"#,
            r#""customHandler": {"Port": 7100, "#,
            "customHandler.port is set; remove it",
        ),
        ("host.json", r#""version""#, r#""httpWorker": {}, "version""#, "httpWorker is set; remove it"),
        (
            "host.json",
            r#""version""#,
            r#""retry": {"strategy": "fixedDelay", "maxRetryCount": -1}, "version""#,
            "retry is set; remove it",
        ),
        (
            "host.json",
            r#""version""#,
            r#""configurationProfile": "mcp-custom-handler", "version""#,
            "configurationProfile is `mcp-custom-handler`",
        ),
        (
            "host.json",
            r#""extensions""#,
            r#"// why
            "extensions""#,
            "is not JSON",
        ),
    ];
    for (file, from, to, says) in cases {
        let found = differences(&app(), &Root::with(file, from, to));
        assert_eq!(found.len(), 1, "{file}, {to}: {found:#?}");
        assert!(
            found[0].starts_with(&format!("{file}: ")) && found[0].contains(says),
            "{says}\n{}",
            found[0]
        );
    }
}

#[test]
fn a_function_of_bytes_wants_a_binding_of_bytes() {
    let app = App::new()
        .http("hook", "hook/{id}", &[Method::POST], ok)
        .queue("work", "%QUEUE_WORK%", done::<QueueMessage<Binary>, _>)
        .connection("Store")
        .timer("tick", "0 * * * * *", done);
    let found = differences(&app, &Root::good());
    assert_eq!(found.len(), 1, "{found:#?}");
    assert!(found[0].contains("dataType is `string`, registered is `binary`"), "{}", found[0]);
    let root = Root::with("work/function.json", r#""queueName""#, r#""dataType": "binary", "queueName""#);
    assert_eq!(differences(&app, &root), [""; 0]);
}

#[test]
fn one_error_lists_them_all() {
    let root = Root::with("host.json", "true", "false");
    root.write("stray/function.json", TICK);
    root.write("notes/readme.txt", "not a function");
    std::fs::remove_dir_all(root.0.join("tick")).expect("removed");
    let app = app()
        .http("tick", "tick/{id:int}", &[], ok)
        .queue("1st", "q", done::<QueueMessage<String>, _>)
        .auth_level(AuthLevel::Admin);
    let error = app.check(&root.0).expect_err("differs").to_string();
    for says in [
        "differ in 9 places:\n  - ",
        "registration of tick: route `tick/{id:int}`",
        "registration of tick: `tick` is registered twice",
        "registration of 1st: `1st` is not a letter",
        "registration: `auth_level` does not follow an HTTP function",
        "enableProxyingHttpRequest is not true",
        "enableForwardingHttpRequest is not true",
        "stray/function.json: there is a folder and no registration",
        "tick/function.json: does not exist, but `tick` is registered",
        "1st/function.json: does not exist",
    ] {
        assert!(error.contains(says), "{says} is not in\n{error}");
    }
}

#[test]
fn a_root_without_anything_says_where_it_looked() {
    let error = App::new().check(Path::new("/nonexistent/app")).expect_err("nothing there").to_string();
    assert!(error.contains("/nonexistent/app") && error.contains("FUNCTIONS_APP_ROOT_PATH"), "{error}");
}

#[test]
fn a_route_from_outside_must_not_reach_an_envelopes_path() {
    let root = Root::with("host.json", r#""api""#, r#""""#);
    root.write("hook/function.json", &HOOK.replace("hook/{id}", "{*rest}"));
    let app = App::new()
        .http("hook", "{*rest}", &[Method::POST], ok)
        .queue("work", "%QUEUE_WORK%", done::<QueueMessage<String>, _>)
        .connection("Store")
        .timer("tick", "0 * * * * *", done);
    let found = differences(&app, &root);
    assert_eq!(found.len(), 2, "{found:#?}");
    assert!(found[0].contains("also matches /work") && found[1].contains("also matches /tick"), "{found:#?}");
}

#[test]
fn the_repositorys_own_folders_agree_with_their_plan() {
    let queue = done::<QueueMessage<String>, _>;
    let app = App::new()
        .http("receive-webhook", "webhooks/{source}/{event?}", &[], ok)
        .http("health", "health/{check?}", &[Method::GET], ok)
        .queue("process-event", "%QUEUE_EVENTS%", queue)
        .queue("run-job", "%QUEUE_JOBS%", done::<QueueMessage<String>, _>)
        .queue("send-callback", "%QUEUE_CALLBACKS%", done::<QueueMessage<String>, _>)
        .timer("migrate", "0 */5 * * * *", done)
        .timer("maintain", "*/15 * * * * *", done);
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let manifest = app.check(root).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(manifest.bindings["process-event"], "message");
    assert_eq!(manifest.bindings["maintain"], "timer");
    let best = (0..10)
        .map(|_| {
            let began = Instant::now();
            app.check(root).expect("as before");
            began.elapsed()
        })
        .min()
        .expect("ten");
    assert!(best < Duration::from_millis(2), "{best:?}");
}
