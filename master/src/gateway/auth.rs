//! Who may speak to this master: whoever has the token, and no web page of another site. A master
//! without a token listens within its machine only, and speaks to its own user and to root.

use super::connection::Connection;
use axum::http::{HeaderMap, header};
use std::fs;
use std::net::IpAddr;
use std::os::unix::fs::MetadataExt;
use subtle::ConstantTimeEq;
use taskmaster_protocol::excerpt::excerpt;

const ROOT: u32 = 0;

/// Decides who may speak to one master.
#[derive(Debug, Clone, Default)]
pub(super) struct Auth {
    token: Option<String>,
    /// The user of this process. `None` where the system does not tell.
    own_user: Option<u32>,
}

impl Auth {
    pub(super) fn new(token: Option<String>) -> Auth {
        Auth {
            token,
            own_user: fs::metadata("/proc/self").ok().map(|process| process.uid()),
        }
    }

    /// Whether whoever speaks over `connection` may speak to this master, and why not. `given` is
    /// the token that was shown. The time of the comparison does not tell how much of it is right.
    pub(super) fn check(&self, given: Option<&str>, connection: &Connection) -> Result<(), String> {
        match (&self.token, given) {
            (None, _) => self.check_user(connection.owner()),
            (Some(token), Some(given)) if token.as_bytes().ct_eq(given.as_bytes()).into() => Ok(()),
            (Some(_), Some(_)) => Err(
                "the token is wrong; the right one is what this master was started with, or else in \
                 its data folder, file `token`"
                    .into(),
            ),
            (Some(_), None) => Err(
                "this master wants a token: --token or TASKMASTER_TOKEN, or over HTTP the header \
                 `Authorization: Bearer TOKEN`; it is what the master was started with, or else in \
                 its data folder, file `token`"
                    .into(),
            ),
        }
    }

    /// Whether the peer on this machine is run by the user of this master, or by root.
    fn check_user(&self, peer: Option<u32>) -> Result<(), String> {
        match peer {
            Some(ROOT) => Ok(()),
            Some(user) if Some(user) == self.own_user => Ok(()),
            Some(user) => Err(format!(
                "this master has no token, so it speaks to its own user and to root, and not to \
                 user {user}: start it with --token, and give that token here"
            )),
            None => Err(
                "this master has no token, and the system does not tell whose connection this is: \
                 start it with --token, and give that token here"
                    .into(),
            ),
        }
    }

    /// The token in `Authorization: Bearer …`.
    pub(super) fn token_in(headers: &HeaderMap) -> Option<&str> {
        let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
        let (kind, token) = value.split_once(' ')?;
        kind.eq_ignore_ascii_case("bearer").then(|| token.trim())
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
                    "the Origin `{}` is foreign to `{}`: pages of other sites may not speak to \
                     this master",
                    excerpt(origin),
                    excerpt(host)
                ));
            }
        }
        // A page of another site can point a name of its own at 127.0.0.1 (DNS rebinding), and then
        // its Origin equals the Host. That is of no use to the page where there is a token. A
        // master without a token answers only to names that nobody else can own.
        if self.token.is_none() && !is_own(host) {
            return Some(format!(
                "a master without a token answers only to an address or to localhost, not to \
                 `{}`; start it with --token",
                excerpt(host)
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
    use super::super::connection::Strangers;
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
    fn only_the_token_admits_where_there_is_one() {
        let auth = Auth::new(Some("secret".into()));
        let far = Strangers::default().enter("192.0.2.1:1".parse().unwrap(), None);
        assert_eq!(auth.check(Some("secret"), &far), Ok(()));
        for wrong in [Some("secre"), Some("secrets"), Some(""), None] {
            assert!(auth.check(wrong, &far).is_err(), "{wrong:?}");
        }
        let token = |pair| Auth::token_in(&headers(&[("authorization", pair)])).map(str::to_owned);
        assert_eq!(token("bearer secret").as_deref(), Some("secret"));
        assert_eq!(token("Basic secret"), None);
    }

    #[test]
    fn a_master_without_a_token_speaks_to_its_own_user_and_to_root() {
        let auth = Auth {
            token: None,
            own_user: Some(1_000),
        };
        assert_eq!(auth.check_user(Some(1_000)), Ok(()));
        assert_eq!(auth.check_user(Some(ROOT)), Ok(()));
        let other = auth.check_user(Some(1_001)).unwrap_err();
        assert!(
            other.contains("1001") && other.contains("--token"),
            "{other}"
        );
        let unknown = auth.check_user(None).unwrap_err();
        assert!(unknown.contains("--token"), "{unknown}");
        let unsure = Auth::default();
        assert!(unsure.check_user(Some(1_000)).is_err());
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
