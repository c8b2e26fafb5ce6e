//! Where blobs are kept if not in the data folder: `s3://bucket/prefix`, as it is typed. How to get
//! there (the server, the region, who asks) is said by the variables that all programs for S3 read.

use super::dial::{Dialler, is_yes};
use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};
use object_store::path::Path;
use object_store::{BackoffConfig, ObjectStore, RetryConfig};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// A request is tried four times within some two seconds; then the caller is told, and may come
/// again.
const TRIES: RetryConfig = RetryConfig {
    backoff: BackoffConfig {
        init_backoff: Duration::from_millis(100),
        max_backoff: Duration::from_secs(1),
        base: 2.,
    },
    max_retries: 3,
    retry_timeout: Duration::from_secs(20),
};

/// Part of a bucket. Never with credentials in it: it is shown and logged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    bucket: String,
    prefix: String,
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "s3://{}", self.bucket)?;
        if self.prefix.is_empty() {
            Ok(())
        } else {
            write!(f, "/{}", self.prefix)
        }
    }
}

impl Address {
    /// Reads `s3://bucket` or `s3://bucket/prefix`.
    pub fn parse(text: &str) -> Result<Address, String> {
        let form = "write it like s3://bucket or s3://bucket/prefix";
        let Some((scheme, rest)) = text.split_once("://") else {
            return Err(format!("`{text}` is no address of an object store; {form}"));
        };
        // What stands before an @ may be a secret, and is not repeated.
        if rest.contains('@') {
            return Err(format!(
                "the address has an `@` in it; {form}, and credentials into AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
            ));
        }
        if scheme != "s3" {
            return Err(format!(
                "`{text}` has the scheme `{scheme}`, known is `s3`; {form}, and the server's address into AWS_ENDPOINT_URL"
            ));
        }
        let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        let may = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_');
        if bucket.is_empty() || !bucket.chars().all(may) {
            return Err(format!(
                "`{text}` names no bucket (letters, digits, `-`, `.`, `_`); {form}"
            ));
        }
        let prefix = prefix.trim_matches('/');
        let sound =
            |part: &str| !part.is_empty() && part != "." && part != ".." && part.chars().all(may);
        if !prefix.is_empty() && !prefix.split('/').all(sound) {
            return Err(format!(
                "`{text}`: a prefix has parts of letters, digits, `-`, `.`, `_` between single `/`"
            ));
        }
        Ok(Address {
            bucket: bucket.to_owned(),
            prefix: prefix.to_owned(),
        })
    }

    pub(super) fn prefix(&self) -> Path {
        Path::from(self.prefix.as_str())
    }

    /// The way there, by this process's `AWS_…` variables. Nothing is asked yet.
    pub(super) fn store(&self) -> Result<Arc<dyn ObjectStore>, String> {
        let bundle = std::env::var_os("AWS_CA_BUNDLE")
            .filter(|path| !path.is_empty())
            .map(Into::into);
        let builder = AmazonS3Builder::from_env()
            .with_bucket_name(&self.bucket)
            .with_retry(TRIES)
            .with_http_connector(Dialler::trusting(bundle)?);
        let endpoint = [AmazonS3ConfigKey::S3Endpoint, AmazonS3ConfigKey::Endpoint]
            .iter()
            .find_map(|key| builder.get_config_value(key));
        if let Some(endpoint) = endpoint {
            let allowed = std::env::var("AWS_ALLOW_HTTP").is_ok_and(|said| is_yes(&said));
            match endpoint.split_once("://").map(|(scheme, _)| scheme) {
                Some("https") => {}
                Some("http") if allowed => {}
                Some("http") => {
                    return Err("AWS_ENDPOINT_URL begins with http://, which neither hides nor proves anything; use https://, or say AWS_ALLOW_HTTP=true".into());
                }
                _ => {
                    return Err(format!(
                        "AWS_ENDPOINT_URL is `{endpoint}`; write it like https://host:port"
                    ));
                }
            }
        }
        Ok(Arc::new(
            builder
                .build()
                .map_err(|error| super::home::reason(&error))?,
        ))
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
            assert_eq!(Address::parse(typed).unwrap().to_string(), shown);
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
            let told = Address::parse(typed).unwrap_err();
            assert!(
                told.contains(words) && told.contains(typed),
                "{typed}: {told}"
            );
        }
        let told = Address::parse("s3://key:hidden@bucket").unwrap_err();
        assert!(
            !told.contains("hidden") && told.contains("AWS_SECRET_ACCESS_KEY"),
            "{told}"
        );
    }
}
