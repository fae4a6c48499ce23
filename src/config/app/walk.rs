//! Walks a parsed `colloquy.toml` along its [`Shape`], noting every mistake with its path and position.

use std::collections::BTreeMap;
use std::ops::Range;

use serde_json::{Map, Value};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::distance::distance;
use super::models::micros;
use super::places::{self, Place, position};
use super::shape::{Form, Key, Shape};
use super::substitute::{Problem, Text, substitute};
use crate::config::{Environment, Mistake};

/// Collects mistakes, and remembers where each path stands.
pub(super) struct Walk<'a> {
    text: &'a str,
    environment: Option<&'a dyn Environment>,
    places: BTreeMap<String, Range<usize>>,
    /// Where the values of these places stand.
    values: BTreeMap<String, Range<usize>>,
    pub mistakes: Vec<Mistake>,
    /// Variables without a value that only a process which uses models needs.
    pub unset_for_models: Vec<Mistake>,
}

impl<'a> Walk<'a> {
    pub(super) fn new(text: &'a str, environment: Option<&'a dyn Environment>) -> Self {
        Self {
            text,
            environment,
            places: BTreeMap::new(),
            values: BTreeMap::new(),
            mistakes: Vec::new(),
            unset_for_models: Vec::new(),
        }
    }

    /// Notes a mistake at a path that was walked, or at the nearest table around it.
    pub(super) fn mistake(&mut self, path: &str, problem: impl Into<String>) {
        let mut nearest = path;
        let span = loop {
            if let Some(span) = self.places.get(nearest) {
                break Some(span.clone());
            }
            match nearest.rfind(['.', '[']) {
                Some(at) => nearest = &nearest[..at],
                None => break None,
            }
        };
        self.note(path, span, problem);
    }

    /// Whether the file has something at a path.
    pub(super) fn has(&self, path: &str) -> bool {
        self.values.contains_key(path)
    }

    /// Notes a mistake inside a text: `at` bytes from the beginning of `text`, which is the value at `path`.
    pub(super) fn mistake_in(&mut self, path: &str, text: &str, at: Option<usize>, problem: &str) {
        let Some(at) = at else { return self.mistake(path, problem) };
        let value = self.values.get(path).cloned();
        match value.and_then(|value| places::in_file(self.text, value, self.environment, text, at)) {
            Some(found) => self.note(path, Some(found..found), problem),
            None => {
                let (line, column) = position(text, at);
                self.mistake(path, format!("{}: {problem}", Place::Text(line, column)));
            }
        }
    }

    pub(super) fn note(&mut self, path: &str, span: Option<Range<usize>>, problem: impl Into<String>) {
        let mistake = self.at(path, span, problem);
        self.mistakes.push(mistake);
    }

    fn at(&self, path: &str, span: Option<Range<usize>>, problem: impl Into<String>) -> Mistake {
        let position = span.map(|span| position(self.text, span.start));
        Mistake { place: path.to_owned(), position, problem: problem.into() }
    }

    /// Notes what is wrong with a string. `true` if the rest of the file can be read all the same: what is missing is
    /// for models.
    fn unusable(&mut self, path: &str, span: &Range<usize>, problems: Vec<Problem>) -> bool {
        let for_models = ["deployments.", "models.", "budgets."].iter().any(|table| path.starts_with(table));
        let mut readable = true;
        for problem in problems {
            match problem {
                Problem::Unset(problem) if for_models => {
                    let mistake = self.at(path, Some(span.clone()), problem);
                    self.unset_for_models.push(mistake);
                }
                Problem::Form(problem) | Problem::Unset(problem) => {
                    readable = false;
                    self.note(path, Some(span.clone()), problem);
                }
            }
        }
        readable
    }

