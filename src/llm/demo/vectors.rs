//! Embeddings that mean something small: texts that share words lie near each other.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use sha2::{Digest as _, Sha256};

use super::super::error::LlmError;
use super::super::json::Json;
use super::tokens;

const DIMENSIONS: usize = 256;

#[derive(Deserialize)]
#[serde(untagged)]
enum Input {
    Text(String),
    Texts(Vec<String>),
    Tokens(Vec<u64>),
    TokenLists(Vec<Vec<u64>>),
}

/// The answer to an embeddings request; the arguments are the request's fields as JSON.
pub(crate) fn embeddings(
    input: &str,
    dimensions: Option<&str>,
    encoding: Option<&str>,
) -> Result<Vec<u8>, LlmError> {
    let words = |tokens: &[u64]| tokens.iter().map(|token| format!("{token} ")).collect::<String>();
    let texts = match serde_json::from_str(input) {
        Ok(Input::Text(text)) => vec![text],
        Ok(Input::Texts(texts)) => texts,
        Ok(Input::Tokens(tokens)) => vec![words(&tokens)],
        Ok(Input::TokenLists(lists)) => lists.iter().map(|tokens| words(tokens)).collect(),
        Err(_) => {
            return Err(LlmError::refused(
                "input",
                "Invalid 'input': expected a text, texts, or lists of tokens.",
            ));
        }
    };
    let dimensions = match dimensions.map(str::parse::<usize>) {
        None => DIMENSIONS,
        Some(Ok(number @ 1..=4_096)) => number,
        Some(_) => return Err(LlmError::refused("dimensions", "Invalid 'dimensions': expected 1 to 4096.")),
    };
    let count: u64 = texts.iter().map(|text| tokens::count(text)).sum();
    let mut json = Json::with_capacity(texts.len() * dimensions * 12);
    json.open(b'{').pair("object", "list").key("data").open(b'[');
    for (index, text) in texts.iter().enumerate() {
        let vector = vector(text, dimensions);
        json.open(b'{').pair("object", "embedding").pair("index", &index);
        if encoding == Some("\"base64\"") {
            let bytes: Vec<u8> = vector.iter().flat_map(|number| number.to_le_bytes()).collect();
            json.pair("embedding", &STANDARD.encode(bytes));
        } else {
            json.pair("embedding", &vector);
        }
        json.close(b'}');
    }
    json.close(b']').pair("model", "demo").key("usage").open(b'{');
    json.pair("prompt_tokens", &count).pair("total_tokens", &count).close(b'}').close(b'}');
    Ok(json.finish())
}

fn vector(text: &str, dimensions: usize) -> Vec<f32> {
    let mut vector = vec![0f32; dimensions];
    // So that the empty text has a direction too.
    let words = text.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty()).chain([""]);
    for word in words {
        let hash = Sha256::digest(word.to_lowercase().as_bytes());
        for pair in hash.chunks_exact(4) {
            let place = u32::from_le_bytes([pair[0], pair[1], pair[2], 0]) as usize % dimensions;
            if let Some(number) = vector.get_mut(place) {
                *number += if pair[3] & 1 == 0 { 1.0 } else { -1.0 };
            }
        }
    }
    let length = vector.iter().map(|number| number * number).sum::<f32>().sqrt().max(f32::MIN_POSITIVE);
    vector.iter_mut().for_each(|number| *number /= length);
    vector
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_that_share_words_lie_near_each_other() {
        let near =
            |a: &str, b: &str| -> f32 { vector(a, 256).iter().zip(vector(b, 256)).map(|(a, b)| a * b).sum() };
        assert!((near("a red car", "a red car") - 1.0).abs() < 1e-5);
        assert!(near("a red car", "the red car drives") > near("a red car", "quantum field theory") + 0.2);
    }

    #[test]
    fn every_form_of_input_and_both_encodings() {
        let parsed = |input: &str, dimensions, encoding| {
            let body = embeddings(input, dimensions, encoding).unwrap();
            serde_json::from_slice::<serde_json::Value>(&body).unwrap()
        };
        assert_eq!(parsed("\"a b\"", Some("8"), None)["data"][0]["embedding"].as_array().unwrap().len(), 8);
        let two = parsed("[\"a\", \"b\"]", None, Some("\"base64\""));
        assert_eq!(
            (two["data"][1]["index"].as_u64(), two["usage"]["total_tokens"].as_u64()),
            (Some(1), Some(2))
        );
        let bytes = STANDARD.decode(two["data"][0]["embedding"].as_str().unwrap()).unwrap();
        assert_eq!(bytes.len(), 1_024);
        assert_eq!(parsed("[1, 2]", None, None)["data"].as_array().unwrap().len(), 1);
        assert_eq!(parsed("[[1], [2]]", None, None)["data"].as_array().unwrap().len(), 2);
        assert!(embeddings("{}", None, None).is_err() && embeddings("\"x\"", Some("0"), None).is_err());
    }
}
