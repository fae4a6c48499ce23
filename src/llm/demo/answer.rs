//! What the demo model answers.

use uuid::Uuid;

use super::super::ModelRequest;
use super::arguments;
use super::command::Commands;
use super::conversation::Conversation;
use crate::openresponses::{
    AllowedTool, CreateResponse, Role, SpecificTool, TextFormat, Tool, ToolChoice, ToolMode,
};

/// What it comes to.
#[derive(Debug)]
pub(super) enum Answer {
    Text(String),
    Refusal(String),
    Calls(Vec<Call>),
}

/// A tool called.
#[derive(Debug)]
pub(super) struct Call {
    pub id: String,
    pub name: String,
    pub arguments: String,
}

/// Enough to fill an answer of any length.
pub(super) const FILLER: &[&str] = &[
    "the", "demo", "model", "answers", "without", "a", "provider", "so", "that", "every", "part", "of",
    "Colloquy", "can", "be", "tried", "on", "one", "machine", "and", "each", "answer", "is", "the", "same",
    "each", "time",
];

/// `message` is the user's last one without its commands.
pub(super) fn of(
    request: &ModelRequest,
    conversation: &Conversation,
    message: &str,
    attempt: Uuid,
    commands: &Commands,
) -> Answer {
    let params = &request.params;
    if commands.refuse {
        return Answer::Refusal("I am sorry, but I cannot help with that.".to_owned());
    }
    let calls = calls(params, conversation, message, attempt);
    if !calls.is_empty() {
        return Answer::Calls(calls);
    }
    match params.text.as_ref().and_then(|text| text.format.as_ref()) {
        Some(TextFormat::JsonSchema(schema)) => {
            let source = match conversation.outputs.last() {
                Some((_, output)) => format!("{message} {output}"),
                None => message.to_owned(),
            };
            return Answer::Text(arguments::fill(schema.schema.get(), &source));
        }
        Some(TextFormat::JsonObject) => {
            let text = in_words(conversation, message);
            return Answer::Text(serde_json::json!({ "answer": text }).to_string());
        }
        Some(TextFormat::Text) | None => {}
    }
    Answer::Text(in_words(conversation, message))
}

/// The tools to call: the one that must be, else those whose name or description the message speaks of, unless they
/// have given their outputs already.
fn calls(params: &CreateResponse, conversation: &Conversation, message: &str, attempt: Uuid) -> Vec<Call> {
    let done = !conversation.outputs.is_empty();
    let tools: Vec<&Tool> = params.tools.iter().flatten().collect();
    let mut chosen = match &params.tool_choice {
        Some(ToolChoice::Mode(ToolMode::None)) => Vec::new(),
        Some(ToolChoice::Specific(SpecificTool::Function { name })) if !done => {
            tools.into_iter().filter(|tool| tool.name() == name).collect()
        }
        Some(ToolChoice::Mode(ToolMode::Required)) if !done => best(&tools, message, true),
        Some(ToolChoice::Specific(SpecificTool::AllowedTools { mode, tools: allowed })) if !done => {
            let named =
                |tool: &&Tool| allowed.iter().any(|AllowedTool::Function { name }| name == tool.name());
            let tools: Vec<&Tool> = tools.into_iter().filter(named).collect();
            if *mode == ToolMode::None {
                Vec::new()
            } else {
                best(&tools, message, *mode == ToolMode::Required)
            }
        }
        None | Some(ToolChoice::Mode(ToolMode::Auto)) if !done => best(&tools, message, false),
        _ => Vec::new(),
    };
    if params.parallel_tool_calls == Some(false) {
        chosen.truncate(1);
    }
    chosen
        .into_iter()
        .enumerate()
        .map(|(at, Tool::Function { name, parameters, .. })| Call {
            id: format!("call_{}_{at}", attempt.simple()),
            name: name.clone(),
            arguments: arguments::fill(parameters.as_ref().map_or("{}", |schema| schema.get()), message),
        })
        .collect()
}

