//! Who is told of a background turn's end: whom the request names, as far as its caller may, else the default of its key.

use std::collections::BTreeMap;
use std::time::Duration;

use url::Url;

use crate::access::Principal;
use crate::azure::Queue;
use crate::config::app::TargetConfig;
use crate::database::turns::Callback;
use crate::events::message::{self, Hint};
use crate::ids::CallbackId;
use crate::openresponses::{ApiError, CreateResponse, excerpt};

/// The targets of `colloquy.toml`, and where hints at callbacks go.
#[derive(Clone)]
pub struct Callbacks {
    targets: BTreeMap<String, TargetConfig>,
    queue: Option<Queue>,
}

impl Callbacks {
    /// Without a queue, upkeep alone hints at callbacks.
    pub fn new(targets: BTreeMap<String, TargetConfig>, queue: Option<Queue>) -> Self {
        Self { targets, queue }
    }

    /// Who is told of the end of the turn that this request begins. Errors: 400 on `callback`.
    pub fn of(&self, who: &Principal, request: &CreateResponse) -> Result<Option<Callback>, ApiError> {
        if request.background != Some(true) {
            return Ok(None);
        }
        let found = match (&request.callback, &who.limits.callback) {
            (Some(asked), _) => self.find(asked, |name, target| may_name(who, name, target))?,
            (None, Some(default)) => self.find(default, |_, _| true).map_err(|error| {
                let message =
                    format!("The default callback of this API key cannot be used. {}", error.message);
                ApiError { message, ..error }
            })?,
            (None, None) => return Ok(None),
        };
        Ok(Some(found))
    }

    fn find(&self, asked: &str, allowed: impl Fn(&str, &TargetConfig) -> bool) -> Result<Callback, ApiError> {
        let mut named = self.targets.iter().filter(|(name, target)| allowed(name, target));
        if !asked.contains("://") {
            return match named.find(|(name, _)| *name == asked) {
                Some((name, _)) => Ok(Callback { target: name.clone(), url: None }),
                None => Err(refused(format!(
                    "Invalid 'callback': there is no target '{}' that you may name. An operator allows it by `keys` or \
                     `owners` of the target in colloquy.toml, or by `callback_targets` of your API key.",
                    excerpt(asked)
                ))),
            };
        }
        let url =
            Url::parse(asked).map_err(|_| refused("Invalid 'callback': this is not a URL.".to_owned()))?;
        // Of several the one that says most of it.
        let covering =
            named.filter(|(_, target)| target.covers(&url)).max_by_key(|(_, target)| target.url.len());
        let Some((name, target)) = covering else {
            return Err(refused(
                "Invalid 'callback': the URL lies below none that you may name. An operator allows it by a target with \
                 `prefix = true` in colloquy.toml; URLs have no user, no fragment and no encoded dots or slashes."
                    .to_owned(),
            ));
        };
        let own = Url::parse(&target.url).is_ok_and(|own| own == url);
        Ok(Callback { target: name.clone(), url: (!own).then(|| url.into()) })
    }

    /// Hints at a callback that was written down. A hint that is lost is sent again by upkeep.
    pub async fn hint(&self, id: CallbackId) {
        let Some(queue) = &self.queue else { return };
        // Our own type: an id and a number. It serialises.
        let text = message::encode(&Hint::new(id)).unwrap_or_default();
        if let Err(error) = queue.put(&text, Duration::ZERO).await {
            tracing::warn!(code = "hint_not_sent", %error, %id, "a hint could not be sent; `maintain` sends it again");
        }
    }
}

fn may_name(who: &Principal, name: &str, target: &TargetConfig) -> bool {
    let key = !who.is_token && target.keys.contains(&who.key);
    let owner = target.owners.iter().any(|owner| owner == "*" || *owner == who.owner);
    key || owner
        || who.limits.callback_targets.iter().any(|allowed| allowed == name)
        || who.limits.callback.as_deref() == Some(name)
}

