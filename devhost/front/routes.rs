//! Route templates: literals, `{name}`, `{name?}`, `{name:constraint}`, `{*rest}`; matched without regard to case.

use std::sync::Arc;

use http::Method;
use percent_encoding::percent_decode_str;

use crate::functions::{Function, Trigger};

/// Route parameters in template order; `None` for an optional one that is absent.
pub type Params = Vec<(String, Option<String>)>;

/// The HTTP functions in order of precedence.
pub struct Routes(Vec<Route>);

struct Route {
    template: Template,
    methods: Vec<Method>,
    function: Arc<Function>,
}

/// A parsed template. Ordered by precedence: a more special segment first.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Template(Vec<Segment>);

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Segment {
    Literal(String),
    Constrained { name: String, constraint: Constraint, optional: bool },
    Parameter { name: String, optional: bool },
    CatchAll { name: String },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Constraint {
    Alpha,
    Guid,
    Int,
}

impl Routes {
    /// Routes of all enabled HTTP functions; a template that cannot be parsed is returned with its function.
    pub fn new(functions: &[Arc<Function>], prefix: &str) -> (Self, Vec<(String, String)>) {
        let mut routes = Vec::new();
        let mut errors = Vec::new();
        for function in functions.iter().filter(|function| !function.disabled) {
            let Trigger::Http { route, methods } = &function.trigger else { continue };
            match Template::parse(&format!("{prefix}/{route}")) {
                Ok(template) => {
                    routes.push(Route { template, methods: methods.clone(), function: Arc::clone(function) })
                }
                Err(reason) => errors.push((function.name.clone(), format!("route {route:?}: {reason}"))),
            }
        }
        routes.sort_by(|a, b| a.template.cmp(&b.template));
        (Routes(routes), errors)
    }

    /// The function for a request. `None` is 404, also when the path fits but the method does not: the host makes
    /// the method part of the route.
    pub fn find(&self, method: &Method, path: &str) -> Option<(&Arc<Function>, Params)> {
        self.0
            .iter()
            .filter(|route| route.methods.is_empty() || route.methods.contains(method))
            .find_map(|route| Some((&route.function, route.template.matches(path)?)))
    }
}

impl Template {
    fn parse(text: &str) -> Result<Self, String> {
        let parts: Vec<&str> = text.split('/').filter(|part| !part.is_empty()).collect();
        let segments = parts.iter().map(|part| Segment::parse(part)).collect::<Result<Vec<_>, _>>()?;
        for (at, segment) in segments.iter().enumerate() {
            if at + 1 < segments.len() && segment.may_be_absent() {
                return Err(format!("{} must be the last segment", parts[at]));
            }
        }
        Ok(Template(segments))
    }

    fn matches(&self, path: &str) -> Option<Params> {
        let mut parts = path
            .split('/')
            .filter(|part| !part.is_empty())
            .map(|part| percent_decode_str(part).decode_utf8_lossy().into_owned());
        let mut params = Params::new();
        for segment in &self.0 {
            match segment {
                Segment::CatchAll { name } => {
                    let rest = parts.by_ref().collect::<Vec<_>>().join("/");
                    params.push((name.clone(), Some(rest).filter(|rest| !rest.is_empty())));
                }
                segment => match parts.next() {
                    Some(part) => segment.bind(part, &mut params)?,
                    None if segment.may_be_absent() => segment.bind_absent(&mut params),
                    None => return None,
                },
            }
        }
        parts.next().is_none().then_some(params)
    }
}

impl Segment {
    fn parse(text: &str) -> Result<Self, String> {
        let Some(inner) = text.strip_prefix('{').and_then(|text| text.strip_suffix('}')) else {
            return if text.contains(['{', '}']) {
                Err(format!("{text}: a parameter beside text in one segment is not supported by devhost"))
            } else {
                Ok(Segment::Literal(text.to_owned()))
            };
        };
        if let Some(name) = inner.strip_prefix('*') {
            return Ok(Segment::CatchAll { name: name.trim_start_matches('*').to_owned() });
        }
        let (inner, optional) = inner.strip_suffix('?').map_or((inner, false), |inner| (inner, true));
        let (name, constraint) =
            inner.split_once(':').map_or((inner, None), |(name, constraint)| (name, Some(constraint)));
        if name.is_empty() || !name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') {
            return Err(format!("{text} is no parameter"));
        }
        let name = name.to_owned();
        let constraint = match constraint {
            None => return Ok(Segment::Parameter { name, optional }),
            Some("alpha") => Constraint::Alpha,
            Some("guid") => Constraint::Guid,
            Some("int" | "long") => Constraint::Int,
            Some(other) => {
                return Err(format!(
                    "constraint {other} is not supported by devhost; use int, long, alpha or guid"
                ));
            }
        };
        Ok(Segment::Constrained { name, constraint, optional })
    }

    fn may_be_absent(&self) -> bool {
        match self {
            Segment::Literal(_) => false,
            Segment::Constrained { optional, .. } | Segment::Parameter { optional, .. } => *optional,
            Segment::CatchAll { .. } => true,
        }
    }

    /// `None` if the part does not fit.
    fn bind(&self, part: String, params: &mut Params) -> Option<()> {
        match self {
            Segment::Literal(literal) => {
                return literal.to_lowercase().eq(&part.to_lowercase()).then_some(());
            }
            Segment::Constrained { name, constraint, .. } if constraint.fits(&part) => {
                params.push((name.clone(), Some(part)))
            }
            Segment::Constrained { .. } => return None,
            Segment::Parameter { name, .. } | Segment::CatchAll { name } => {
                params.push((name.clone(), Some(part)))
            }
        }
        Some(())
    }

    fn bind_absent(&self, params: &mut Params) {
        match self {
            Segment::Literal(_) => {}
            Segment::Constrained { name, .. }
            | Segment::Parameter { name, .. }
            | Segment::CatchAll { name } => params.push((name.clone(), None)),
        }
    }
}

