//! `keys create|list|show|expire|rotate`.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use clap::{Args, Subcommand};
use colloquy::access::issuing::{self, Issued, KeyRequest};
use colloquy::commands::output::{self, Output, ago, or_empty};
use colloquy::commands::{Consent, actor, duration, words};
use colloquy::config::{KeyLimits, Scope};
use colloquy::database::api_keys::{self, StoredKey};
use colloquy::database::audit::Actor;
use colloquy::database::responses::{Order, PageOf};
use colloquy::ids::KeyId;
use jiff::{SignedDuration, Timestamp};
use secrecy::ExposeSecret;

use super::Operator;

#[derive(Subcommand)]
pub enum Keys {
    /// Make a key. It is shown once.
    Create(Create),
    /// Keys, newest first.
    List(List),
    /// One key: whose it is, what it may, when it ends.
    Show(Show),
    /// End a key: now, or at a time.
    Expire(Expire),
    /// Make a key that takes another's place; the old one goes on for a while.
    Rotate(Rotate),
}

#[derive(Args)]
pub struct Create {
    /// What people call it.
    #[arg(long)]
    name: String,
    /// On whose behalf it acts.
    #[arg(long)]
    owner: String,
    /// What it may do beyond /v1 for its owner: operator. May be repeated.
    #[arg(long = "scope", value_parser = scope)]
    scopes: Vec<Scope>,
    #[command(flatten)]
    limits: LimitArgs,
    #[command(flatten)]
    end: End,
    #[command(flatten)]
    change: Change,
}

/// Limits of a key; those left out are the setting's.
#[derive(Args)]
struct LimitArgs {
    #[arg(long)]
    requests_per_minute: Option<u64>,
    #[arg(long)]
    tokens_per_minute: Option<u64>,
    #[arg(long)]
    concurrent_turns: Option<u64>,
    /// Micro-units of the currency.
    #[arg(long)]
    budget_micros_per_day: Option<u64>,
    /// Who is told of the end of its background responses that name nobody: a target of colloquy.toml, or a URL.
    #[arg(long)]
    callback: Option<String>,
    /// A target that its background responses may name. Repeat it for several.
    #[arg(long = "callback-target", value_name = "TARGET")]
    callback_targets: Vec<String>,
}

/// When a key ends.
#[derive(Args)]
#[group(multiple = false)]
struct End {
    /// End it at this instant, such as 2026-12-31T00:00:00Z.
    #[arg(long)]
    expires_at: Option<Timestamp>,
    /// End it after this time, such as 90d.
    #[arg(long, value_parser = duration)]
    expires_in: Option<Duration>,
}

/// What every change takes.
#[derive(Args)]
struct Change {
    /// Why; kept in the audit trail.
    #[arg(long, value_parser = words)]
    reason: Option<String>,
    #[command(flatten)]
    consent: Consent,
    #[command(flatten)]
    output: Output,
}

#[derive(Args)]
pub struct List {
    /// Only keys of this owner.
    #[arg(long)]
    owner: Option<String>,
    /// At most so many.
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    limit: u32,
    #[command(flatten)]
    output: Output,
}

#[derive(Args)]
pub struct Show {
    id: KeyId,
    #[command(flatten)]
    output: Output,
}

#[derive(Args)]
pub struct Expire {
    id: KeyId,
    #[command(flatten)]
    end: End,
    #[command(flatten)]
    change: Change,
}

#[derive(Args)]
pub struct Rotate {
    id: KeyId,
    /// How long the old one goes on, such as 24h; default: API_KEY_OVERLAP.
    #[arg(long, value_parser = duration)]
    overlap: Option<Duration>,
    #[command(flatten)]
    end: End,
    #[command(flatten)]
    change: Change,
}

pub async fn run(operator: &Operator, command: Keys) -> anyhow::Result<ExitCode> {
    match command {
        Keys::Create(create) => self::create(operator, create).await,
        Keys::List(list) => self::list(operator, list).await,
        Keys::Show(show) => self::show(operator, show).await,
        Keys::Expire(expire) => self::expire(operator, expire).await,
        Keys::Rotate(rotate) => self::rotate(operator, rotate).await,
    }
}

fn scope(text: &str) -> Result<Scope, String> {
    Scope::parse(text).ok_or_else(|| "there is one scope: operator".to_owned())
}

