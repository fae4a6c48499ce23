//! Reads settings as their catalogue entries declare them, collecting every mistake instead of stopping at one.

use std::cell::RefCell;
use std::time::Duration;

use secrecy::SecretString;
use url::Url;

use super::environment::Environment;
use super::mistake::Mistake;
use super::values;

/// A catalogue entry: how one environment variable is read, and what `docs/settings.md` says of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Setting {
    /// The variable, or a pattern such as `WEBHOOK_SECRET_<SOURCE>__<LABEL>`.
    pub name: &'static str,
    /// What is read when the variable is unset, in the variable's own notation.
    pub default: Option<&'static str>,
    /// What values look like: a unit, a format, the words taken.
    pub unit: &'static str,
    pub meaning: &'static str,
    /// A secret's value never reaches a log, an error or the documentation.
    pub secret: bool,
    /// When the variable must be set; empty if never.
    pub required_when: &'static str,
}

impl Setting {
    pub(super) const fn new(name: &'static str, unit: &'static str, meaning: &'static str) -> Self {
        Self { name, default: None, unit, meaning, secret: false, required_when: "" }
    }

    pub(super) const fn default(mut self, text: &'static str) -> Self {
        self.default = Some(text);
        self
    }

    pub(super) const fn secret(mut self) -> Self {
        self.secret = true;
        self
    }

    pub(super) const fn required_when(mut self, when: &'static str) -> Self {
        self.required_when = when;
        self
    }
}

/// What a variable held.
enum Raw {
    Unset,
    /// Set to something unusable; the mistake is noted.
    Refused,
    Set(String),
}

/// Reads an environment, remembering mistakes until [`Reader::mistakes`].
///
/// After a mistake the readers return a stand-in, so that one pass finds them all; the caller must ask for the
/// mistakes before using anything that was read.
pub struct Reader<'e> {
    environment: &'e dyn Environment,
    mistakes: RefCell<Vec<Mistake>>,
}

impl<'e> Reader<'e> {
    pub fn new(environment: &'e dyn Environment) -> Self {
        Self { environment, mistakes: RefCell::default() }
    }

    /// Everything noted so far.
    pub fn mistakes(self) -> Vec<Mistake> {
        self.mistakes.into_inner()
    }

    pub fn environment(&self) -> &'e dyn Environment {
        self.environment
    }

    /// Notes a mistake at `place`, a variable's name.
    pub fn mistake(&self, place: &str, problem: impl Into<String>) {
        self.mistakes.borrow_mut().push(Mistake::new(place, problem));
    }

    pub(super) fn append(&self, mistakes: Vec<Mistake>) {
        self.mistakes.borrow_mut().extend(mistakes);
    }

    fn raw(&self, name: &str) -> Raw {
        let Some(text) = self.environment.get(name) else { return Raw::Unset };
        let text = text.trim();
        if text.is_empty() {
            return Raw::Unset;
        }
        if text.starts_with("@Microsoft.KeyVault(") {
            self.mistake(
                name,
                "the Key Vault reference was not resolved; check that the secret exists and that the app's identity \
                 may read it",
            );
            return Raw::Refused;
        }
        Raw::Set(text.to_owned())
    }

    /// The variable's text, unset if it is blank, or nothing (with a mistake) if it is an unresolved reference.
    /// For names found by pattern; declared settings are read by the typed readers below.
    pub fn named(&self, name: &str) -> Option<String> {
        match self.raw(name) {
            Raw::Set(text) => Some(text),
            Raw::Unset | Raw::Refused => None,
        }
    }

    /// An optional value; `expected` completes "expected …" when `parse` refuses it.
    pub fn optional<T>(
        &self,
        setting: &Setting,
        expected: &str,
        parse: impl Fn(&str) -> Option<T>,
    ) -> Option<T> {
        let text = match self.raw(setting.name) {
            Raw::Set(text) => text,
            Raw::Unset => return setting.default.and_then(parse),
            Raw::Refused => return None,
        };
        let value = parse(&text);
        if value.is_none() {
            let shown = if setting.secret { String::new() } else { format!(", not {text:?}") };
            self.mistake(setting.name, format!("expected {expected}{shown}"));
        }
        value
    }

    /// Like [`Reader::optional`], and a mistake if it is unset; the stand-in is the type's default.
    pub fn required<T: Default>(
        &self,
        setting: &Setting,
        expected: &str,
        parse: impl Fn(&str) -> Option<T>,
    ) -> T {
        if setting.default.is_none()
            && matches!(self.environment.get(setting.name).as_deref().map(str::trim), None | Some(""))
        {
            self.mistake(setting.name, format!("is not set; expected {expected}"));
            return T::default();
        }
        self.optional(setting, expected, parse).unwrap_or_default()
    }

    pub fn text(&self, setting: &Setting) -> Option<String> {
        self.optional(setting, "text", |text| Some(text.to_owned()))
    }

    pub fn secret(&self, setting: &Setting) -> Option<SecretString> {
        self.text(setting).map(SecretString::from)
    }

    /// A time with its unit: `10s`, `5m`, `250ms`, `24h`, `90d`, or `0`.
    pub fn duration(&self, setting: &Setting) -> Duration {
        self.required(setting, values::DURATION, values::duration)
    }

    /// Like [`Reader::duration`], refusing zero.
    pub fn positive_duration(&self, setting: &Setting) -> Duration {
        self.required(setting, "a time above zero, such as 10s", |text| {
            values::duration(text).filter(|time| !time.is_zero())
        })
    }

    /// A whole number of at least `least` and at most `most`.
    pub fn number(&self, setting: &Setting, least: u64, most: u64) -> u64 {
        self.required(setting, &format!("a whole number from {least} to {most}"), |text| {
            text.parse().ok().filter(|number| (least..=most).contains(number))
        })
    }

    /// Like [`Reader::number`] for the smaller type.
    pub fn number_u32(&self, setting: &Setting, least: u32, most: u32) -> u32 {
        self.required(setting, &format!("a whole number from {least} to {most}"), |text| {
            text.parse().ok().filter(|number| (least..=most).contains(number))
        })
    }

    /// `true` or `false` (`1` and `0` are taken too).
    pub fn flag(&self, setting: &Setting) -> bool {
        self.required(setting, "true or false", values::flag)
    }

    /// One of some words.
    pub fn word<T: Copy>(&self, setting: &Setting, words: &[(&str, T)]) -> Option<T> {
        let expected = words.iter().map(|(word, _)| *word).collect::<Vec<_>>().join(", ");
        self.optional(setting, &format!("one of {expected}"), |text| {
            words.iter().find(|(word, _)| *word == text).map(|(_, value)| *value)
        })
    }

    /// An `http` or `https` address.
    pub fn url(&self, setting: &Setting) -> Option<Url> {
        self.optional(setting, "an http or https URL", values::http_url)
    }
}