impl Constraint {
    fn fits(self, part: &str) -> bool {
        match self {
            Constraint::Alpha => part.chars().all(|c| c.is_ascii_alphabetic()),
            Constraint::Guid => part.parse::<uuid::Uuid>().is_ok(),
            Constraint::Int => part.parse::<i64>().is_ok(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn routes(prefix: &str, templates: &[(&str, &str, &[&str])]) -> Routes {
        let functions: Vec<_> = templates
            .iter()
            .map(|(name, route, methods)| {
                let config = json!({"bindings": [
                    {"type": "httpTrigger", "direction": "in", "name": "req", "methods": methods, "route": route},
                    {"type": "http", "direction": "out", "name": "res"}]});
                Arc::new(crate::functions::tests::function(name, config, &[]).unwrap())
            })
            .collect();
        let (routes, errors) = Routes::new(&functions, prefix);
        assert!(errors.is_empty(), "{errors:?}");
        routes
    }

    fn found(routes: &Routes, method: &Method, path: &str) -> Option<String> {
        let (function, params) = routes.find(method, path)?;
        let params: Vec<String> = params
            .iter()
            .map(|(name, value)| format!("{name}={}", value.as_deref().unwrap_or("null")))
            .collect();
        Some([vec![function.name.clone()], params].concat().join(" "))
    }

    #[test]
    fn optional_parameters_may_be_absent() {
        let routes = routes(
            "api",
            &[
                ("receive", "webhooks/{source}/{event?}", &["post", "options"]),
                ("health", "health/{check?}", &["get"]),
            ],
        );
        let post = |path| found(&routes, &Method::POST, path);
        assert_eq!(post("/api/webhooks/stripe").as_deref(), Some("receive source=stripe event=null"));
        assert_eq!(post("/API/Webhooks/a%2Fb/x%20y/").as_deref(), Some("receive source=a/b event=x y"));
        assert_eq!(found(&routes, &Method::GET, "/api/health").as_deref(), Some("health check=null"));
        for missing in ["/", "/api/webhooks", "/api/webhooks/a/b/c", "/webhooks/a"] {
            assert_eq!(post(missing), None, "{missing}");
        }
    }

    #[test]
    fn a_method_outside_the_list_is_not_found_and_no_list_means_all() {
        let routes = routes("", &[("some", "some", &["post"]), ("any", "any", &[])]);
        assert_eq!(found(&routes, &Method::GET, "/some"), None);
        assert!(found(&routes, &Method::DELETE, "/any").is_some());
    }

    #[test]
    fn the_more_special_route_wins_and_a_catch_all_takes_the_rest() {
        let all: &[&str] = &[];
        let routes = routes(
            "",
            &[
                ("rest", "{*path}", all),
                ("id", "a/{id:int}", all),
                ("name", "a/{name}", all),
                ("literal", "a/b", all),
            ],
        );
        let get = |path| found(&routes, &Method::GET, path).unwrap();
        assert_eq!(get("/a/b"), "literal");
        assert_eq!(get("/a/7"), "id id=7");
        assert_eq!(get("/a/x"), "name name=x");
        assert_eq!(get("/a/x/y"), "rest path=a/x/y");
        assert_eq!(get("/"), "rest path=null");
    }

    #[test]
    fn templates_that_cannot_be_matched_are_refused() {
        for wrong in ["{a?}/b", "{*a}/b", "x{a}", "{a:regex(x)}", "{}"] {
            assert!(Template::parse(wrong).is_err(), "{wrong}");
        }
    }
}