impl End {
    fn at(&self) -> anyhow::Result<Option<Timestamp>> {
        match self.expires_in {
            Some(after) => Ok(Some(Timestamp::now().checked_add(SignedDuration::try_from(after)?)?)),
            None => Ok(self.expires_at),
        }
    }
}

impl From<&LimitArgs> for KeyLimits {
    fn from(limits: &LimitArgs) -> Self {
        Self {
            requests_per_minute: limits.requests_per_minute,
            tokens_per_minute: limits.tokens_per_minute,
            concurrent_turns: limits.concurrent_turns,
            budget_micros_per_day: limits.budget_micros_per_day,
            callback: limits.callback.clone(),
            callback_targets: limits.callback_targets.clone(),
        }
    }
}

async fn create(operator: &Operator, create: Create) -> anyhow::Result<ExitCode> {
    let request = KeyRequest {
        limits: (&create.limits).into(),
        expires_at: create.end.at()?,
        name: create.name,
        owner: create.owner,
        scopes: create.scopes,
        reason: create.change.reason,
    };
    let targets = &operator.config.app.targets;
    request.check(Timestamp::now(), targets).map_err(|error| anyhow::anyhow!(error.message))?;
    let may =
        if request.scopes.is_empty() { String::new() } else { format!(" with {}", scopes(&request.scopes)) };
    let until = request.expires_at.map_or("until it is ended".to_owned(), |at| format!("until {at}"));
    let limits: Vec<String> = limits(&request.limits)
        .into_iter()
        .filter(|(_, value)| !value.is_empty())
        .map(|(name, value)| format!("{name} {value}"))
        .collect();
    let limits = if limits.is_empty() { "none of its own".to_owned() } else { limits.join(", ") };
    let plan = format!(
        "A key `{}` for the owner `{}`{may}, {until}. Limits: {limits}.",
        request.name, request.owner
    );
    if !create.change.consent.to(&plan)? {
        return Ok(ExitCode::FAILURE);
    }
    let name = actor();
    let actor = Actor { name: &name, reason: request.reason.as_deref() };
    let issued = issuing::issue(&operator.client().await?, &request, actor).await?;
    told(&issued, create.change.output)
}

/// Shows a new key, the only time.
fn told(issued: &Issued, output: Output) -> anyhow::Result<ExitCode> {
    if output.json {
        let mut value = serde_json::to_value(&issued.stored)?;
        value["key"] = issued.key.expose_secret().into();
        if let Some(replaces) = &issued.replaces {
            value["replaces"] = serde_json::to_value(replaces)?;
        }
        output::json(&value)?;
    } else {
        fields(&issued.stored);
        output::fields([("key itself", issued.key.expose_secret().to_owned())]);
        say!("It is not shown again.");
    }
    Ok(ExitCode::SUCCESS)
}

async fn list(operator: &Operator, list: List) -> anyhow::Result<ExitCode> {
    let page = PageOf { after: None, limit: list.limit, order: Order::Descending };
    let keys = api_keys::list(&operator.client().await?, list.owner.as_deref(), page).await?.entries;
    if list.output.json {
        output::json(&keys)?;
        return Ok(ExitCode::SUCCESS);
    }
    output::table(
        ["KEY", "NAME", "OWNER", "SCOPES", "MADE", "STATE", "USED"],
        keys.iter().map(|key| {
            [
                key.id.to_string(),
                key.name.clone(),
                key.owner.clone(),
                scopes(&key.scopes),
                ago(key.created_at),
                state(key),
                or_empty(key.last_used_day.as_ref()),
            ]
        }),
        "No keys made at run time. Those of AUTH_API_KEYS are not listed.",
    );
    Ok(ExitCode::SUCCESS)
}

async fn show(operator: &Operator, show: Show) -> anyhow::Result<ExitCode> {
    let key = find(operator, show.id).await?;
    if show.output.json {
        output::json(&key)?;
    } else {
        fields(&key);
    }
    Ok(ExitCode::SUCCESS)
}

