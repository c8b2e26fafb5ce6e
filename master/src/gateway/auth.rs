//! Who may speak to this master: whoever has the token, and no web page of another site.

use axum::http::{HeaderMap, header};
use std::net::IpAddr;
use subtle::ConstantTimeEq;

/// Decides who may speak to one master.
#[derive(Debug, Clone, Default)]
pub(super) struct Auth {
    token: Option<String>,
}

impl Auth {
    pub(super) fn new(token: Option<String>) -> Auth {
        Auth { token }
    }

    /// Whether `given` is the token. A master without a token admits everybody. The time of the
    /// comparison does not tell how much of `given` is right.
    pub(super) fn admits(&self, given: Option<&str>) -> bool {
        match (&self.token, given) {
            (None, _) => true,
            (Some(token), Some(given)) => token.as_bytes().ct_eq(given.as_bytes()).into(),
            (Some(_), None) => false,
        }
    }

    /// Whether `Authorization: Bearer …` has the token.
    pub(super) fn admits_headers(&self, headers: &HeaderMap) -> bool {
        let value = headers
            .get(header::AUTHORIZATION)
            .and_then(|value| value.to_str().ok());
        let token = value
            .and_then(|value| value.split_once(' '))
            .filter(|(kind, _)| kind.eq_ignore_ascii_case("bearer"));
        self.admits(token.map(|(_, token)| token.trim()))
    }

    /// Why the request looks as if a web page of another site has made the user's browser send it.
    /// `None` where it does not.
    pub(super) fn foreign(&self, headers: &HeaderMap) -> Option<String> {
        let value_of = |name| {
            headers
                .get(name)
                .map(|value| value.to_str().unwrap_or_default())
        };
        let host = value_of(header::HOST).unwrap_or_default();
        if let Some(origin) = value_of(header::ORIGIN) {
            let from = origin.split_once("://").map_or("", |(_, rest)| rest);
            if from.is_empty() || !with_port(from).eq_ignore_ascii_case(&with_port(host)) {
                return Some(format!(
                    "the Origin `{origin}` is foreign to `{host}`: pages of other sites may not \
                     speak to this master"
                ));
            }
        }
        // A page of another site can point a name of its own at 127.0.0.1 (DNS rebinding), and then
        // its Origin equals the Host. That is of no use to the page where there is a token. A
        // master without a token answers only to names that nobody else can own.
        if self.token.is_none() && !is_own(host) {
            return Some(format!(
                "a master without a token answers only to an address or to localhost, not to \
                 `{host}`; start it with --token"
            ));
        }
        None
    }
}

/// `host` with its port, which is 80 where none is written.
fn with_port(host: &str) -> String {
    if split_port(host).1.is_some() {
        host.to_owned()
    } else {
        format!("{host}:80")
    }
}

fn split_port(host: &str) -> (&str, Option<&str>) {
    match host.rsplit_once(':') {
        Some((name, port)) if !name.is_empty() && port.bytes().all(|b| b.is_ascii_digit()) => {
            (name, Some(port))
        }
        Some(_) | None => (host, None),
    }
}

/// Whether the host is an address or `localhost`.
fn is_own(host: &str) -> bool {
    let name = split_port(host).0;
    let address = name.trim_start_matches('[').trim_end_matches(']');
    // HTTP/1.0 and simple scripts may send no Host. A browser always sends one.
    host.is_empty() || address.parse::<IpAddr>().is_ok() || name.eq_ignore_ascii_case("localhost")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()))
            .collect::<Vec<(header::HeaderName, _)>>()
            .into_iter()
            .collect()
    }

    #[test]
    fn only_the_token_admits() {
        let auth = Auth::new(Some("secret".into()));
        assert!(auth.admits(Some("secret")));
        assert!(!auth.admits(Some("secre")) && !auth.admits(Some("")) && !auth.admits(None));
        assert!(auth.admits_headers(&headers(&[("authorization", "bearer secret")])));
        assert!(!auth.admits_headers(&headers(&[("authorization", "Basic secret")])));
        assert!(Auth::default().admits(None));
    }

    #[test]
    fn foreign_pages_are_told_by_origin_and_host() {
        let open = Auth::default();
        let closed = Auth::new(Some("t".into()));
        for (host, origin, foreign_open, foreign_closed) in [
            ("127.0.0.1:3232", None, false, false),
            (
                "localhost:3232",
                Some("http://localhost:3232"),
                false,
                false,
            ),
            ("[::1]:3232", Some("http://[::1]:3232"), false, false),
            ("127.0.0.1", Some("http://127.0.0.1:80"), false, false),
            ("127.0.0.1:3232", Some("http://evil.example"), true, true),
            ("127.0.0.1:3232", Some("http://127.0.0.1:8080"), true, true),
            ("127.0.0.1:3232", Some("null"), true, true),
            (
                "evil.example:3232",
                Some("http://evil.example:3232"),
                true,
                false,
            ),
            ("farm.example:3232", None, true, false),
        ] {
            let mut pairs = vec![("host", host)];
            pairs.extend(origin.map(|origin| ("origin", origin)));
            let headers = headers(&pairs);
            assert_eq!(
                open.foreign(&headers).is_some(),
                foreign_open,
                "{host} {origin:?}"
            );
            assert_eq!(
                closed.foreign(&headers).is_some(),
                foreign_closed,
                "{host} {origin:?} with a token"
            );
        }
    }
}
