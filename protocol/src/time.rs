//! Times as values. Nothing here reads a clock.

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::borrow::Cow;
use std::fmt;

/// The times of both clocks, which callers pass to the core.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Now {
    /// Microseconds of a monotonic clock since a start of its own, for leases, timeouts and
    /// back-off.
    pub mono_us: u64,
    /// The time of day, for `not_before` and for people.
    pub wall: Wall,
}

/// A time of day in microseconds since 1970, UTC. As JSON it is a string by RFC 3339, with six
/// decimals and `Z`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Wall(pub i64);

impl Wall {
    /// The time `us` microseconds later, or the latest time that there is.
    pub fn plus_us(self, us: u64) -> Wall {
        Wall(self.0.saturating_add_unsigned(us))
    }

    /// Microseconds from `earlier` to this time; 0 where `earlier` is later.
    pub fn since_us(self, earlier: Wall) -> u64 {
        u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0)
    }

    /// Reads a time by RFC 3339, with a zone.
    pub fn parse(text: &str) -> Result<Wall, String> {
        text.parse::<jiff::Timestamp>()
            .map(|time| Wall(time.as_microsecond()))
            .map_err(|_| format!("`{text}` is not a time such as 2026-01-31T12:00:00Z"))
    }
}

impl fmt::Display for Wall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let time = jiff::Timestamp::from_microsecond(self.0).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
        // The precision of jiff is that of the fraction of a second; its zone is `Z`.
        write!(f, "{time:.6}")
    }
}

impl Serialize for Wall {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() {
            serializer.collect_str(self)
        } else {
            serializer.serialize_i64(self.0)
        }
    }
}

impl<'de> Deserialize<'de> for Wall {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Wall, D::Error> {
        if deserializer.is_human_readable() {
            let text = String::deserialize(deserializer)?;
            Wall::parse(&text).map_err(serde::de::Error::custom)
        } else {
            i64::deserialize(deserializer).map(Wall)
        }
    }
}

impl schemars::JsonSchema for Wall {
    fn schema_name() -> Cow<'static, str> {
        "Time".into()
    }
    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({ "type": "string", "format": "date-time" })
    }
}

/// Reads a duration in microseconds as people type it: `10m`, `1h30m`, `250ms`, `1.5s`. A bare
/// number is refused, because nobody knows its unit.
pub fn parse_duration_us(text: &str) -> Result<u64, String> {
    let wrong = || {
        format!(
            "`{text}` is not a duration: write a number with its unit, \
             such as 250ms, 10s, 5m, 1h30m, 7d"
        )
    };
    // The days of jiff have no fixed length without a date; a day here has 24 hours.
    if let Some(days) = text
        .strip_suffix('d')
        .and_then(|n| n.trim().parse::<u64>().ok())
    {
        return days.checked_mul(86_400_000_000).ok_or_else(wrong);
    }
    let span: jiff::SignedDuration = text.trim().parse().map_err(|_| wrong())?;
    u64::try_from(span.as_micros()).map_err(|_| wrong())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_always_have_six_decimals() {
        assert_eq!(Wall(0).to_string(), "1970-01-01T00:00:00.000000Z");
        assert_eq!(
            Wall(1_700_000_000_123_456).to_string(),
            "2023-11-14T22:13:20.123456Z"
        );
        assert_eq!(
            Wall::parse("2023-11-14T22:13:20.123456Z"),
            Ok(Wall(1_700_000_000_123_456))
        );
        assert!(Wall::parse("yesterday").is_err());
    }

    #[test]
    fn durations_carry_their_unit() {
        assert_eq!(parse_duration_us("250ms"), Ok(250_000));
        assert_eq!(parse_duration_us("10s"), Ok(10_000_000));
        assert_eq!(parse_duration_us("1h30m"), Ok(5_400_000_000));
        assert_eq!(parse_duration_us("7d"), Ok(604_800_000_000));
        for bad in ["10", "-1s", "soon", ""] {
            assert!(parse_duration_us(bad).is_err(), "{bad:?}");
        }
    }
}
