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
    let mut echoed = false;
    let text = if !conversation.outputs.is_empty() {
        let said = conversation.outputs.iter().map(|(name, output)| format!("{name} says: {output}"));
        format!("I asked the tools. {}", said.collect::<Vec<_>>().join(" "))
    } else if is_summariser(conversation) {
        summary(conversation)
    } else if let Some(words) = asked_to_say(message) {
        // "Answer in 3 sentences: why …" asks something, for all its colon.
        echoed = asked_number(&lower, SENTENCE).is_some();
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
        echoed = true;
        format!(
            "You said: \"{}\" I am the demo model: I answer without a provider, and always the same.",
            message.trim()
        )
    };
    sized(text, &lower, echoed)
}

/// One sentence for each number of words, so that an answer of any length ends where a sentence does.
const SENTENCES: [&str; 8] = [
    "Hello.",
    "Hello there.",
    "All is well.",
    "I am always here.",
    "Hello from the demo model.",
    "I answer without a real provider.",
    "Each answer is the same each time.",
    "Every part of Colloquy can be tried here.",
];

const SENTENCE: &[&str] = &["sentence", "sentences"];

/// `text` at the length that is asked for. One that only echoes says nothing worth cutting: it gives way to sentences.
fn sized(text: String, lower: &str, echoed: bool) -> String {
    if let Some(number) = asked_number(lower, SENTENCE).filter(|number| echoed && *number <= 1_000) {
        return SENTENCES.iter().rev().cycle().take(number).copied().collect::<Vec<_>>().join(" ");
    }
    let Some(length) = asked_number(lower, &["word", "words"]) else { return text };
    let said: Vec<&str> = if echoed { Vec::new() } else { text.split_whitespace().take(length).collect() };
    let mut words = said.join(" ");
    if words.matches('"').count() % 2 == 1 {
        words = words.replace('"', "");
    }
    if !words.is_empty() {
        words = words.trim_end_matches(['.', ',', ':', ';', '?', '!']).to_owned() + ".";
    }
    for sentence in sentences(length - said.len()) {
        if !words.is_empty() {
            words.push(' ');
        }
        words.push_str(sentence);
    }
    words
}

/// Sentences of so many words together.
fn sentences(mut words: usize) -> Vec<&'static str> {
    let mut all = Vec::new();
    for next in [5, 8, 7, 6].into_iter().cycle() {
        let length = if words > SENTENCES.len() { next } else { words };
        let Some(sentence) = length.checked_sub(1).and_then(|at| SENTENCES.get(at)) else { break };
        all.push(*sentence);
        words -= length;
    }
    all
}

/// "in 50 words", "exactly 3 words", "in three sentences".
fn asked_number(lower: &str, units: &[&str]) -> Option<usize> {
    const NUMBERS: &[&str] =
        &["one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"];
    let words: Vec<&str> =
        lower.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty()).collect();
    words.windows(2).find_map(|pair| match pair {
        [number, unit] if units.contains(unit) => match number.parse() {
            Ok(number @ 1..=20_000) => Some(number),
            _ => NUMBERS.iter().position(|name| name == number).map(|at| at + 1),
        },
        _ => None,
    })
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