    /// The table's values as JSON, those left out that are not as they should be.
    pub(super) fn table(
        &mut self,
        path: &str,
        span: Range<usize>,
        table: &DeTable<'_>,
        keys: &'static [Key],
    ) -> Map<String, Value> {
        self.places.insert(path.to_owned(), span.clone());
        let mut out = Map::new();
        for (name, value) in table {
            let place = join(path, name.get_ref());
            let Some(key) = keys.iter().find(|key| key.name == name.get_ref().as_ref()) else {
                let problem = unknown("key", name.get_ref(), keys.iter().map(|key| key.name));
                self.note(&place, Some(name.span()), problem);
                continue;
            };
            self.places.insert(place.clone(), name.span());
            self.values.insert(place.clone(), value.span());
            if let Some(value) = self.value(&place, value, &key.shape) {
                out.insert(key.name.to_owned(), value);
            }
        }
        for key in keys.iter().filter(|key| key.required) {
            if !table.keys().any(|name| name.get_ref().as_ref() == key.name) {
                self.note(
                    &join(path, key.name),
                    Some(span.clone()),
                    format!("is missing; expected {}", expected(&key.shape)),
                );
            }
        }
        out
    }

    fn value(&mut self, path: &str, value: &Spanned<DeValue<'_>>, shape: &'static Shape) -> Option<Value> {
        let span = value.span();
        match (shape, value.get_ref()) {
            (Shape::Any, any) => self.any(path, span, any),
            (Shape::Table(keys), DeValue::Table(table)) => Some(self.table(path, span, table, keys).into()),
            (Shape::Named(form, keys), DeValue::Table(table)) => {
                Some(self.named(path, table, form, keys).into())
            }
            (Shape::Texts(of), DeValue::Table(table)) => Some(self.texts(path, table, of).into()),
            (Shape::Choice(choices), DeValue::Table(table)) => self.choice(path, span, table, choices),
            (Shape::Choice(choices), DeValue::String(word)) => self.bare_choice(path, span, word, choices),
            (Shape::List(of), DeValue::Array(items)) => {
                let each = items.iter().enumerate();
                Some(each.filter_map(|(at, item)| self.value(&format!("{path}[{at}]"), item, of)).collect())
            }
            (Shape::Flag, DeValue::Boolean(flag)) => Some((*flag).into()),
            (Shape::Whole(least, most), DeValue::Integer(number)) => {
                let number = u64::from_str_radix(number.as_str(), number.radix()).ok();
                let number = number.filter(|number| (least..=most).contains(&number));
                if number.is_none() {
                    self.note(path, Some(span), format!("expected {}", expected(shape)));
                }
                number.map(Value::from)
            }
            (Shape::Money, DeValue::Float(number)) => self.money(path, span, number.as_str()),
            (Shape::Money, DeValue::Integer(number)) if number.radix() == 10 => {
                self.money(path, span, number.as_str())
            }
            (Shape::Table(_) | Shape::Named(..) | Shape::Texts(_) | Shape::List(_), _) => {
                self.refuse(path, span, shape)
            }
            (_, DeValue::String(text)) => self.string(path, span, text, shape),
            _ => self.refuse(path, span, shape),
        }
    }

    fn refuse(&mut self, path: &str, span: Range<usize>, shape: &Shape) -> Option<Value> {
        self.note(path, Some(span), format!("expected {}", expected(shape)));
        None
    }

    fn money(&mut self, path: &str, span: Range<usize>, text: &str) -> Option<Value> {
        let amount = micros(text).map(Value::from);
        if amount.is_none() {
            self.note(path, Some(span), format!("expected {}", expected(&Shape::Money)));
        }
        amount
    }

    fn named(
        &mut self,
        path: &str,
        table: &DeTable<'_>,
        form: &Form,
        keys: &'static [Key],
    ) -> Map<String, Value> {
        let mut out = Map::new();
        for (name, value) in table {
            let place = join(path, name.get_ref());
            if !(form.fits)(name.get_ref()) {
                self.note(&place, Some(name.span()), format!("expected a name of {}", form.expected));
            }
            match value.get_ref() {
                DeValue::Table(inner) => {
                    let inner = self.table(&place, name.span(), inner, keys);
                    out.insert(name.get_ref().to_string(), inner.into());
                }
                _ => self.note(
                    &place,
                    Some(value.span()),
                    format!("expected a table [{path}.{}]", name.get_ref()),
                ),
            }
        }
        out
    }

