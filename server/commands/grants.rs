//! `grants list|give|revoke`.

use std::process::ExitCode;

use anyhow::{Context, bail};
use clap::{Args, Subcommand};
use colloquy::access::issuing::check_text;
use colloquy::commands::output::{self, Output, ago};
use colloquy::commands::{Consent, actor, words};
use colloquy::database::audit::Actor;
use colloquy::database::grants::{self, Grant, GrantFilter, GrantedAccess, Revoked};
use colloquy::database::responses::{Order, PageOf};
use colloquy::ids::ConversationId;

use super::Operator;

#[derive(Subcommand)]
pub enum Grants {
    /// Who may read or write whose conversations.
    List(List),
    /// Let somebody read or write a conversation, or change which.
    Give(Give),
    /// Take it back, at once. A turn that the grantee runs on the conversation is stopped.
    Revoke(Revoke),
}

#[derive(Args)]
pub struct List {
    /// Only conversations of this owner.
    #[arg(long)]
    owner: Option<String>,
    /// Only what this owner was granted.
    #[arg(long)]
    grantee: Option<String>,
    /// Only this conversation.
    #[arg(long)]
    conversation: Option<ConversationId>,
    /// At most so many.
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    limit: u32,
    #[command(flatten)]
    output: Output,
}

#[derive(Args)]
struct Change {
    conversation: ConversationId,
    /// The owner who is granted access, as in keys and usage.
    grantee: String,
    /// Why; kept in the audit trail.
    #[arg(long, value_parser = words)]
    reason: Option<String>,
    #[command(flatten)]
    consent: Consent,
    #[command(flatten)]
    output: Output,
}

#[derive(Args)]
pub struct Give {
    /// read or write.
    #[arg(long, value_parser = access)]
    access: GrantedAccess,
    #[command(flatten)]
    change: Change,
}

#[derive(Args)]
pub struct Revoke {
    #[command(flatten)]
    change: Change,
}

pub async fn run(operator: &Operator, command: Grants) -> anyhow::Result<ExitCode> {
    match command {
        Grants::List(list) => self::list(operator, list).await,
        Grants::Give(give) => self::give(operator, give).await,
        Grants::Revoke(revoke) => self::revoke(operator, revoke).await,
    }
}

fn access(text: &str) -> Result<GrantedAccess, String> {
    GrantedAccess::parse(text).ok_or_else(|| "expected read or write".to_owned())
}

async fn list(operator: &Operator, list: List) -> anyhow::Result<ExitCode> {
    let page = PageOf { after: None, limit: list.limit, order: Order::Descending };
    let filter = GrantFilter {
        owner: list.owner.as_deref(),
        grantee: list.grantee.as_deref(),
        conversation: list.conversation,
    };
    let grants = grants::list_all(&operator.client().await?, filter, page).await?.entries;
    if list.output.json {
        output::json(&grants)?;
        return Ok(ExitCode::SUCCESS);
    }
    output::table(
        ["CONVERSATION", "OWNER", "GRANTEE", "ACCESS", "GIVEN", "BY"],
        grants.iter().map(|grant| {
            [
                grant.conversation.to_string(),
                grant.owner.clone(),
                grant.grantee.clone(),
                grant.access.as_str().to_owned(),
                ago(grant.created_at),
                grant.created_by.clone(),
            ]
        }),
        "No grants.",
    );
    Ok(ExitCode::SUCCESS)
}

async fn give(operator: &Operator, Give { access, change }: Give) -> anyhow::Result<ExitCode> {
    check_text("grantee", &change.grantee).map_err(|error| anyhow::anyhow!(error.message))?;
    let plan = format!("`{}` may {} {}.", change.grantee, access.as_str(), change.conversation);
    if !change.consent.to(&plan)? {
        return Ok(ExitCode::FAILURE);
    }
    let name = actor();
    let actor = Actor { name: &name, reason: change.reason.as_deref() };
    let client = operator.client().await?;
    let given = grants::give(&client, None, change.conversation, &change.grantee, access, actor).await?;
    let given = given.with_context(|| {
        format!("there is no {} that is not `{}`'s own", change.conversation, change.grantee)
    })?;
    told(&given, change.output)
}

fn told(grant: &Grant, output: Output) -> anyhow::Result<ExitCode> {
    if output.json {
        output::json(grant)?;
    } else {
        say!(
            "`{}` may {} {} of `{}`.",
            grant.grantee,
            grant.access.as_str(),
            grant.conversation,
            grant.owner
        );
    }
    Ok(ExitCode::SUCCESS)
}

async fn revoke(operator: &Operator, Revoke { change }: Revoke) -> anyhow::Result<ExitCode> {
    let plan = format!("What `{}` was granted on {} is taken back.", change.grantee, change.conversation);
    if !change.consent.to(&plan)? {
        return Ok(ExitCode::FAILURE);
    }
    let name = actor();
    let actor = Actor { name: &name, reason: change.reason.as_deref() };
    let mut client = operator.client().await?;
    let stopped = match grants::revoke(&mut client, None, change.conversation, &change.grantee, actor).await?
    {
        Revoked::Revoked { stopped } => stopped,
        Revoked::NoGrant => bail!("`{}` was not granted anything on {}", change.grantee, change.conversation),
        Revoked::NoConversation => bail!("there is no {}", change.conversation),
    };
    if change.output.json {
        output::json(&serde_json::json!({ "deleted": true, "stopped": stopped }))?;
    } else {
        say!("Taken back.");
        if let Some(turn) = stopped {
            say!("{turn} was asked to stop.");
        }
    }
    Ok(ExitCode::SUCCESS)
}