/// Tools by how much of them the message speaks of, the best first; those far behind it are left out.
fn best<'t>(tools: &[&'t Tool], message: &str, must: bool) -> Vec<&'t Tool> {
    let said = words(message);
    let score = |tool: &Tool| {
        let Tool::Function { name, description, .. } = tool;
        let hits = |text: &str| {
            let mut found: Vec<String> =
                words(text).into_iter().filter(|word| said.iter().any(|s| alike(s, word))).collect();
            found.dedup();
            found.len()
        };
        3 * hits(name) + hits(description.as_deref().unwrap_or_default())
    };
    let mut scored: Vec<(usize, &Tool)> = tools.iter().map(|tool| (score(tool), *tool)).collect();
    scored.sort_by_key(|(score, _)| std::cmp::Reverse(*score));
    let most = scored.first().map_or(0, |(score, _)| *score);
    let fits: Vec<&Tool> =
        scored.iter().filter(|(score, _)| *score >= 2 && 2 * score > most).map(|(_, tool)| *tool).collect();
    match scored.first() {
        Some((_, tool)) if fits.is_empty() && must => vec![tool],
        _ => fits,
    }
}

/// Words that mean nothing by themselves.
const SMALL: &[&str] = &[
    "a", "an", "and", "are", "at", "be", "by", "can", "current", "do", "fetch", "for", "from", "function",
    "get", "given", "have", "how", "in", "is", "it", "list", "me", "my", "of", "on", "or", "please",
    "return", "returns", "set", "some", "that", "the", "this", "to", "tool", "use", "user", "was", "what",
    "which", "with", "you", "your",
];

/// Words in lower case, camelCase and snake_case taken apart.
fn words(text: &str) -> Vec<String> {
    let mut all = vec![String::new()];
    let mut before = ' ';
    for c in text.chars() {
        if !c.is_alphanumeric() || (c.is_uppercase() && before.is_lowercase()) {
            all.push(String::new());
        }
        if let Some(word) = all.last_mut().filter(|_| c.is_alphanumeric()) {
            word.extend(c.to_lowercase());
        }
        before = c;
    }
    all.retain(|word| word.len() > 1 && !SMALL.contains(&word.as_str()));
    all
}

/// Equal, or of one stem: `calculate` and `calculator`.
fn alike(a: &str, b: &str) -> bool {
    let common = a.chars().zip(b.chars()).take_while(|(a, b)| a == b).count();
    a == b || (common >= 4 && common + 3 >= a.len().max(b.len()))
}

fn in_words(conversation: &Conversation, message: &str) -> String {
    let lower = message.to_lowercase();
    let text = if !conversation.outputs.is_empty() {
        let said = conversation.outputs.iter().map(|(name, output)| format!("{name} says: {output}"));
        format!("I asked the tools. {}", said.collect::<Vec<_>>().join(" "))
    } else if is_summariser(conversation) {
        summary(conversation)
    } else if let Some(words) = asked_to_say(message) {
        words
    } else if lower.contains("summar") {
        summary(conversation)
    } else if let Some(remembered) = recall(conversation, &lower) {
        remembered
    } else if !conversation.attachments.is_empty() {
        format!("I see {}. You say: \"{}\"", conversation.attachments.join(" and "), message.trim())
    } else if message.trim().is_empty() {
        "I am the demo model. You have not said anything yet.".to_owned()
    } else {
        format!(
            "You said: \"{}\" I am the demo model: I answer without a provider, and always the same.",
            message.trim()
        )
    };
    match asked_length(&lower) {
        Some(length) => of_length(&text, length),
        None => text,
    }
}

/// "in 50 words", "exactly 3 words", "in three words".
fn asked_length(lower: &str) -> Option<usize> {
    const NUMBERS: &[&str] =
        &["one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"];
    let words: Vec<&str> =
        lower.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty()).collect();
    words.windows(2).find_map(|pair| match pair {
        [number, "word" | "words"] => match number.parse() {
            Ok(number @ 1..=20_000) => Some(number),
            _ => NUMBERS.iter().position(|name| name == number).map(|at| at + 1),
        },
        _ => None,
    })
}

