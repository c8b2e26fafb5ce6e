//! HTTP requests of components: to the hosts that the module may speak to, and to no other.

use super::Guest;
use super::stdio::Streams;
use http_body_util::BodyExt;
use std::collections::BTreeSet;
use std::future::Future;
use std::io;
use std::sync::Arc;
use wasmtime::component::Linker;
use wasmtime_wasi::WasiView;
use wasmtime_wasi_http::p2::bindings::http::types::{DnsErrorPayload, ErrorCode};
use wasmtime_wasi_http::{
    Error, RequestOptions, WasiBody, WasiHttpCtx, WasiHttpCtxView, WasiHttpHooks, WasiHttpView,
    default_send_request,
};

/// What a store carries for the requests of its guest.
pub(super) struct Http {
    context: WasiHttpCtx,
    door: Door,
}

impl Http {
    /// Lets through what goes to `hosts`.
    pub(super) fn to(hosts: BTreeSet<String>, streams: Arc<Streams>) -> Http {
        Http {
            context: WasiHttpCtx::new(),
            door: Door {
                hosts,
                streams,
                refused: BTreeSet::new(),
            },
        }
    }

    /// Whether its guest may speak to anybody.
    pub(super) fn is_used(&self) -> bool {
        !self.door.hosts.is_empty()
    }
}

/// Adds `wasi:http/types` and `wasi:http/outgoing-handler`.
pub(super) fn add_to_linker(linker: &mut Linker<Guest>) -> wasmtime::Result<()> {
    wasmtime_wasi_http::p2::add_only_http_to_linker_async(linker)
}

impl WasiHttpView for Guest {
    fn http(&mut self) -> WasiHttpCtxView<'_> {
        let table = self.wasi.ctx().table;
        WasiHttpCtxView {
            hooks: &mut self.http.door,
            table,
            ctx: &mut self.http.context,
        }
    }
}

/// Where requests go out.
struct Door {
    hosts: BTreeSet<String>,
    streams: Arc<Streams>,
    /// Hosts of which the log has a line already; a guest may try for hours.
    refused: BTreeSet<String>,
}

/// Hosts that were refused and of which the log tells: after these no more is said.
const REFUSED_MAX: usize = 20;

type Sent = Result<
    (
        http::Response<WasiBody>,
        Box<dyn Future<Output = Result<(), Error>> + Send>,
    ),
    Error,
>;

impl WasiHttpHooks for Door {
    fn send_request(
        &mut self,
        request: http::Request<WasiBody>,
        options: Option<RequestOptions>,
        _done: Box<dyn Future<Output = Result<(), Error>> + Send>,
    ) -> Box<dyn Future<Output = Sent> + Send> {
        if !is_among(&self.hosts, request.uri()) {
            self.refuse(request.uri());
            return Box::new(async { Err(Error::HttpRequestDenied) });
        }
        Box::new(async move {
            let (response, io) = default_send_request(request, options).await?;
            // How the connection ends is seen by who reads the body; what else it says would stand
            // in this runner's log.
            let io = async {
                let _ = io.await;
                Ok(())
            };
            Ok((
                response.map(BodyExt::boxed_unsync),
                Box::new(io) as Box<dyn Future<Output = _> + Send>,
            ))
        })
    }

    // What goes wrong is told to the guest, and stands in its task's log: it is no trouble of this
    // runner's.

    fn p2_error_from_hyper(&mut self, error: &hyper::Error) -> ErrorCode {
        self.say(&format!("an HTTP request failed: {error}"));
        ErrorCode::HttpProtocolError
    }

    fn p2_error_from_connect(&mut self, error: &io::Error) -> ErrorCode {
        self.say(&format!("an HTTP connection failed: {error}"));
        match error.kind() {
            io::ErrorKind::TimedOut => ErrorCode::ConnectionTimeout,
            io::ErrorKind::NetworkUnreachable | io::ErrorKind::HostUnreachable => {
                ErrorCode::DestinationUnavailable
            }
            // What the resolver says is no error of a system call.
            _ if error.raw_os_error().is_none() => ErrorCode::DnsError(DnsErrorPayload {
                rcode: Some(error.to_string()),
                info_code: None,
            }),
            _ => ErrorCode::ConnectionRefused,
        }
    }

    fn p2_error_from_tls(&mut self, error: &io::Error) -> ErrorCode {
        self.say(&format!("TLS failed: {error}"));
        ErrorCode::TlsProtocolError
    }
}

impl Door {
    fn say(&self, text: &str) {
        self.streams.log(&format!("taskmaster: {text}"));
    }

    fn refuse(&mut self, uri: &http::Uri) {
        let to = uri
            .authority()
            .map_or("nobody", |authority| authority.as_str())
            .to_owned();
        if self.refused.len() < REFUSED_MAX && self.refused.insert(to.clone()) {
            self.say(&format!(
                "HTTP to {to} is denied: name it in `capabilities.http` of the module's manifest, and have that approved"
            ));
        }
    }
}

/// Whether a request goes to one of `hosts`: by name and port, where one without a port stands for
/// the scheme's own.
fn is_among(hosts: &BTreeSet<String>, uri: &http::Uri) -> bool {
    let (Some(authority), Some(host)) = (uri.authority(), uri.host()) else {
        return false;
    };
    if authority.as_str().contains('@') {
        return false;
    }
    let usual = match uri.scheme_str() {
        Some("http") => 80,
        Some("https") => 443,
        _ => return false,
    };
    let (host, port) = (
        host.to_ascii_lowercase(),
        authority.port_u16().unwrap_or(usual),
    );
    (port == usual && hosts.contains(&host)) || hosts.contains(&format!("{host}:{port}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_one_name_and_one_port() {
        let hosts = ["a.org", "b.org:8080", "[::1]:99"].map(String::from).into();
        for (uri, expected) in [
            ("https://a.org/x", true),
            ("http://A.org", true),
            ("http://a.org:80/", true),
            ("http://a.org:443/", false),
            ("http://a.org:8080/", false),
            ("https://b.org:8080/", true),
            ("https://b.org/", false),
            ("http://[::1]:99/", true),
            ("http://[::1]/", false),
            ("http://sub.a.org/", false),
            ("http://a.org.evil.org/", false),
            ("http://a.org./", false),
            ("http://a.org@evil.org/", false),
            ("http://evil.org@a.org/", false),
            ("ftp://a.org/", false),
            ("/a.org", false),
        ] {
            assert_eq!(is_among(&hosts, &uri.parse().unwrap()), expected, "{uri}");
        }
    }
}
