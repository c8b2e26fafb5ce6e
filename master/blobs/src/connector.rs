//! HTTP to an object store: hyper, TLS by rustls, a pool of connections. The object store's crate
//! signs requests and repeats them; this file sends one request and gives back its answer.

use crate::errors::BucketClientError;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector as SocketConnector;
use hyper_util::rt::TokioExecutor;
use object_store::client::{
    ClientConfigKey, HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest,
    HttpRequestBody, HttpResponse, HttpResponseBody, HttpService,
};
use object_store::{ClientOptions, Error};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::timeout;

/// Time for a connection to be made.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Time from the beginning of a request to the head of its answer: enough for a part of 8 MiB at
/// 200 kB/s.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(45);

/// Time between two pieces of an answer.
const IDLE_TIMEOUT: Duration = Duration::from_secs(20);

/// How long an unused connection is kept: shorter than servers keep theirs.
const POOL_TIMEOUT: Duration = Duration::from_secs(15);

/// Makes HTTP clients for buckets.
#[derive(Debug)]
pub(crate) struct BucketConnector {
    tls: ClientConfig,
}

impl BucketConnector {
    /// Trusts the authorities that browsers trust, and those in the PEM file `more`.
    pub(crate) fn trusting(more: Option<PathBuf>) -> Result<BucketConnector, BucketClientError> {
        let mut roots = RootCertStore {
            roots: webpki_roots::TLS_SERVER_ROOTS.to_vec(),
        };
        if let Some(file) = more {
            add_certificates(&mut roots, &file)?;
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let tls = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(BucketConnector { tls })
    }
}

fn add_certificates(roots: &mut RootCertStore, file: &Path) -> Result<(), BucketClientError> {
    let wrong = |why: String| BucketClientError::Certificates {
        file: file.display().to_string(),
        why,
    };
    let certificates =
        CertificateDer::pem_file_iter(file).map_err(|error| wrong(error.to_string()))?;
    for certificate in certificates {
        let certificate = certificate.map_err(|error| wrong(error.to_string()))?;
        roots
            .add(certificate)
            .map_err(|error| wrong(error.to_string()))?;
    }
    Ok(())
}

/// Whether the value of an environment variable means yes, as programs for S3 read it.
pub(crate) fn is_true(value: &str) -> bool {
    matches!(
        value.trim().to_ascii_lowercase().as_str(),
        "true" | "1" | "yes" | "y" | "on"
    )
}

impl HttpConnector for BucketConnector {
    fn connect(&self, options: &ClientOptions) -> Result<HttpClient, Error> {
        let mut sockets = SocketConnector::new();
        sockets.set_connect_timeout(Some(CONNECT_TIMEOUT));
        sockets.set_nodelay(true);
        sockets.enforce_http(false);

        let is_http_allowed = options
            .get_config_value(&ClientConfigKey::AllowHttp)
            .is_some_and(|value| is_true(&value));
        let builder = HttpsConnectorBuilder::new().with_tls_config(self.tls.clone());
        let builder = if is_http_allowed {
            builder.https_or_http()
        } else {
            builder.https_only()
        };
        let connector = builder.enable_http1().wrap_connector(sockets);

        let client = Client::builder(TokioExecutor::new())
            .pool_idle_timeout(POOL_TIMEOUT)
            .build(connector);
        Ok(HttpClient::new(PooledClient(client)))
    }
}

#[derive(Debug)]
struct PooledClient(Client<HttpsConnector<SocketConnector>, HttpRequestBody>);

/// The return type that [`HttpService`] wants: the trait is written for a macro that makes such
/// types.
type ResponseFuture<'a> =
    Pin<Box<dyn Future<Output = Result<HttpResponse, HttpError>> + Send + 'a>>;

impl HttpService for PooledClient {
    fn call<'a, 'answer>(&'a self, request: HttpRequest) -> ResponseFuture<'answer>
    where
        'a: 'answer,
        Self: 'answer,
    {
        Box::pin(async {
            let answer = timeout(ANSWER_TIMEOUT, self.0.request(request))
                .await
                .map_err(|late| HttpError::new(HttpErrorKind::Timeout, late))?
                .map_err(|error| {
                    let kind = if error.is_connect() {
                        HttpErrorKind::Connect
                    } else {
                        HttpErrorKind::Request
                    };
                    HttpError::new(kind, error)
                })?;
            let (head, body) = answer.into_parts();
            let frames = futures_util::stream::try_unfold(body, next_frame);
            let body = HttpResponseBody::new(StreamBody::new(frames));
            Ok(HttpResponse::from_parts(head, body))
        })
    }
}

async fn next_frame(
    mut body: Incoming,
) -> Result<Option<(Frame<bytes::Bytes>, Incoming)>, HttpError> {
    match timeout(IDLE_TIMEOUT, body.frame()).await {
        Ok(None) => Ok(None),
        Ok(Some(frame)) => {
            let frame = frame.map_err(|error| HttpError::new(HttpErrorKind::Interrupted, error))?;
            Ok(Some((frame, body)))
        }
        Err(late) => Err(HttpError::new(HttpErrorKind::Timeout, late)),
    }
}
