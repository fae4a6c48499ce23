//! What is watched: metric, who emits it, when that is an alert, and where it is shown. Alert rules and the dashboard are
//! made from this table (`function-handlers signals --json`), and `docs/operations.md` shows it.

mod rows;

use serde_json::{Value, json};

use super::{Definition, Kind, METRICS, Metric};

pub use rows::SIGNALS;

/// One row: something to look at, and perhaps to be woken for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Signal {
    /// Stable; alert rules are called so.
    pub name: &'static str,
    pub source: Source,
    pub measure: Measure,
    /// Of the levels.
    pub unit: Unit,
    pub warn: Option<Level>,
    pub critical: Option<Level>,
    /// The part of the dashboard that shows it.
    pub panel: &'static str,
    /// What it means, and what to do.
    pub meaning: &'static str,
}

/// Attribute and value, `*` for any run of characters.
pub type Narrowed = &'static [(&'static str, &'static str)];

/// Where the values come from.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Source {
    /// One of our metrics, of it the samples with these attributes.
    Ours { metric: Metric, only: Narrowed, emitter: Emitter },
    /// One of Azure Monitor's, by resource type; `of`: the metric of which it is a share.
    Platform { resource: &'static str, metric: &'static str, of: Option<&'static str> },
}

/// Which of our processes emits a metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Emitter {
    Handlers,
    Server,
    Both,
}

/// How the values of a window become one.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Measure {
    /// The highest value, or a level that is reached once.
    Highest,
    /// A level that all values of the window reach.
    Throughout,
    Average,
    /// The lowest value; its levels are reached from above, all others' from below.
    Lowest,
    /// Of a counter: what was added.
    Total,
    /// The 95th percentile of a histogram.
    P95,
    /// The share of samples with these attributes, in percent.
    Share(Narrowed),
}

/// What the levels count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    Number,
    Seconds,
    /// Of a value from 0 to 1 or of a share.
    Percent,
}

/// When somebody is told, how urgently, and how.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Level {
    /// Reached at this value, in the signal's unit.
    pub at: f64,
    /// The window that is looked at.
    pub minutes: u32,
    /// 0 (down) to 2 (look at it today).
    pub severity: u8,
    pub channel: Channel,
}

/// Who is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Channel {
    /// Whoever is on call, at any hour.
    Page,
    /// The team's channel.
    Chat,
    Mail,
}

impl Emitter {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Handlers => "function-handlers",
            Self::Server => "conversation-server",
            Self::Both => "both",
        }
    }

    /// Whether the binary of this name emits it.
    pub fn includes(self, binary: &str) -> bool {
        self == Self::Both || self.as_str() == binary
    }
}

impl Channel {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Page => "page",
            Self::Chat => "chat",
            Self::Mail => "mail",
        }
    }
}

impl Measure {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Highest => "highest",
            Self::Throughout => "throughout",
            Self::Average => "average",
            Self::Lowest => "lowest",
            Self::Total => "total",
            Self::P95 => "p95",
            Self::Share(_) => "share",
        }
    }

    fn words(self) -> String {
        match self {
            Self::Share(narrowed) => format!("share of {}", braces(narrowed)),
            other => other.as_str().to_owned(),
        }
    }
}

impl Unit {
    fn write(self, at: f64) -> String {
        match self {
            Self::Number => format!("{at}"),
            Self::Seconds => format!("{at} s"),
            Self::Percent => format!("{at} %"),
        }
    }

    const fn as_str(self) -> &'static str {
        match self {
            Self::Number => "number",
            Self::Seconds => "seconds",
            Self::Percent => "percent",
        }
    }
}

impl Signal {
    const fn ours(
        name: &'static str,
        (metric, emitter): (Metric, Emitter),
        measure: Measure,
        panel: &'static str,
        meaning: &'static str,
    ) -> Self {
        let source = Source::Ours { metric, only: &[], emitter };
        Self { name, source, measure, unit: Unit::Number, warn: None, critical: None, panel, meaning }
    }

    const fn platform(
        name: &'static str,
        (resource, metric): (&'static str, &'static str),
        measure: Measure,
        panel: &'static str,
        meaning: &'static str,
    ) -> Self {
        let source = Source::Platform { resource, metric, of: None };
        Self { name, source, measure, unit: Unit::Percent, warn: None, critical: None, panel, meaning }
    }

    const fn only(mut self, narrowed: Narrowed) -> Self {
        if let Source::Ours { metric, emitter, .. } = self.source {
            self.source = Source::Ours { metric, only: narrowed, emitter };
        }
        self
    }

    const fn of(mut self, whole: &'static str) -> Self {
        if let Source::Platform { resource, metric, .. } = self.source {
            self.source = Source::Platform { resource, metric, of: Some(whole) };
        }
        self
    }

