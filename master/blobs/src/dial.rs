//! HTTP to an object store: hyper, TLS by rustls, a pool of connections. The object store's crate
//! signs requests and tries again; here one request goes out and its answer comes back.

use http_body_util::{BodyExt, StreamBody};
use hyper::body::Incoming;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use object_store::client::{
    ClientConfigKey, HttpClient, HttpConnector as Dial, HttpError, HttpErrorKind, HttpRequest,
    HttpRequestBody, HttpResponse, HttpResponseBody, HttpService,
};
use object_store::{ClientOptions, Error};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::timeout;

/// A connection is there within this time, or is not.
const CONNECT_WITHIN: Duration = Duration::from_secs(5);

/// From the beginning of a request to the head of its answer: a part of 8 MiB at 200 kB/s.
const ANSWER_WITHIN: Duration = Duration::from_secs(45);

/// An answer that stands still for so long is given up.
const IDLE: Duration = Duration::from_secs(20);

/// Connections that nobody uses are kept for so long: shorter than servers keep them.
const POOLED: Duration = Duration::from_secs(15);

/// Connects to object stores.
#[derive(Debug)]
pub(super) struct Dialler {
    tls: ClientConfig,
}

impl Dialler {
    /// Trusts the authorities that browsers trust, and those in the file `more`, in PEM.
    pub(super) fn trusting(more: Option<PathBuf>) -> Result<Dialler, String> {
        let mut roots = RootCertStore {
            roots: webpki_roots::TLS_SERVER_ROOTS.to_vec(),
        };
        if let Some(file) = more {
            let wrong = |why: String| {
                format!(
                    "the certificates in {} (AWS_CA_BUNDLE) cannot be used: {why}",
                    file.display()
                )
            };
            let read =
                CertificateDer::pem_file_iter(&file).map_err(|error| wrong(error.to_string()))?;
            for certificate in read {
                let certificate = certificate.map_err(|error| wrong(error.to_string()))?;
                roots
                    .add(certificate)
                    .map_err(|error| wrong(error.to_string()))?;
            }
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let tls = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| error.to_string())?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Dialler { tls })
    }
}

/// A yes, as the variables of such programs say it.
pub(super) fn is_yes(said: &str) -> bool {
    matches!(
        said.trim().to_ascii_lowercase().as_str(),
        "true" | "1" | "yes" | "y" | "on"
    )
}

impl Dial for Dialler {
    fn connect(&self, options: &ClientOptions) -> Result<HttpClient, Error> {
        let mut sockets = HttpConnector::new();
        sockets.set_connect_timeout(Some(CONNECT_WITHIN));
        sockets.set_nodelay(true);
        sockets.enforce_http(false);
        let secure = HttpsConnectorBuilder::new().with_tls_config(self.tls.clone());
        let plain = options
            .get_config_value(&ClientConfigKey::AllowHttp)
            .is_some_and(|said| is_yes(&said));
        let secure = if plain {
            secure.https_or_http()
        } else {
            secure.https_only()
        };
        let connector = secure.enable_http1().wrap_connector(sockets);
        let client = Client::builder(TokioExecutor::new())
            .pool_idle_timeout(POOLED)
            .build(connector);
        Ok(HttpClient::new(Pooled(client)))
    }
}

#[derive(Debug)]
struct Pooled(Client<HttpsConnector<HttpConnector>, HttpRequestBody>);

/// What the service's trait wants, which is written for a macro that makes such types.
type Answering<'a> = Pin<Box<dyn Future<Output = Result<HttpResponse, HttpError>> + Send + 'a>>;

impl HttpService for Pooled {
    fn call<'a, 'answer>(&'a self, request: HttpRequest) -> Answering<'answer>
    where
        'a: 'answer,
        Self: 'answer,
    {
        Box::pin(async {
            let answer = match timeout(ANSWER_WITHIN, self.0.request(request)).await {
                Ok(answer) => answer.map_err(|error| {
                    let kind = if error.is_connect() {
                        HttpErrorKind::Connect
                    } else {
                        HttpErrorKind::Request
                    };
                    HttpError::new(kind, error)
                })?,
                Err(late) => return Err(HttpError::new(HttpErrorKind::Timeout, late)),
            };
            let (head, body) = answer.into_parts();
            let frames = futures_util::stream::try_unfold(body, next);
            Ok(HttpResponse::from_parts(
                head,
                HttpResponseBody::new(StreamBody::new(frames)),
            ))
        })
    }
}

async fn next(
    mut body: Incoming,
) -> Result<Option<(hyper::body::Frame<bytes::Bytes>, Incoming)>, HttpError> {
    match timeout(IDLE, body.frame()).await {
        Ok(None) => Ok(None),
        Ok(Some(frame)) => {
            let frame = frame.map_err(|error| HttpError::new(HttpErrorKind::Interrupted, error))?;
            Ok(Some((frame, body)))
        }
        Err(late) => Err(HttpError::new(HttpErrorKind::Timeout, late)),
    }
}
