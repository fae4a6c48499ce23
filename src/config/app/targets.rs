//! `[targets.*]`: who receives callbacks.

use ipnet::IpNet;
use serde::Deserialize;
use url::Url;

/// One receiver of callbacks.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TargetConfig {
    pub url: String,
    /// Networks this target may lie in although they are private: `10.1.0.0/16`, `127.0.0.1/32`.
    pub allow_networks: Vec<IpNet>,
    /// Whether plain `http` is taken (only with `allow_networks`).
    pub allow_http: bool,
    /// Whether callers may name any URL below this one, too.
    pub prefix: bool,
    /// Owners whose background responses may name it; `*` for all.
    pub owners: Vec<String>,
    /// API keys that may name it, beside those whose own settings say so.
    pub keys: Vec<String>,
}

impl TargetConfig {
    /// Whether the URL names this machine: a loopback address, or `localhost`.
    pub fn is_on_this_machine(&self) -> bool {
        match Url::parse(&self.url).ok().as_ref().and_then(Url::host) {
            Some(url::Host::Ipv4(address)) => address.is_loopback(),
            Some(url::Host::Ipv6(address)) => address.is_loopback(),
            Some(url::Host::Domain(name)) => name == "localhost",
            None => false,
        }
    }

    /// Whether a URL is the target's own, or with `prefix` one below it.
    pub fn covers(&self, url: &Url) -> bool {
        let Ok(own) = Url::parse(&self.url) else { return false };
        if *url == own {
            return true;
        }
        // What a server may take for a step up or for another path than it looks.
        let path = url.path().to_ascii_lowercase();
        let odd = path.contains("%2f") || path.contains("%5c") || path.contains("%2e");
        let bare = url.username().is_empty() && url.password().is_none() && url.fragment().is_none();
        self.prefix
            && bare
            && !odd
            && url.origin() == own.origin()
            && url
                .path()
                .strip_prefix(own.path())
                .is_some_and(|rest| own.path().ends_with('/') || rest.is_empty() || rest.starts_with('/'))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_covers_what_lies_below_it_and_nothing_else() {
        let target = |url: &str, prefix| TargetConfig { url: url.into(), prefix, ..TargetConfig::default() };
        let covers = |target: &TargetConfig, url: &str| target.covers(&Url::parse(url).unwrap());
        let exact = target("https://a.invalid/hooks", false);
        assert!(covers(&exact, "https://A.invalid:443/hooks"));
        assert!(!covers(&exact, "https://a.invalid/hooks/1"));
        for below in [target("https://a.invalid/hooks", true), target("https://a.invalid/hooks/", true)] {
            for url in [
                "https://a.invalid/hooks/1",
                "https://a.invalid/hooks/1?token=x",
                "https://a.invalid/hooks/a/../b",
            ] {
                assert!(covers(&below, url), "{url}");
            }
            for url in [
                "http://a.invalid/hooks/1",
                "https://a.invalid:8443/hooks/1",
                "https://b.invalid/hooks/1",
                "https://a.invalid.evil.invalid/hooks/1",
                "https://a.invalid/hooks/../admin",
                "https://a.invalid/hooks/%2e%2e/admin",
                "https://a.invalid/hooks/..%2fadmin",
                "https://a.invalid/hooks/x%5c..",
                "https://a.invalid/hooks2",
                "https://a.invalid/",
                "https://a.invalid@b.invalid/hooks/1",
                "https://user@a.invalid/hooks/1",
            ] {
                assert!(!covers(&below, url), "{url}");
            }
        }
    }
}
