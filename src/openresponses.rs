//! The wire types of Open Responses (`openresponses-openapi.json`, version 2026-04-24), and what OpenAI's own API
//! adds around them.
//!
//! Input is read tolerantly where the protocol is loose (a message without `type`, content as a bare string) and
//! kept in one canonical form, [`Item`]: what is stored, sent to providers and shown again is the same.

mod chat;
mod content;
mod error;
mod event;
mod item;
mod parse;
mod raw;
mod request;
mod response;

pub use chat::OnlyChat;
pub use content::{Content, ContentPart, Detail, LogProb, TopLogProb};
pub use error::{ApiError, ErrorType, excerpt};
pub use event::{Dialect, Encoded, Event, Form};
pub use item::{
    Compaction, FunctionCall, FunctionCallOutput, InputItem, Item, ItemStatus, Message, Output, Phase,
    Reasoning, Resolved, Role, Summary,
};
pub use parse::parse;
pub use request::{
    AllowedTool, CompactRequest, ContextManagement, ConversationRef, CreateResponse, Effort, Include, Input,
    JsonSchema, PromptCacheOptions, ReasoningParams, SpecificTool, StreamOptions, SummaryKind, TextFormat,
    TextParams, Tool, ToolChoice, ToolMode, Truncation, Verbosity, check_metadata,
};
pub use response::{
    ConversationOf, IncompleteDetails, InputTokensDetails, OutputTokensDetails, ReasoningEcho, Response,
    ResponseError, ResponseStatus, TextEcho, Usage,
};

#[cfg(test)]
mod tests;