    fn texts(&mut self, path: &str, table: &DeTable<'_>, of: &'static Shape) -> Map<String, Value> {
        let each = table.iter().filter_map(|(name, value)| {
            let place = join(path, name.get_ref());
            self.places.insert(place.clone(), name.span());
            Some((name.get_ref().to_string(), self.value(&place, value, of)?))
        });
        each.collect()
    }

    fn choice(
        &mut self,
        path: &str,
        span: Range<usize>,
        table: &DeTable<'_>,
        choices: &'static [(&'static str, &'static [Key])],
    ) -> Option<Value> {
        let mut entries = table.iter();
        let (Some((word, value)), None) = (entries.next(), entries.next()) else {
            self.note(
                path,
                Some(span),
                format!("expected one of {}", words(choices.iter().map(|(word, _)| *word))),
            );
            return None;
        };
        let place = join(path, word.get_ref());
        let Some((word, keys)) = choices.iter().find(|(known, _)| *known == word.get_ref().as_ref()) else {
            let problem = unknown("choice", word.get_ref(), choices.iter().map(|(word, _)| *word));
            self.note(&place, Some(word.span()), problem);
            return None;
        };
        let DeValue::Table(inner) = value.get_ref() else {
            self.note(&place, Some(value.span()), "expected a table");
            return None;
        };
        let inner = self.table(&place, value.span(), inner, keys);
        Some(Map::from_iter([((*word).to_owned(), Value::from(inner))]).into())
    }

    fn bare_choice(
        &mut self,
        path: &str,
        span: Range<usize>,
        word: &str,
        choices: &'static [(&'static str, &'static [Key])],
    ) -> Option<Value> {
        match choices.iter().find(|(known, _)| *known == word) {
            Some((word, keys)) if keys.iter().all(|key| !key.required) => {
                Some(Map::from_iter([((*word).to_owned(), Map::new().into())]).into())
            }
            Some((word, keys)) => {
                let needed = words(keys.iter().filter(|key| key.required).map(|key| key.name));
                self.note(path, Some(span), format!("{word} needs {needed}; write it as a table"));
                None
            }
            None => {
                let problem = unknown("choice", word, choices.iter().map(|(word, _)| *word));
                self.note(path, Some(span), problem);
                None
            }
        }
    }

    /// A string where `shape` wants one, or where it wants a number or flag and the environment supplied it.
    fn string(&mut self, path: &str, span: Range<usize>, text: &str, shape: &'static Shape) -> Option<Value> {
        let text = match substitute(text, self.environment) {
            Ok(text) => text,
            Err(problems) => return self.unusable(path, &span, problems).then(|| stand_in(shape)),
        };
        let from_environment = !matches!(text, Text::Literal(_));
        let text = match text {
            Text::Open => return Some(stand_in(shape)),
            Text::Literal(text) | Text::Substituted(text) => text,
        };
        let value = match shape {
            Shape::Text => (!text.is_empty()).then(|| Value::from(text.clone())),
            Shape::Form(form) => (form.fits)(&text).then(|| Value::from(text.clone())),
            Shape::Words(known) => known.contains(&text.as_str()).then(|| Value::from(text.clone())),
            Shape::Whole(least, most) if from_environment => {
                text.parse::<u64>().ok().filter(|number| (least..=most).contains(&number)).map(Value::from)
            }
            Shape::Money => micros(&text).map(Value::from),
            Shape::Flag if from_environment => crate::config::values::flag(&text).map(Value::from),
            _ => None,
        };
        if value.is_none() {
            let problem = match shape {
                _ if from_environment => format!("the value from the environment is not {}", expected(shape)),
                Shape::Words(known) => unknown("word", &text, known.iter().copied()),
                _ => format!("expected {}", expected(shape)),
            };
            self.note(path, Some(span), problem);
        }
        value
    }

