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
        logprobs: Vec<Value>,
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
        Self::OutputText { text: text.into(), annotations: Vec::new(), logprobs: Vec::new() }
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
