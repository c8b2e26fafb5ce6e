//! Errors of this crate, and which of them may pass.

use object_store::Error;
use std::io;
use taskmaster_protocol::{Hash, limits};

/// The form of an address, as messages about a wrong one show it.
const ADDRESS_FORM: &str = "write it like s3://bucket or s3://bucket/prefix";

/// Why a text is no address of a bucket.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// It has no `://`.
    #[error("`{0}` is no address of an object store; {form}", form = ADDRESS_FORM)]
    NoScheme(String),
    /// It has an `@`. The text is not repeated because a secret may stand before the `@`.
    #[error(
        "the address has an `@` in it; {form}, and credentials into AWS_ACCESS_KEY_ID and \
         AWS_SECRET_ACCESS_KEY",
        form = ADDRESS_FORM
    )]
    Credentials,
    /// It does not begin with `s3://`.
    #[error(
        "`{text}` has the scheme `{scheme}`, known is `s3`; {form}, and the server's address into \
         AWS_ENDPOINT_URL",
        form = ADDRESS_FORM
    )]
    UnknownScheme {
        /// The address.
        text: String,
        /// Its scheme.
        scheme: String,
    },
    /// Its bucket has no name, or one with other characters.
    #[error("`{0}` names no bucket (letters, digits, `-`, `.`, `_`); {form}", form = ADDRESS_FORM)]
    NoBucket(String),
    /// Its prefix has an empty part, or one with other characters.
    #[error("`{0}`: a prefix has parts of letters, digits, `-`, `.`, `_` between single `/`")]
    WrongPrefix(String),
}

/// Why the client of an object store cannot be made. Nothing has been sent yet.
#[derive(Debug, thiserror::Error)]
pub enum BucketClientError {
    /// The file of certificates cannot be used.
    #[error("the certificates in {file} (AWS_CA_BUNDLE) cannot be used: {why}")]
    Certificates {
        /// The file.
        file: String,
        /// What the library said.
        why: String,
    },
    /// TLS cannot be set up.
    #[error(transparent)]
    Tls(#[from] rustls::Error),
    /// The endpoint is not encrypted, and nobody has allowed that.
    #[error(
        "AWS_ENDPOINT_URL begins with http://, which neither hides nor proves anything; use \
         https://, or say AWS_ALLOW_HTTP=true"
    )]
    PlainHttp,
    /// The endpoint is no URL.
    #[error("AWS_ENDPOINT_URL is `{0}`; write it like https://host:port")]
    WrongEndpoint(String),
    /// The settings do not fit together.
    #[error("{0}")]
    Settings(String),
    /// The operating system gives no thread.
    #[error("no thread for the object store: {0}")]
    Thread(io::Error),
}

/// Why the blobs of a data folder cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The folder cannot be read or written.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The address of the bucket is wrong.
    #[error(transparent)]
    Address(#[from] AddressError),
    /// The object store's client cannot be made.
    #[error(transparent)]
    Client(#[from] BucketClientError),
    /// The bucket cannot be claimed for this data folder.
    #[error(transparent)]
    Claim(#[from] ClaimError),
    /// The blobs are in a bucket, and the master was told to keep them in the folder.
    #[error(
        "the blobs of this data folder are kept in {0}: start with --blobs {0}; to have them in a \
         folder again, make a copy with `taskmaster store backup` and start on that"
    )]
    InBucket(String),
    /// The blobs are in another bucket than the master was told.
    #[error(
        "the blobs of this data folder are kept in {is}, not in {wanted}; to have them there, make \
         a copy with `taskmaster store backup` and start on that"
    )]
    InOtherBucket {
        /// The bucket that has them.
        is: String,
        /// The bucket that the master was told.
        wanted: String,
    },
}

/// What keeps a master from using a bucket.
#[derive(Debug, thiserror::Error)]
pub enum ClaimError {
    /// The bucket does not answer now.
    #[error("{0}")]
    Unavailable(String),
    /// The bucket refuses, or belongs to another data folder.
    #[error("{0}")]
    Refused(String),
}

/// Why bytes were not kept under the name that was given for them.
#[derive(Debug, thiserror::Error)]
pub enum PutError {
    /// They have another hash.
    #[error("the bytes have the hash {is}, not {named}")]
    WrongHash {
        /// The name given.
        named: Hash,
        /// Their hash.
        is: Hash,
    },
    /// They are more than one blob may have.
    #[error("a blob may have at most {} bytes", limits::BLOB_BYTES_MAX)]
    TooLarge,
    /// An upload cannot go on where its client wants to. The number says how many bytes are here.
    #[error("{0} bytes of it are here, so it goes on there")]
    Offset(u64),
    /// The disk or the bucket failed.
    #[error("the blob cannot be stored: {0}")]
    Io(#[from] io::Error),
}

/// The bucket does not do what it is asked for now. It may do so later.
#[derive(Debug, thiserror::Error)]
#[error("the object store {bucket} cannot be used now: {why}")]
pub struct BucketUnavailable {
    /// The bucket's address.
    pub(crate) bucket: String,
    /// What went wrong.
    pub(crate) why: String,
}

/// Whether this is the error of a bucket that may answer again later.
pub fn is_unavailable(error: &io::Error) -> bool {
    error
        .get_ref()
        .is_some_and(|inner| inner.is::<BucketUnavailable>())
}

/// The reason of an object store's error in a few words. Of the server's answer only its code and
/// its sentence are told, because the rest may name who asked.
pub(crate) fn short_reason(error: &Error) -> String {
    let text = error.to_string();
    let within = |tag: &str| {
        let (_, rest) = text.split_once(&format!("<{tag}>"))?;
        let (inner, _) = rest.split_once('<')?;
        let inner = inner.trim();
        (!inner.is_empty()).then(|| inner.to_owned())
    };

    match (within("Code"), within("Message")) {
        (Some(code), Some(message)) => format!("{code}: {message}"),
        (Some(code), None) => code,
        (None, _) => first_line_of_cause(error),
    }
}

/// The first line of the innermost error.
fn first_line_of_cause(error: &Error) -> String {
    let mut inner: &dyn std::error::Error = error;
    while let Some(source) = inner.source() {
        inner = source;
    }
    let text = inner.to_string();
    text.lines().next().unwrap_or_default().to_owned()
}
