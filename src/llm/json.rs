//! JSON written straight into a buffer: a request may carry megabytes of images, which are copied once, as they are.

use serde::Serialize;

/// A JSON text under construction. Commas come by themselves; who opens must close.
#[derive(Debug)]
pub(crate) struct Json {
    out: Vec<u8>,
    comma: bool,
}

impl Json {
    /// Empty, with room for so many bytes before it has to grow.
    pub fn with_capacity(bytes: usize) -> Self {
        Self { out: Vec::with_capacity(bytes), comma: false }
    }

    /// The text; whatever was opened has to be closed by then.
    pub fn finish(self) -> Vec<u8> {
        self.out
    }

    fn separate(&mut self) {
        if std::mem::replace(&mut self.comma, true) {
            self.out.push(b',');
        }
    }

    /// `{` or `[`.
    pub fn open(&mut self, bracket: u8) -> &mut Self {
        self.separate();
        self.out.push(bracket);
        self.comma = false;
        self
    }

    /// `}` or `]`.
    pub fn close(&mut self, bracket: u8) -> &mut Self {
        self.out.push(bracket);
        self.comma = true;
        self
    }

    /// A name in an object; its value has to follow.
    pub fn key(&mut self, name: &str) -> &mut Self {
        self.value(name);
        self.out.push(b':');
        self.comma = false;
        self
    }

    /// Anything of ours; it always serialises, and a buffer takes everything.
    pub fn value<T: Serialize + ?Sized>(&mut self, value: &T) -> &mut Self {
        self.separate();
        let written = serde_json::to_writer(&mut self.out, value);
        debug_assert!(written.is_ok());
        self
    }

    /// JSON text as it stands.
    pub fn raw(&mut self, json: &str) -> &mut Self {
        self.separate();
        self.out.extend_from_slice(json.as_bytes());
        self
    }

    /// A key with its value.
    pub fn pair<T: Serialize + ?Sized>(&mut self, name: &str, value: &T) -> &mut Self {
        self.key(name).value(value)
    }

    /// The same if there is a value.
    pub fn optional<T: Serialize>(&mut self, name: &str, value: Option<T>) -> &mut Self {
        match value {
            Some(value) => self.pair(name, &value),
            None => self,
        }
    }

    /// One string of several pieces.
    pub fn joined<'t>(&mut self, pieces: impl Iterator<Item = &'t str>, between: &str) -> &mut Self {
        self.separate();
        self.out.push(b'"');
        for (at, piece) in pieces.enumerate() {
            if at > 0 {
                self.piece(between);
            }
            self.piece(piece);
        }
        self.out.push(b'"');
        self
    }

    fn piece(&mut self, text: &str) {
        let from = self.out.len();
        let written = serde_json::to_writer(&mut self.out, text);
        debug_assert!(written.is_ok());
        // Without the quotes around it.
        self.out.remove(from);
        self.out.pop();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commas_come_by_themselves() {
        let mut json = Json::with_capacity(16);
        json.open(b'{').pair("a", "x\"").key("b").open(b'[').value(&1).value(&2.5).open(b'{').close(b'}');
        json.close(b']').optional("c", None::<u8>).optional("d", Some(true)).key("e").raw("{\"k\" : 1}");
        json.key("f").joined(["a\n", "b"].into_iter(), "-").close(b'}');
        let text = String::from_utf8(json.finish()).unwrap();
        assert_eq!(text, r#"{"a":"x\"","b":[1,2.5,{}],"d":true,"e":{"k" : 1},"f":"a\n-b"}"#);
    }
}
