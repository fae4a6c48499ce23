//! Registration: which functions there are and which code they run.

use std::path::Path;
use std::sync::Arc;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use http::Method;
use tokio::net::TcpListener;

use super::http::{HttpRequest, HttpResponse};
use super::invocation::Invocation;
use super::manifest::{self, Difference, Manifest, ManifestError};
use super::outcome::{Outcome, Settlement};
use super::payload::{Payload, PayloadError, QueueMessage};
use super::route::Template;
use super::serve::{self, ServeError, ServeOptions};
use super::timer::Timer;

/// Where the connection of a queue function is configured unless [`App::connection`] says otherwise.
pub(super) const DEFAULT_CONNECTION: &str = "AzureWebJobsStorage";

type HttpHandler = Box<dyn Fn(HttpRequest, Invocation) -> BoxFuture<'static, HttpResponse> + Send + Sync>;
type QueueHandler = Box<
    dyn Fn(QueueMessage<()>, Invocation) -> BoxFuture<'static, Result<Outcome, PayloadError>> + Send + Sync,
>;
type TimerHandler = Box<dyn Fn(Timer, Invocation) -> BoxFuture<'static, Outcome> + Send + Sync>;

/// The key the host asks of an HTTP caller. Core Tools and devhost ask for none, whatever this says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AuthLevel {
    /// None: the function judges its callers itself.
    #[default]
    Anonymous,
    /// The function's own key, or the app's.
    Function,
    /// The app's master key.
    Admin,
}

impl AuthLevel {
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Anonymous => "anonymous",
            Self::Function => "function",
            Self::Admin => "admin",
        }
    }
}

pub(super) struct Function {
    pub(super) name: Arc<str>,
    pub(super) trigger: Trigger,
}

pub(super) enum Trigger {
    Http(HttpTrigger),
    Queue(QueueTrigger),
    Timer(TimerTrigger),
}

pub(super) struct HttpTrigger {
    pub(super) route: String,
    /// Empty: all.
    pub(super) methods: Vec<Method>,
    pub(super) auth_level: AuthLevel,
    pub(super) handler: HttpHandler,
}

pub(super) struct QueueTrigger {
    pub(super) queue: String,
    pub(super) connection: String,
    /// Whether its payload is bytes, and so its binding's data type `binary`.
    pub(super) binary: bool,
    pub(super) handler: QueueHandler,
}

pub(super) struct TimerTrigger {
    pub(super) schedule: String,
    pub(super) handler: TimerHandler,
}

/// A function app: see the [module](super) for an example.
///
/// Handlers are `Fn`, called concurrently; what they share they capture in an `Arc` and clone per call.
/// Mistakes made in registering (a name twice, a template that does not parse) are reported by
/// [`App::check`], with everything else.
#[derive(Default)]
pub struct App {
    pub(super) functions: Vec<Function>,
    pub(super) mistakes: Vec<Difference>,
    pub(super) settlement: Option<Arc<dyn Settlement>>,
}

impl App {
    /// Without functions.
    pub fn new() -> Self {
        Self::default()
    }

    /// A function with an `httpTrigger` and an `http` output. `route` is the template as in `function.json`,
    /// without the prefix: literals, `{name}`, and last `{name?}` or `{*rest}`. No `methods` means all.
    pub fn http<F, Fut>(self, name: &str, route: &str, methods: &[Method], handler: F) -> Self
    where
        F: Fn(HttpRequest, Invocation) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = HttpResponse> + Send + 'static,
    {
        let mistake = Template::parse(route).err().map(|error| Difference {
            place: format!("registration of {name}"),
            what: format!("route `{route}`: {error}"),
            remedy: "correct the template".to_owned(),
        });
        let mut app = self.register(
            name,
            Trigger::Http(HttpTrigger {
                route: route.to_owned(),
                methods: methods.to_vec(),
                auth_level: AuthLevel::default(),
                handler: Box::new(move |request, invocation| handler(request, invocation).boxed()),
            }),
        );
        app.mistakes.extend(mistake);
        app
    }

