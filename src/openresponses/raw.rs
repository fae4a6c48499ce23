//! Reading types that keep JSON byte for byte. Behind serde's tagged and untagged enums a value is buffered, and a
//! `RawValue` can then no longer be had; so these are read flat, and sorted afterwards.

use serde::Deserialize;
use serde_json::value::RawValue;

use super::request::{JsonSchema, TextFormat, Tool};

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum ToolKind {
    Function,
}

#[derive(Deserialize)]
pub(super) struct ToolFields {
    #[serde(rename = "type")]
    kind: ToolKind,
    name: String,
    #[serde(default)]
    description: Option<String>,
    #[serde(default)]
    parameters: Option<Box<RawValue>>,
    #[serde(default)]
    strict: Option<bool>,
}

impl From<ToolFields> for Tool {
    fn from(fields: ToolFields) -> Self {
        let ToolFields { kind: ToolKind::Function, name, description, parameters, strict } = fields;
        Self::Function { name, description, parameters, strict }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum FormatKind {
    Text,
    JsonObject,
    JsonSchema,
}

#[derive(Deserialize)]
pub(super) struct FormatFields {
    #[serde(rename = "type")]
    kind: FormatKind,
    name: Option<String>,
    description: Option<String>,
    schema: Option<Box<RawValue>>,
    strict: Option<bool>,
}

impl TryFrom<FormatFields> for TextFormat {
    type Error = &'static str;

    fn try_from(fields: FormatFields) -> Result<Self, Self::Error> {
        Ok(match fields.kind {
            FormatKind::Text => Self::Text,
            FormatKind::JsonObject => Self::JsonObject,
            FormatKind::JsonSchema => Self::JsonSchema(JsonSchema {
                name: fields.name.ok_or("missing field `name`")?,
                description: fields.description,
                schema: fields.schema.ok_or("missing field `schema`")?,
                strict: fields.strict,
            }),
        })
    }
}
