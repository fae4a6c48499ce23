//! `callbacks list|test|enable`.

use std::process::ExitCode;

use anyhow::Context;
use clap::{Args, Subcommand};
use colloquy::commands::{Consent, words};
use colloquy::database::dead_letters::Actor;
use colloquy::database::inspect::{self, WorkFilter};
use colloquy::database::responses::{Order, PageOf};
use colloquy::ids::{CallbackId, EventId};
use colloquy::jobs::callback::{self, CallbackEvent};
use colloquy::jobs::state::{WorkKind, WorkState};
use colloquy::operations::TargetState;
use jiff::Timestamp;

use super::output::{self, Listing, Output, or_empty};
use crate::send_callback::headers;
use crate::services::Services;

#[derive(Subcommand)]
pub enum Callbacks {
    /// The latest callbacks, newest first, and the targets that are disabled.
    List(List),
    /// One callback, and every try of it.
    Show(Show),
    /// Send a target a signed `colloquy.test` event now, and show what it answers.
    Test(Test),
    /// Enable a target that answered 410: its callbacks go on where they stopped.
    Enable(Enable),
}

#[derive(Args)]
pub struct List {
    /// Only this target.
    #[arg(long)]
    target: Option<String>,
    /// Only this state: pending, leased, delivered or dead.
    #[arg(long)]
    state: Option<WorkState>,
    #[command(flatten)]
    listing: Listing,
}

#[derive(Args)]
pub struct Show {
    id: CallbackId,
    #[command(flatten)]
    output: Output,
}

#[derive(Args)]
pub struct Test {
    target: String,
    #[command(flatten)]
    output: Output,
}

#[derive(Args)]
pub struct Enable {
    target: String,
    /// Why; kept in the audit trail.
    #[arg(long, value_parser = words)]
    reason: Option<String>,
    #[command(flatten)]
    consent: Consent,
    #[command(flatten)]
    output: Output,
}

pub async fn run(services: &Services, command: Callbacks) -> anyhow::Result<ExitCode> {
    match command {
        Callbacks::List(list) => self::list(services, list).await,
        Callbacks::Show(show) => self::show(services, show).await,
        Callbacks::Test(test) => self::test(services, test).await,
        Callbacks::Enable(enable) => self::enable(services, enable).await,
    }
}

async fn list(services: &Services, list: List) -> anyhow::Result<ExitCode> {
    let client = services.database.client().await?;
    let filter = WorkFilter {
        object: list.target,
        state: list.state.map(|state| state.to_string()),
        ..WorkFilter::default()
    };
    let page = PageOf { after: None, limit: list.listing.limit, order: Order::Descending };
    let rows = inspect::work(&client, WorkKind::Callback, &filter, page).await?.entries;
    drop(client);
    let mut disabled = services.operations.targets().await?;
    disabled.retain(|target| target.state == TargetState::Disabled);
    if list.listing.is_json() {
        output::json(&serde_json::json!({ "callbacks": rows, "disabled_targets": disabled }))?;
        return Ok(ExitCode::SUCCESS);
    }
    output::table(
        ["CALLBACK", "TARGET", "ROUTE", "STATE", "TRIES", "DUE", "LAST ERROR"],
        rows.iter().map(|row| {
            [
                row.id.clone(),
                row.object.clone(),
                row.route.clone(),
                row.state.clone(),
                row.attempts.to_string(),
                output::due(row),
                or_empty(row.error.as_ref()),
            ]
        }),
        "No callbacks.",
    );
    for target in disabled {
        let (name, at) = (&target.target, or_empty(target.at.as_ref()));
        let reason = target.reason.unwrap_or_default();
        say!("\nTarget `{name}` is disabled since {at}: {reason}. `callbacks enable {name}` resumes.");
    }
    Ok(ExitCode::SUCCESS)
}

async fn show(services: &Services, show: Show) -> anyhow::Result<ExitCode> {
    let work = inspect::work_of(&services.database.client().await?, WorkKind::Callback, show.id.0).await?;
    let work = work.with_context(|| format!("there is no callback {}", show.id))?;
    if show.output.json {
        output::json(&work)?;
        return Ok(ExitCode::SUCCESS);
    }
    output::work("callback", "target", &work);
    Ok(ExitCode::SUCCESS)
}

async fn test(services: &Services, test: Test) -> anyhow::Result<ExitCode> {
    let target = services.targets.get(&test.target).with_context(|| unknown(services, &test.target))?;
    let event = CallbackEvent {
        id: EventId::new(),
        source: "colloquy".to_owned(),
        event_type: "colloquy.test".to_owned(),
        received_at: Timestamp::now(),
        payload: br#"{"message":"A test. No event stands behind it."}"#.as_slice().into(),
    };
    let id = CallbackId::new();
    let body = callback::render(&event)?;
    let answer = services.sender().post(&target.destination, headers(target, id, &body), body.into()).await;
    let (ok, status, text) = match &answer {
        Ok(answer) => (answer.status.is_success(), Some(answer.status.as_u16()), answer.response.clone()),
        Err(error) => (false, None, error.to_string()),
    };
    if test.output.json {
        output::json(&serde_json::json!({ "id": id, "delivered": ok, "status": status, "answer": text }))?;
    } else {
        let status = status.map_or_else(|| "no answer".to_owned(), |status| status.to_string());
        say!("{id} to `{}`: {status}", test.target);
        if !text.is_empty() {
            say!("{}", output::shortened_to(&text, 400));
        }
    }
    Ok(if ok { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

async fn enable(services: &Services, enable: Enable) -> anyhow::Result<ExitCode> {
    anyhow::ensure!(services.targets.contains_key(&enable.target), unknown(services, &enable.target));
    let plan = format!("`{}` is enabled if it is disabled, and what waits for it goes out.", enable.target);
    if !enable.consent.to(&plan)? {
        return Ok(ExitCode::FAILURE);
    }
    let name = super::actor();
    let actor = Actor { name: &name, reason: enable.reason.as_deref() };
    let was_disabled = services.operations.enable_target(&enable.target, actor).await?;
    if enable.output.json {
        let target = &enable.target;
        output::json(
            &serde_json::json!({ "target": target, "enabled": true, "was_disabled": was_disabled }),
        )?;
    } else if was_disabled {
        say!("`{}` is enabled; `maintain` sends what waited.", enable.target);
    } else {
        say!("`{}` is not disabled.", enable.target);
    }
    Ok(ExitCode::SUCCESS)
}

fn unknown(services: &Services, name: &str) -> String {
    let mut names: Vec<&str> = services.targets.keys().map(String::as_str).collect();
    names.sort_unstable();
    format!("there is no target `{name}` in colloquy.toml; there is {}", names.join(", "))
}
