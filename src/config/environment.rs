//! Where settings come from: the process's environment, or a map in tests.

use std::collections::BTreeMap;

/// A source of named texts. Blank values count as unset, since portals and scripts leave them behind.
pub trait Environment: Send + Sync {
    /// The value of `name`, as it stands.
    fn get(&self, name: &str) -> Option<String>;

    /// Every name that has a value, in order.
    fn names(&self) -> Vec<String>;
}

/// The environment this process was started with.
#[derive(Clone, Copy, Debug, Default)]
pub struct ProcessEnvironment;

#[expect(clippy::disallowed_methods, reason = "this is where the environment is read")]
impl Environment for ProcessEnvironment {
    fn get(&self, name: &str) -> Option<String> {
        std::env::var_os(name).map(|value| value.to_string_lossy().into_owned())
    }

    fn names(&self) -> Vec<String> {
        let mut names: Vec<String> =
            std::env::vars_os().filter_map(|(name, _)| name.into_string().ok()).collect();
        names.sort_unstable();
        names
    }
}

/// An environment with one value in the place of its own.
pub struct Replaced<'a> {
    pub environment: &'a dyn Environment,
    pub name: &'static str,
    pub value: String,
}

impl Environment for Replaced<'_> {
    fn get(&self, name: &str) -> Option<String> {
        if name == self.name { Some(self.value.clone()) } else { self.environment.get(name) }
    }

    fn names(&self) -> Vec<String> {
        let mut names = self.environment.names();
        names.push(self.name.to_owned());
        names.sort_unstable();
        names.dedup();
        names
    }
}

impl Environment for BTreeMap<String, String> {
    fn get(&self, name: &str) -> Option<String> {
        BTreeMap::get(self, name).cloned()
    }

    fn names(&self) -> Vec<String> {
        self.keys().cloned().collect()
    }
}

/// An environment of fixed pairs, for tests and for `check` without one.
pub fn fixed<const N: usize>(pairs: [(&str, &str); N]) -> BTreeMap<String, String> {
    pairs.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}