    fn any(&mut self, path: &str, span: Range<usize>, value: &DeValue<'_>) -> Option<Value> {
        match value {
            DeValue::String(text) => match substitute(text, self.environment) {
                Ok(Text::Literal(text) | Text::Substituted(text)) => Some(text.into()),
                Ok(Text::Open) => Some(text.as_ref().into()),
                Err(problems) => self.unusable(path, &span, problems).then(|| text.as_ref().into()),
            },
            DeValue::Boolean(flag) => Some((*flag).into()),
            DeValue::Datetime(time) => Some(time.to_string().into()),
            DeValue::Integer(number) => match i64::from_str_radix(number.as_str(), number.radix()) {
                Ok(number) => Some(number.into()),
                Err(_) => {
                    self.note(path, Some(span), "expected a number of at most 64 bits");
                    None
                }
            },
            DeValue::Float(number) => {
                match number.as_str().parse::<f64>().ok().and_then(serde_json::Number::from_f64) {
                    Some(number) => Some(number.into()),
                    None => {
                        self.note(path, Some(span), "expected a finite number");
                        None
                    }
                }
            }
            DeValue::Array(items) => {
                let each = items.iter().enumerate();
                Some(
                    each.filter_map(|(at, item)| {
                        self.any(&format!("{path}[{at}]"), item.span(), item.get_ref())
                    })
                    .collect(),
                )
            }
            DeValue::Table(table) => {
                let each = table.iter();
                let entries = each.filter_map(|(name, value)| {
                    let inner = self.any(&join(path, name.get_ref()), value.span(), value.get_ref())?;
                    Some((name.get_ref().to_string(), inner))
                });
                Some(entries.collect::<Map<_, _>>().into())
            }
        }
    }
}

pub(super) fn place_in_route(
    (file, environment): (&str, Option<&dyn Environment>),
    route: usize,
    key: &str,
    inside: Option<(&str, usize)>,
) -> Option<Place> {
    let value = || {
        let document = DeTable::parse(file).ok()?;
        let route = document.get_ref().get("routes")?.get_ref().as_array()?.get(route)?;
        Some(route.get_ref().as_table()?.get(key)?.span())
    };
    let in_text = |(text, at)| {
        let (line, column) = position(text, at);
        Place::Text(line, column)
    };
    let Some(value) = value() else { return inside.map(in_text) };
    let found = match inside {
        None => Some(value.start),
        Some((text, at)) => places::in_file(file, value, environment, text, at),
    };
    match found {
        Some(at) => {
            let (line, column) = position(file, at);
            Some(Place::File(line, column))
        }
        None => inside.map(in_text),
    }
}

fn join(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
}

fn expected(shape: &Shape) -> String {
    match shape {
        Shape::Text => "text".to_owned(),
        Shape::Form(form) => form.expected.to_owned(),
        Shape::Words(known) => format!("one of {}", words(known.iter().copied())),
        Shape::Whole(least, most) => format!("a whole number from {least} to {most}"),
        Shape::Flag => "true or false".to_owned(),
        Shape::List(of) => format!("a list, each of it {}", expected(of)),
        Shape::Table(_) => "a table".to_owned(),
        Shape::Named(..) => "tables by name".to_owned(),
        Shape::Texts(of) => format!("a table, each value of it {}", expected(of)),
        Shape::Money => "an amount such as \"2.50\", not negative, with at most six places".to_owned(),
        Shape::Choice(choices) => format!("one of {}", words(choices.iter().map(|(word, _)| *word))),
        Shape::Any => "a value".to_owned(),
    }
}

/// Stands for a text that the environment has a part in, where there is no environment to ask.
pub(super) const STAND_IN: &str = "from-the-environment";

fn stand_in(shape: &Shape) -> Value {
    match shape {
        Shape::Form(form) => form.stand_in.into(),
        Shape::Words(known) => known.first().copied().into(),
        Shape::Whole(least, _) => (*least).into(),
        Shape::Flag => false.into(),
        Shape::Money => 0.into(),
        _ => STAND_IN.into(),
    }
}

fn words<'w>(known: impl Iterator<Item = &'w str>) -> String {
    known.collect::<Vec<_>>().join(", ")
}

/// "is no known key", with the likeliest thing meant.
fn unknown<'w>(what: &str, given: &str, known: impl Iterator<Item = &'w str> + Clone) -> String {
    let nearest = known.clone().map(|word| (distance(given, word), word)).min();
    match nearest {
        Some((distance, word)) if distance <= 2.max(given.len() / 4) && distance < word.len() => {
            format!("{given:?} is no known {what}; did you mean {word}?")
        }
        _ => format!("{given:?} is no known {what}; there are {}", words(known)),
    }
}
