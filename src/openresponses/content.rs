//! The parts that messages and tool outputs are made of.

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Content as a caller writes it: one text, or parts.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
pub enum Content {
    Text(String),
    Parts(Vec<ContentPart>),
}

/// One part of a message.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum ContentPart {
    InputText {
        text: String,
    },
    OutputText {
        text: String,
        #[serde(default)]
        annotations: Vec<Value>,
        #[serde(default)]
        logprobs: Vec<LogProb>,
    },
    Refusal {
        refusal: String,
    },
    /// By URL (also a `data:` URL), or by the id of a file that the provider holds.
    InputImage {
        #[serde(default)]
        image_url: Option<String>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        file_id: Option<String>,
        #[serde(default)]
        detail: Detail,
    },
    InputFile {
        #[serde(default, skip_serializing_if = "Option::is_none")]
        filename: Option<String>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        file_data: Option<String>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        file_url: Option<String>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        file_id: Option<String>,
    },
    InputVideo {
        video_url: String,
    },
    /// Raw reasoning, in a reasoning item's `content`.
    ReasoningText {
        text: String,
    },
}

/// How likely the model held a token of its answer, and what it might have said instead.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(from = "LogProbFields")]
pub struct LogProb {
    pub token: String,
    pub logprob: f64,
    /// A token may be a part of a character, which text cannot show.
    pub bytes: Vec<u8>,
    pub top_logprobs: Vec<TopLogProb>,
}

/// One of the likeliest tokens at a position.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(from = "LogProbFields")]
pub struct TopLogProb {
    pub token: String,
    pub logprob: f64,
    pub bytes: Vec<u8>,
}

/// As providers write them: with `null` or nothing where the protocol wants a list.
#[derive(Deserialize)]
struct LogProbFields {
    token: String,
    logprob: f64,
    bytes: Option<Vec<u8>>,
    top_logprobs: Option<Vec<TopLogProb>>,
}

impl LogProbFields {
    fn bytes(&self) -> Vec<u8> {
        self.bytes.clone().unwrap_or_else(|| self.token.clone().into_bytes())
    }

    /// To nine digits: more than models compute with, and what reading JSON gives back exactly, so that an event says
    /// the same whichever process tells it.
    fn logprob(&self) -> f64 {
        const NOTHING: f64 = 1e-13;
        if self.logprob.abs() < NOTHING {
            return 0.0;
        }
        format!("{:.8e}", self.logprob).parse().unwrap_or(self.logprob)
    }
}

impl From<LogProbFields> for LogProb {
    fn from(fields: LogProbFields) -> Self {
        let (logprob, bytes) = (fields.logprob(), fields.bytes());
        Self { token: fields.token, logprob, bytes, top_logprobs: fields.top_logprobs.unwrap_or_default() }
    }
}

impl From<LogProbFields> for TopLogProb {
    fn from(fields: LogProbFields) -> Self {
        let (logprob, bytes) = (fields.logprob(), fields.bytes());
        Self { token: fields.token, logprob, bytes }
    }
}

/// How closely the model looks at an image.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Detail {
    #[default]
    Auto,
    Low,
    High,
}

impl ContentPart {
    /// Text of the model's answer.
    pub fn output_text(text: impl Into<String>) -> Self {
        Self::output_text_with(text, Vec::new())
    }

    /// The same with the log probabilities of its tokens.
    pub fn output_text_with(text: impl Into<String>, logprobs: Vec<LogProb>) -> Self {
        Self::OutputText { text: text.into(), annotations: Vec::new(), logprobs }
    }

    /// The part's text, if it is text.
    pub fn text(&self) -> Option<&str> {
        match self {
            Self::InputText { text } | Self::OutputText { text, .. } | Self::ReasoningText { text } => {
                Some(text)
            }
            Self::Refusal { refusal } => Some(refusal),
            Self::InputImage { .. } | Self::InputFile { .. } | Self::InputVideo { .. } => None,
        }
    }

    /// The value of `type`.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::InputText { .. } => "input_text",
            Self::OutputText { .. } => "output_text",
            Self::Refusal { .. } => "refusal",
            Self::InputImage { .. } => "input_image",
            Self::InputFile { .. } => "input_file",
            Self::InputVideo { .. } => "input_video",
            Self::ReasoningText { .. } => "reasoning_text",
        }
    }
}