fn refused(message: String) -> ApiError {
    ApiError::invalid_value("callback", message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::KeyLimits;

    fn callbacks() -> Callbacks {
        let target = |url: &str, prefix, owners: &[&str], keys: &[&str]| TargetConfig {
            url: url.to_owned(),
            prefix,
            owners: owners.iter().map(|&owner| owner.to_owned()).collect(),
            keys: keys.iter().map(|&key| key.to_owned()).collect(),
            ..TargetConfig::default()
        };
        let targets = [
            ("nobodys", target("https://a.invalid/nobodys", false, &[], &[])),
            ("owned", target("https://a.invalid/owned", false, &["ann"], &[])),
            ("keyed", target("https://a.invalid/keyed", false, &[], &["k1"])),
            ("anybodys", target("https://b.invalid/", true, &["*"], &[])),
            ("deeper", target("https://b.invalid/deep/", true, &["*"], &[])),
        ];
        Callbacks::new(targets.map(|(name, target)| (name.to_owned(), target)).into(), None)
    }

    fn who(owner: &str, key: &str, limits: KeyLimits) -> Principal {
        Principal { owner: owner.into(), key: key.into(), limits, ..Principal::default() }
    }

    fn asked(callback: Option<&str>) -> CreateResponse {
        CreateResponse {
            background: Some(true),
            callback: callback.map(str::to_owned),
            ..CreateResponse::default()
        }
    }

    fn found(who: &Principal, callback: Option<&str>) -> Option<(String, Option<String>)> {
        let found = callbacks().of(who, &asked(callback)).ok()??;
        Some((found.target, found.url))
    }

    #[test]
    fn a_target_is_named_by_those_whom_it_or_their_key_allows() {
        let ann = who("ann", "k1", KeyLimits::default());
        let bob = who("bob", "k2", KeyLimits::default());
        for (name, anns, bobs) in [
            ("nobodys", false, false),
            ("owned", true, false),
            ("keyed", true, false),
            ("anybodys", true, true),
        ] {
            assert_eq!(found(&ann, Some(name)).is_some(), anns, "ann: {name}");
            assert_eq!(found(&bob, Some(name)).is_some(), bobs, "bob: {name}");
        }
        let token = Principal { is_token: true, ..who("eve", "k1", KeyLimits::default()) };
        assert_eq!(found(&token, Some("keyed")), None, "an issuer is no key");
        let limits = KeyLimits { callback_targets: vec!["nobodys".into()], ..KeyLimits::default() };
        assert!(found(&who("bob", "k2", limits), Some("nobodys")).is_some());
        let error = callbacks().of(&bob, &asked(Some("owned"))).unwrap_err();
        assert_eq!((error.status.as_u16(), error.param.as_deref()), (400, Some("callback")));
        let unknown = callbacks().of(&bob, &asked(Some("never"))).unwrap_err();
        assert_eq!(
            error.message.replace("owned", "X"),
            unknown.message.replace("never", "X"),
            "nobody learns which there are"
        );
    }

    #[test]
    fn a_url_goes_by_the_target_that_says_most_of_it() {
        let bob = who("bob", "k2", KeyLimits::default());
        let of = |url: &str| found(&bob, Some(url));
        assert_eq!(
            of("https://b.invalid/x?y=1"),
            Some(("anybodys".into(), Some("https://b.invalid/x?y=1".into())))
        );
        assert_eq!(of("https://b.invalid/deep/x").unwrap().0, "deeper");
        assert_eq!(of("https://b.invalid"), Some(("anybodys".into(), None)), "its own address");
        for url in [
            "https://a.invalid/owned",
            "http://b.invalid/x",
            "https://c.invalid/",
            "https://169.254.169.254/",
            "://",
        ] {
            assert_eq!(of(url), None, "{url}");
        }
    }

    #[test]
    fn the_keys_default_is_for_background_turns_that_name_nobody() {
        let limits = KeyLimits { callback: Some("nobodys".into()), ..KeyLimits::default() };
        let bob = who("bob", "k2", limits);
        assert_eq!(found(&bob, None), Some(("nobodys".into(), None)));
        assert_eq!(found(&bob, Some("anybodys")), Some(("anybodys".into(), None)));
        assert_eq!(
            found(&bob, Some("nobodys")),
            Some(("nobodys".into(), None)),
            "what is its default it may name"
        );
        let watched = CreateResponse { background: None, ..asked(None) };
        assert_eq!(callbacks().of(&bob, &watched).unwrap(), None);
        let limits = KeyLimits { callback: Some("gone".into()), ..KeyLimits::default() };
        let error = callbacks().of(&who("bob", "k2", limits), &asked(None)).unwrap_err();
        assert!(error.message.contains("default"), "{}", error.message);
    }
}