    /// A function with a `queueTrigger`. `queue` is as in `function.json`, `%SETTING%` unresolved. `T`
    /// usually follows from the handler; written out it is `queue::<T, _, _>`.
    pub fn queue<T, F, Fut>(self, name: &str, queue: &str, handler: F) -> Self
    where
        T: Payload,
        F: Fn(QueueMessage<T>, Invocation) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Outcome> + Send + 'static,
    {
        let handler = Arc::new(handler);
        self.register(
            name,
            Trigger::Queue(QueueTrigger {
                queue: queue.to_owned(),
                connection: DEFAULT_CONNECTION.to_owned(),
                binary: T::BINARY,
                handler: Box::new(move |message, invocation| {
                    let handler = Arc::clone(&handler);
                    async move {
                        let payload = T::decode(&message.text)?;
                        Ok(handler(message.with(payload), invocation).await)
                    }
                    .boxed()
                }),
            }),
        )
    }

    /// A function with a `timerTrigger`. `schedule` is as in `function.json`: six fields, seconds first, or
    /// `%SETTING%`.
    pub fn timer<F, Fut>(self, name: &str, schedule: &str, handler: F) -> Self
    where
        F: Fn(Timer, Invocation) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Outcome> + Send + 'static,
    {
        self.register(
            name,
            Trigger::Timer(TimerTrigger {
                schedule: schedule.to_owned(),
                handler: Box::new(move |timer, invocation| handler(timer, invocation).boxed()),
            }),
        )
    }

    /// The key asked of callers of the HTTP function registered just before; anonymous without this.
    pub fn auth_level(mut self, level: AuthLevel) -> Self {
        match self.functions.last_mut().map(|f| &mut f.trigger) {
            Some(Trigger::Http(http)) => http.auth_level = level,
            _ => self.mistakes.push(misplaced("auth_level", "an HTTP function")),
        }
        self
    }

    /// The connection setting of the queue function registered just before; `AzureWebJobsStorage` without
    /// this.
    pub fn connection(mut self, setting: &str) -> Self {
        match self.functions.last_mut().map(|f| &mut f.trigger) {
            Some(Trigger::Queue(queue)) => setting.clone_into(&mut queue.connection),
            _ => self.mistakes.push(misplaced("connection", "a queue function")),
        }
        self
    }

    /// How `Retry` and `DeadLetter` of queue messages are carried out. Without one, the host is told that the
    /// invocation failed.
    pub fn settlement(mut self, settlement: impl Settlement) -> Self {
        self.settlement = Some(Arc::new(settlement));
        self
    }

    /// Compares the registrations with `host.json` and the function folders under `root`. The error lists
    /// every difference. Reads a few small files, and nothing from the network.
    pub fn check(&self, root: &Path) -> Result<Manifest, ManifestError> {
        manifest::check(self, root)
    }

    /// Answers the host until the stop future of `options` resolves, then lets what is running finish, for a
    /// while. Without a stop future it returns only on errors: the host ends this process by killing it.
    pub async fn serve(self, listener: TcpListener, options: ServeOptions) -> Result<(), ServeError> {
        serve::serve(self, listener, options).await
    }

    fn register(mut self, name: &str, trigger: Trigger) -> Self {
        if let Some(what) = self.bad_name(name) {
            self.mistakes.push(Difference {
                place: format!("registration of {name}"),
                what,
                remedy: "give the function and its folder another name".to_owned(),
            });
        }
        self.functions.push(Function { name: name.into(), trigger });
        self
    }

    fn bad_name(&self, name: &str) -> Option<String> {
        let allowed = name.len() <= 128
            && name.starts_with(|c: char| c.is_ascii_alphabetic())
            && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
        if !allowed {
            Some(format!("`{name}` is not a letter followed by up to 127 letters, digits, `-` and `_`"))
        } else if name.eq_ignore_ascii_case("host") {
            Some("the host refuses a function called `host`".to_owned())
        } else if self.functions.iter().any(|f| f.name.eq_ignore_ascii_case(name)) {
            Some(format!("`{name}` is registered twice"))
        } else {
            None
        }
    }
}

fn misplaced(method: &str, after: &str) -> Difference {
    Difference {
        place: "registration".to_owned(),
        what: format!("`{method}` does not follow {after}"),
        remedy: format!("call it right after registering {after}"),
    }
}