    const fn unit(mut self, unit: Unit) -> Self {
        self.unit = unit;
        self
    }

    const fn warn(mut self, at: f64, minutes: u32, channel: Channel) -> Self {
        self.warn = Some(Level { at, minutes, severity: 2, channel });
        self
    }

    const fn critical(mut self, at: f64, minutes: u32, severity: u8, channel: Channel) -> Self {
        self.critical = Some(Level { at, minutes, severity, channel });
        self
    }

    /// Our metric, if it is one of ours.
    pub fn metric(&self) -> Option<&'static Definition> {
        match self.source {
            Source::Ours { metric, .. } => Some(metric.definition()),
            Source::Platform { .. } => None,
        }
    }

    fn what(&self) -> String {
        match self.source {
            Source::Ours { metric, only, .. } => format!("`{}{}`", metric.definition().name, braces(only)),
            Source::Platform { resource, metric, of: None } => format!("`{metric}` of `{resource}`"),
            Source::Platform { resource, metric, of: Some(whole) } => {
                format!("`{metric}` per `{whole}` of `{resource}`")
            }
        }
    }

    fn emitter(&self) -> &'static str {
        match self.source {
            Source::Ours { emitter, .. } => emitter.as_str(),
            Source::Platform { .. } => "the platform",
        }
    }
}

fn braces(narrowed: Narrowed) -> String {
    if narrowed.is_empty() {
        return String::new();
    }
    let pairs: Vec<String> = narrowed.iter().map(|(name, value)| format!("{name}={value}")).collect();
    format!("{{{}}}", pairs.join(","))
}

/// The table as programs read it.
pub fn signals_json() -> Value {
    let level = |level: Option<Level>| {
        level.map(|level| {
            json!({
                "at": level.at, "minutes": level.minutes, "severity": level.severity,
                "channel": level.channel.as_str(),
            })
        })
    };
    let narrowed = |pairs: Narrowed| -> Value {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), Value::from(*value))).collect()
    };
    let signals: Vec<Value> = SIGNALS
        .iter()
        .map(|signal| {
            let matching = match signal.measure {
                Measure::Share(matching) => Some(narrowed(matching)),
                _ => None,
            };
            let source = match signal.source {
                Source::Ours { metric, only, .. } => {
                    json!({ "metric": metric.definition().name, "only": narrowed(only) })
                }
                Source::Platform { resource, metric, of } => {
                    json!({ "resource": resource, "metric": metric, "of": of })
                }
            };
            json!({
                "name": signal.name, "source": source, "emitter": signal.emitter(),
                "measure": signal.measure.as_str(),
                "matching": matching, "unit": signal.unit.as_str(), "warn": level(signal.warn),
                "critical": level(signal.critical), "panel": signal.panel, "meaning": signal.meaning,
            })
        })
        .collect();
    let metrics: Vec<Value> = METRICS
        .iter()
        .map(|metric| {
            let kind = match metric.kind {
                Kind::Counter => "counter",
                Kind::Gauge => "gauge",
                Kind::Histogram(_) => "histogram",
            };
            json!({ "name": metric.name, "kind": kind, "unit": metric.unit, "attributes": metric.attributes })
        })
        .collect();
    json!({ "signals": signals, "metrics": metrics })
}

/// The table in `docs/operations.md`: first what alerts, then what is only shown.
pub fn signals_markdown() -> String {
    let mut page = String::from(
        "| signal | what | from | measured | warn | critical | panel | what it means, what to do |\n\
         |---|---|---|---|---|---|---|---|\n",
    );
    let (alerts, shown): (Vec<&Signal>, Vec<&Signal>) =
        SIGNALS.iter().partition(|signal| signal.warn.or(signal.critical).is_some());
    for signal in alerts {
        let level = |level: Option<Level>| {
            level.map_or_else(String::new, |level| {
                let Level { at, minutes, severity, channel } = level;
                format!("{} in {minutes} min; Sev {severity}, {}", signal.unit.write(at), channel.as_str())
            })
        };
        page.push_str(&format!(
            "| {} | {} | {} | {} | {} | {} | {} | {} |\n",
            signal.name,
            signal.what(),
            signal.emitter(),
            signal.measure.words(),
            level(signal.warn),
            level(signal.critical),
            signal.panel,
            signal.meaning
        ));
    }
    page.push_str("\nOnly shown:\n\n| panel | what |\n|---|---|\n");
    let mut panels: Vec<&str> = shown.iter().map(|signal| signal.panel).collect();
    panels.sort_unstable();
    panels.dedup();
    for panel in panels {
        let what: Vec<String> =
            shown.iter().filter(|signal| signal.panel == panel).map(|signal| signal.what()).collect();
        page.push_str(&format!("| {panel} | {} |\n", what.join(", ")));
    }
    page
}

#[cfg(test)]
mod tests;
