//! The address of a bucket in which blobs are kept: `s3://bucket/prefix`, as it is typed.
//!
//! The server, the region and the credentials come from the environment variables that all programs
//! for S3 read.

use crate::connector::{BucketConnector, is_true};
use crate::errors::{AddressError, BucketClientError, short_reason};
use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};
use object_store::path::Path;
use object_store::{BackoffConfig, ObjectStore, RetryConfig};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// A request is sent up to four times within some two seconds. Then its caller is told of the error
/// and may try again.
const RETRIES: RetryConfig = RetryConfig {
    backoff: BackoffConfig {
        init_backoff: Duration::from_millis(100),
        max_backoff: Duration::from_secs(1),
        base: 2.,
    },
    max_retries: 3,
    retry_timeout: Duration::from_secs(20),
};

/// A part of a bucket. It never contains credentials, because it is shown and logged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BucketAddress {
    bucket: String,
    /// Without `/` at its ends; empty for the whole bucket.
    prefix: String,
}

impl fmt::Display for BucketAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "s3://{}", self.bucket)?;
        if self.prefix.is_empty() {
            Ok(())
        } else {
            write!(f, "/{}", self.prefix)
        }
    }
}

impl BucketAddress {
    /// Reads `s3://bucket` or `s3://bucket/prefix`.
    pub fn parse(text: &str) -> Result<BucketAddress, AddressError> {
        let owned = || text.to_owned();
        let Some((scheme, rest)) = text.split_once("://") else {
            return Err(AddressError::NoScheme(owned()));
        };
        if rest.contains('@') {
            return Err(AddressError::Credentials);
        }
        if scheme != "s3" {
            return Err(AddressError::UnknownScheme {
                text: owned(),
                scheme: scheme.to_owned(),
            });
        }

        let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        if bucket.is_empty() || !bucket.chars().all(is_allowed) {
            return Err(AddressError::NoBucket(owned()));
        }
        let prefix = prefix.trim_matches('/');
        if !prefix.is_empty() && !prefix.split('/').all(is_prefix_part) {
            return Err(AddressError::WrongPrefix(owned()));
        }
        Ok(BucketAddress {
            bucket: bucket.to_owned(),
            prefix: prefix.to_owned(),
        })
    }

    pub(crate) fn prefix(&self) -> Path {
        Path::from(self.prefix.as_str())
    }

    /// A client for this bucket, set up by this process's `AWS_…` variables. Sends nothing yet.
    pub(crate) fn client(&self) -> Result<Arc<dyn ObjectStore>, BucketClientError> {
        let certificates = std::env::var_os("AWS_CA_BUNDLE")
            .filter(|path| !path.is_empty())
            .map(Into::into);
        let builder = AmazonS3Builder::from_env()
            .with_bucket_name(&self.bucket)
            .with_retry(RETRIES)
            .with_http_connector(BucketConnector::trusting(certificates)?);
        check_endpoint(&builder)?;

        let client = builder
            .build()
            .map_err(|error| BucketClientError::Settings(short_reason(&error)))?;
        Ok(Arc::new(client))
    }
}

fn is_allowed(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_')
}

fn is_prefix_part(part: &str) -> bool {
    !part.is_empty() && part != "." && part != ".." && part.chars().all(is_allowed)
}

/// Refuses an endpoint without TLS, unless the user allows it.
fn check_endpoint(builder: &AmazonS3Builder) -> Result<(), BucketClientError> {
    let endpoint = [AmazonS3ConfigKey::S3Endpoint, AmazonS3ConfigKey::Endpoint]
        .iter()
        .find_map(|key| builder.get_config_value(key));
    let Some(endpoint) = endpoint else {
        return Ok(());
    };
    let is_http_allowed = std::env::var("AWS_ALLOW_HTTP").is_ok_and(|value| is_true(&value));
    match endpoint.split_once("://").map(|(scheme, _)| scheme) {
        Some("https") => Ok(()),
        Some("http") if is_http_allowed => Ok(()),
        Some("http") => Err(BucketClientError::PlainHttp),
        Some(_) | None => Err(BucketClientError::WrongEndpoint(endpoint)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_read_or_told_what_is_wrong_with_it() {
        for (typed, shown) in [
            ("s3://b", "s3://b"),
            ("s3://b/", "s3://b"),
            ("s3://my.b-1/a/b/", "s3://my.b-1/a/b"),
        ] {
            assert_eq!(BucketAddress::parse(typed).unwrap().to_string(), shown);
        }
        for (typed, words) in [
            ("bucket", "s3://bucket/prefix"),
            ("s3:bucket", "s3://bucket/prefix"),
            ("gs://bucket", "`gs`"),
            ("https://host/bucket", "AWS_ENDPOINT_URL"),
            ("s3://", "names no bucket"),
            ("s3:///prefix", "names no bucket"),
            ("s3://b/a//c", "single `/`"),
            ("s3://b/../c", "single `/`"),
            ("s3://b?region=x", "names no bucket"),
        ] {
            let told = BucketAddress::parse(typed).unwrap_err().to_string();
            assert!(
                told.contains(words) && told.contains(typed),
                "{typed}: {told}"
            );
        }
        let told = BucketAddress::parse("s3://key:hidden@bucket")
            .unwrap_err()
            .to_string();
        assert!(
            !told.contains("hidden") && told.contains("AWS_SECRET_ACCESS_KEY"),
            "{told}"
        );
    }
}
