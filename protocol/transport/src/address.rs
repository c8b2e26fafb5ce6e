//! The address at which a master listens.

use std::fmt;

/// The address of a master, as people type it: `ws://127.0.0.1:3232`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    host: String,
    port: u16,
}

/// Why a text is no address of a master.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not a master's address: {why}; write it like ws://127.0.0.1:3232")]
pub struct BadAddress {
    text: String,
    why: &'static str,
}

impl Address {
    /// Reads `ws://host[:port]`, `http://…`, or `host:port`. The default port is 3232.
    pub fn parse(text: &str) -> Result<Address, BadAddress> {
        let bad = |why| BadAddress {
            text: text.to_owned(),
            why,
        };
        let text = text.trim();
        let rest = match text.split_once("://") {
            Some(("ws" | "http", rest)) => rest,
            Some(("wss" | "https", _)) => return Err(bad("TLS is not supported yet")),
            Some(_) => return Err(bad("it must begin with ws://")),
            None => text,
        };
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        if rest.contains(['/', '?', '#', '@']) || rest.contains(char::is_whitespace) {
            return Err(bad("there is more in it than a host and a port"));
        }
        let ends_in_bracket = rest.ends_with(']');
        let (host, port) = match rest.rsplit_once(':') {
            Some((host, port)) if !ends_in_bracket => (
                host,
                port.parse()
                    .map_err(|_| bad("the port is no number up to 65535"))?,
            ),
            _ => (rest, 3232),
        };
        if host.is_empty() {
            return Err(bad("the host is missing"));
        }
        Ok(Address {
            host: host.to_owned(),
            port,
        })
    }

    /// The host's name or number.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// `host:port`, as a resolver takes it and as the header `Host` has it.
    pub fn authority(&self) -> String {
        format!("{}:{}", self.host, self.port)
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ws://{}:{}", self.host, self.port)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_as_people_type_them() {
        for (text, authority) in [
            ("ws://127.0.0.1:3232", "127.0.0.1:3232"),
            ("ws://farm.example/", "farm.example:3232"),
            ("http://[::1]:80", "[::1]:80"),
            ("[::1]", "[::1]:3232"),
            ("host:99", "host:99"),
        ] {
            assert_eq!(
                Address::parse(text).unwrap().authority(),
                authority,
                "{text}"
            );
        }
        for bad in [
            "",
            "wss://x",
            "ftp://x",
            "ws://x/path",
            "ws://:1",
            "ws://x:99999",
            "ws://a b",
        ] {
            assert!(Address::parse(bad).is_err(), "{bad}");
        }
    }
}