fn of_length(text: &str, length: usize) -> String {
    let filler = FILLER.iter().copied().cycle();
    let mut words: Vec<&str> = text.split_whitespace().chain(filler).take(length).collect();
    let last = words.pop().unwrap_or_default().trim_end_matches(['.', ',', ':', ';', '"']).to_owned() + ".";
    words.push(&last);
    words.join(" ")
}

/// What a message asks to be said word for word: `say "x"`, `reply with exactly: x`, `repeat after me: x`.
fn asked_to_say(message: &str) -> Option<String> {
    let lower = message.to_ascii_lowercase();
    let verb = ["say ", "reply ", "repeat ", "respond ", "answer ", "echo "];
    let at = verb.iter().filter_map(|verb| lower.find(verb).map(|at| at + verb.len())).min()?;
    let rest = message.get(at..)?;
    for quote in ['"', '\'', '“', '`'] {
        let end = if quote == '“' { '”' } else { quote };
        if let Some((_, quoted)) = rest.split_once(quote)
            && let Some((quoted, _)) = quoted.split_once(end)
        {
            return Some(quoted.to_owned());
        }
    }
    let (before, said) = rest.split_once(": ")?;
    (before.split_whitespace().count() <= 5 && !said.trim().is_empty()).then(|| said.trim().to_owned())
}

/// Whether its instructions begin with that: what is said is then no request, but what is to be summarised.
fn is_summariser(conversation: &Conversation) -> bool {
    conversation.said.iter().any(|said| {
        matches!(said.role, Role::System | Role::Developer)
            && said.text.trim_start().to_lowercase().starts_with("summari")
    })
}

fn summary(conversation: &Conversation) -> String {
    let talk = conversation.said.iter().filter(|said| matches!(said.role, Role::User | Role::Assistant));
    let lines = talk.map(|said| {
        let who = if said.role == Role::User { "The user said" } else { "The model said" };
        let mut short: String = said.text.split_whitespace().take(24).collect::<Vec<_>>().join(" ");
        if said.text.split_whitespace().count() > 24 {
            short.push('…');
        }
        format!("{who}: {short}")
    });
    format!("Summary of the conversation. {}", lines.collect::<Vec<_>>().join(" "))
}

/// Answers from what was said before: "what did I say first?", "what is my name?", "what is the code?".
fn recall(conversation: &Conversation, lower: &str) -> Option<String> {
    let mut earlier: Vec<&str> = conversation.users().collect();
    earlier.pop();
    let quote = |text: &str| format!("You said: \"{}\"", text.trim());
    if lower.contains("first")
        && ["did i", "my first", "i said", "i ask"].iter().any(|words| lower.contains(words))
    {
        return earlier.first().map(|text| quote(text));
    }
    if ["did i just", "my last", "did i say", "did i tell"].iter().any(|words| lower.contains(words)) {
        return earlier.last().map(|text| quote(text));
    }
    let asks =
        ["what is ", "what's ", "what was ", "tell me ", "do you know ", "do you remember ", "recall "];
    let after =
        asks.iter().find_map(|words| lower.find(words).and_then(|at| lower.get(at + words.len()..)))?;
    let thing = ["my ", "the "].iter().find_map(|word| after.trim_start().strip_prefix(word))?;
    let thing = thing.trim_end_matches(['?', '.', '!', ' ']).split(" i ").next().unwrap_or_default().trim();
    earlier.iter().rev().find_map(|text| {
        let said = text.to_lowercase();
        let found = |words: &str| said.find(words).and_then(|at| text.get(at + words.len()..));
        let value = [" is ", " was ", ": ", " = "]
            .iter()
            .find_map(|is| found(&format!("{thing}{is}")))
            .or_else(|| {
                (thing == "name")
                    .then(|| ["call me ", "i am ", "i'm "].iter().find_map(|words| found(words)))
                    .flatten()
            })?;
        let value = value.split(['.', ',', '!', '?', '\n', ';']).next().unwrap_or_default();
        let value = value.split(" and ").next().unwrap_or_default().trim();
        (!value.is_empty() && !thing.is_empty()).then(|| format!("Your {thing} is {value}."))
    })
}