async fn expire(operator: &Operator, expire: Expire) -> anyhow::Result<ExitCode> {
    let key = find(operator, expire.id).await?;
    ensure!(key.revoked_at.is_none(), "{} was revoked already", key.id);
    let at = expire.end.at()?;
    let when = at.map_or("now".to_owned(), |at| format!("at {at}"));
    let plan = format!("{} ends {when}, on every instance within {:?}.", named(&key), cache(operator));
    if !expire.change.consent.to(&plan)? {
        return Ok(ExitCode::FAILURE);
    }
    let name = actor();
    let actor = Actor { name: &name, reason: expire.change.reason.as_deref() };
    let ended = api_keys::expire(&operator.client().await?, key.id, at, actor).await?;
    let ended = ended.with_context(|| format!("{} was revoked already", key.id))?;
    if expire.change.output.json {
        output::json(&ended)?;
    } else {
        say!("{}: {}.", named(&ended), state(&ended));
    }
    Ok(ExitCode::SUCCESS)
}

async fn rotate(operator: &Operator, rotate: Rotate) -> anyhow::Result<ExitCode> {
    let key = find(operator, rotate.id).await?;
    if let Some(successor) = key.replaced_by {
        bail!("{} was rotated already; its successor is {successor}", key.id);
    }
    ensure!(key.is_in_force(Timestamp::now()), "{} has ended; make another", key.id);
    let expires_at = rotate.end.at()?;
    issuing::check_future("expires_at", expires_at, Timestamp::now())
        .map_err(|error| anyhow::anyhow!(error.message))?;
    issuing::check_successor(&key, &operator.config.app.targets)
        .map_err(|error| anyhow::anyhow!(error.message))?;
    let overlap = rotate.overlap.unwrap_or(operator.config.access.key_overlap);
    let plan = format!("A new key takes the place of {}, which goes on for {overlap:?}.", named(&key));
    if !rotate.change.consent.to(&plan)? {
        return Ok(ExitCode::FAILURE);
    }
    let name = actor();
    let actor = Actor { name: &name, reason: rotate.change.reason.as_deref() };
    let rotated = issuing::rotate(&operator.client().await?, key.id, overlap, expires_at, actor).await?;
    let rotated = rotated.with_context(|| format!("{} was ended or rotated meanwhile", key.id))?;
    told(&rotated, rotate.change.output)
}

async fn find(operator: &Operator, id: KeyId) -> anyhow::Result<StoredKey> {
    let found = api_keys::get(&operator.client().await?, id).await?;
    found.with_context(|| format!("there is no key {id} made at run time"))
}

fn cache(operator: &Operator) -> Duration {
    operator.config.access.key_cache
}

fn named(key: &StoredKey) -> String {
    format!("{} (`{}` of `{}`)", key.id, key.name, key.owner)
}

fn fields(key: &StoredKey) {
    let told = [
        ("key", key.id.to_string()),
        ("name", key.name.clone()),
        ("owner", key.owner.clone()),
        ("scopes", scopes(&key.scopes)),
        ("state", state(key)),
        ("made", format!("{} by {}", key.created_at, key.created_by)),
        ("expires", or_empty(key.expires_at.as_ref())),
        ("revoked", or_empty(key.revoked_at.as_ref())),
        ("replaced by", or_empty(key.replaced_by.as_ref())),
        ("last used", or_empty(key.last_used_day.as_ref())),
    ];
    output::fields(told.into_iter().chain(limits(&key.limits)));
}

/// Every limit and whom the key has told, by name; empty where it has none of its own.
fn limits(limits: &KeyLimits) -> [(&'static str, String); 6] {
    let limit = |value: Option<u64>| or_empty(value.as_ref());
    [
        ("requests/min", limit(limits.requests_per_minute)),
        ("tokens/min", limit(limits.tokens_per_minute)),
        ("turns at once", limit(limits.concurrent_turns)),
        ("micros/day", limit(limits.budget_micros_per_day)),
        ("callback", or_empty(limits.callback.as_ref())),
        ("targets", limits.callback_targets.join(", ")),
    ]
}

fn scopes(scopes: &[Scope]) -> String {
    scopes.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

fn state(key: &StoredKey) -> String {
    match (key.revoked_at, key.expires_at) {
        (Some(at), _) => format!("revoked {}", ago(at)),
        (None, Some(at)) if at <= Timestamp::now() => format!("expired {}", ago(at)),
        (None, Some(at)) => format!("ends {}", ago(at)),
        (None, None) => "in force".to_owned(),
    }
}
