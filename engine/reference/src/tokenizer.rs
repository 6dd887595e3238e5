//! From text to tokens and back: as the `tokenizer.json` beside the weights says, or byte by byte.

use crate::error::ReferenceError;
use serde::Deserialize;
use std::path::{Path, PathBuf};
use windtunnel_tasks::tokenizer as bytes;

/// How a model reads.
#[derive(Clone, Debug)]
pub enum Tokenizer {
    /// A token per byte, as the pocket models.
    Bytes,
    /// As a file in the format of Hugging Face `tokenizers` says.
    File(Box<FromFile>),
}

/// A tokenizer from a file.
#[derive(Clone, Debug)]
pub struct FromFile {
    path: PathBuf,
    tokenizer: tokenizers::Tokenizer,
    ends: Vec<u32>,
    /// Tokens that the model knows.
    vocabulary: usize,
}

/// One token, or several.
#[derive(Deserialize)]
#[serde(untagged)]
enum Ids {
    One(u32),
    Several(Vec<u32>),
}

/// The part of `config.json` and `generation_config.json` that says where answers end.
#[derive(Deserialize)]
struct Ends {
    #[serde(default)]
    eos_token_id: Option<Ids>,
}

impl Tokenizer {
    /// The tokenizer of a model of `vocabulary` tokens: `tokenizer.json` in its folder; without one, or
    /// for a model with a name, bytes.
    ///
    /// # Errors
    /// If the file cannot be read, is none, or has tokens that the model does not know.
    pub fn of(model: &str, vocabulary: usize) -> Result<Self, ReferenceError> {
        let folder = Path::new(model);
        let path = folder.join("tokenizer.json");
        if !path.is_file() {
            return Ok(Self::Bytes);
        }
        let text = std::fs::read(&path).map_err(|error| ReferenceError::File {
            path: path.clone(),
            error,
        })?;
        let wrong = |reason: String| ReferenceError::Malformed {
            path: path.clone(),
            reason,
            remedy: "take the tokenizer.json that was published with the weights".into(),
        };
        let tokenizer = tokenizers::Tokenizer::from_bytes(&text);
        let tokenizer = tokenizer.map_err(|e| wrong(format!("it is no tokenizer ({e})")))?;
        let last = tokenizer.get_vocab(true).into_values().max();
        if let Some(last) = last.filter(|&id| id as usize >= vocabulary) {
            return Err(wrong(format!(
                "it has a token {last}, and the model knows {vocabulary}"
            )));
        }
        Ok(Self::File(Box::new(FromFile {
            ends: ends(folder),
            path,
            tokenizer,
            vocabulary,
        })))
    }

    /// A prompt's tokens, with those that a model wants before every text.
    ///
    /// # Errors
    /// If the tokenizer cannot read it, or reads tokens that the model does not know.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>, ReferenceError> {
        match self {
            Self::Bytes => Ok(std::iter::once(bytes::BOS)
                .chain(bytes::encode(text))
                .collect()),
            Self::File(file) => {
                let encoding = file.tokenizer.encode(text, true);
                let encoding = encoding.map_err(|e| file.failed(&e))?;
                // What is put before every text need not be in the vocabulary.
                let unknown = |id: &&u32| **id as usize >= file.vocabulary;
                match encoding.get_ids().iter().find(unknown) {
                    Some(id) => Err(file.failed(&format!(
                        "it reads a token {id}, and the model knows {}",
                        file.vocabulary
                    ))),
                    None => Ok(encoding.get_ids().to_vec()),
                }
            }
        }
    }

    /// The text of an answer's tokens, without those that end it.
    ///
    /// # Errors
    /// If the tokenizer cannot write them.
    pub fn decode(&self, tokens: &[u32]) -> Result<String, ReferenceError> {
        match self {
            Self::Bytes => Ok(bytes::decode(tokens)),
            Self::File(file) => {
                let text = file.tokenizer.decode(tokens, true);
                text.map_err(|e| file.failed(&e))
            }
        }
    }

    /// Whether an answer ends with this token.
    pub fn ends(&self, token: u32) -> bool {
        match self {
            Self::Bytes => token == bytes::EOS,
            Self::File(file) => file.ends.contains(&token),
        }
    }
}

impl FromFile {
    fn failed(&self, error: &dyn std::fmt::Display) -> ReferenceError {
        ReferenceError::Malformed {
            path: self.path.clone(),
            reason: error.to_string(),
            remedy: "take the tokenizer.json that was published with the weights".into(),
        }
    }
}

/// The tokens that end answers, as the files beside the weights say; none if they do not.
fn ends(folder: &Path) -> Vec<u32> {
    for name in ["generation_config.json", "config.json"] {
        let text = std::fs::read_to_string(folder.join(name)).unwrap_or_default();
        let ends = serde_json::from_str::<Ends>(&text).ok();
        match ends.and_then(|e| e.eos_token_id) {
            Some(Ids::One(id)) => return vec![id],
            Some(Ids::Several(ids)) => return ids,
            None => {}
        }
    }
    Vec::new()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Words of a small vocabulary, between blanks.
    const WORDS: &str = r#"{
        "version": "1.0",
        "added_tokens": [{"id": 0, "content": "<end>", "single_word": false, "lstrip": false,
                          "rstrip": false, "normalized": false, "special": true}],
        "pre_tokenizer": {"type": "Whitespace"},
        "model": {"type": "WordLevel", "unk_token": "?",
                  "vocab": {"<end>": 0, "?": 1, "two": 2, "words": 3}}
    }"#;

    #[test]
    fn a_file_beside_the_weights_says_how_to_read_and_else_it_is_bytes() {
        let folder = tempfile::tempdir().unwrap();
        let name = folder.path().to_string_lossy().into_owned();
        let plain = Tokenizer::of(&name, 258).unwrap();
        assert!(matches!(plain, Tokenizer::Bytes));
        assert_eq!(plain.encode("a").unwrap(), [bytes::BOS, 97]);
        assert!(plain.ends(bytes::EOS) && !plain.ends(97));
        std::fs::write(folder.path().join("tokenizer.json"), WORDS).unwrap();
        std::fs::write(
            folder.path().join("config.json"),
            r#"{"eos_token_id": [0, 7]}"#,
        )
        .unwrap();
        let words = Tokenizer::of(&name, 4).unwrap();
        assert_eq!(words.encode("two words more").unwrap(), [2, 3, 1]);
        assert_eq!(words.decode(&[2, 3, 0]).unwrap(), "two words");
        assert!(words.ends(0) && words.ends(7) && !words.ends(2));
        let error = Tokenizer::of(&name, 3).unwrap_err().to_string();
        assert!(
            error.contains("tokenizer.json") && error.contains("a token 3"),
            "{error}"
        );
        std::fs::write(folder.path().join("tokenizer.json"), "{").unwrap();
        let error = Tokenizer::of(&name, 4).unwrap_err().to_string();
        assert!(
            error.contains("tokenizer.json") && error.contains("no tokenizer"),
            "{error}"
        );
    }
}
