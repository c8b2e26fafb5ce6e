//! HTTP requests of components. They reach the hosts that the module was granted, and no others.

use super::stdio::GuestStreams;
use http_body_util::BodyExt;
use std::collections::BTreeSet;
use std::future::Future;
use std::io;
use std::sync::Arc;
use wasmtime_wasi_http::p2::bindings::http::types::{DnsErrorPayload, ErrorCode};
use wasmtime_wasi_http::{
    Error, RequestOptions, WasiBody, WasiHttpCtx, WasiHttpHooks, default_send_request,
};

/// What a store carries for the requests of its guest.
pub(super) struct GuestHttp {
    pub(super) context: WasiHttpCtx,
    pub(super) gate: HttpGate,
}

impl GuestHttp {
    /// Lets through requests to `hosts`.
    pub(super) fn new(hosts: BTreeSet<String>, streams: Arc<GuestStreams>) -> GuestHttp {
        GuestHttp {
            context: WasiHttpCtx::new(),
            gate: HttpGate {
                hosts,
                streams,
                refused: BTreeSet::new(),
            },
        }
    }

    /// Whether the guest may send requests at all.
    pub(super) fn is_used(&self) -> bool {
        !self.gate.hosts.is_empty()
    }
}

/// Sends the requests of one guest, and refuses those to hosts that were not granted.
pub(super) struct HttpGate {
    hosts: BTreeSet<String>,
    streams: Arc<GuestStreams>,
    /// Refused hosts that the log names already. A guest may try for hours.
    refused: BTreeSet<String>,
}

/// Refused hosts that the log of one attempt names.
const REFUSED_MAX: usize = 20;

/// The answer to a request, and what drives its connection.
type SendResult = Result<
    (
        http::Response<WasiBody>,
        Box<dyn Future<Output = Result<(), Error>> + Send>,
    ),
    Error,
>;

impl WasiHttpHooks for HttpGate {
    fn send_request(
        &mut self,
        request: http::Request<WasiBody>,
        options: Option<RequestOptions>,
        _done: Box<dyn Future<Output = Result<(), Error>> + Send>,
    ) -> Box<dyn Future<Output = SendResult> + Send> {
        if !is_among(&self.hosts, request.uri()) {
            self.refuse(request.uri());
            return Box::new(async { Err(Error::HttpRequestDenied) });
        }
        Box::new(async move {
            let (response, io) = default_send_request(request, options).await?;
            // Who reads the body sees how the connection ends. Other errors would stand in this
            // runner's log, where they do not belong.
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

    // The guest is told what goes wrong, and its task's log has it. The runner's log has not,
    // because nothing is wrong with the runner.

    fn p2_error_from_hyper(&mut self, error: &hyper::Error) -> ErrorCode {
        self.log(&format!("an HTTP request failed: {error}"));
        ErrorCode::HttpProtocolError
    }

    fn p2_error_from_connect(&mut self, error: &io::Error) -> ErrorCode {
        self.log(&format!("an HTTP connection failed: {error}"));
        match error.kind() {
            io::ErrorKind::TimedOut => ErrorCode::ConnectionTimeout,
            io::ErrorKind::NetworkUnreachable | io::ErrorKind::HostUnreachable => {
                ErrorCode::DestinationUnavailable
            }
            // The resolver's errors do not come from a system call.
            _ if error.raw_os_error().is_none() => ErrorCode::DnsError(DnsErrorPayload {
                rcode: Some(error.to_string()),
                info_code: None,
            }),
            _ => ErrorCode::ConnectionRefused,
        }
    }

    fn p2_error_from_tls(&mut self, error: &io::Error) -> ErrorCode {
        self.log(&format!("TLS failed: {error}"));
        ErrorCode::TlsProtocolError
    }
}

impl HttpGate {
    fn log(&self, text: &str) {
        self.streams.log(&format!("taskmaster: {text}"));
    }

    fn refuse(&mut self, uri: &http::Uri) {
        let host = uri
            .authority()
            .map_or("nobody", |authority| authority.as_str())
            .to_owned();
        if self.refused.len() < REFUSED_MAX && self.refused.insert(host.clone()) {
            self.log(&format!(
                "HTTP to {host} is denied: name it in `capabilities.http` of the module's \
                 manifest, and have that approved"
            ));
        }
    }
}

/// Whether a request goes to one of `hosts`. Name and port must both agree; an entry without a port
/// stands for the usual port of the request's scheme.
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
    let host = host.to_ascii_lowercase();
    let port = authority.port_u16().unwrap_or(usual);
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
