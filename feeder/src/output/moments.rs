//! Times for people: in the zone of this machine, with the zone's distance from UTC, and how long
//! ago they are.

use jiff::Timestamp;
use jiff::tz::TimeZone;
use taskmaster_protocol::Wall;

/// A time to the second, with its zone. Empty where there is none.
pub fn moment(time: Option<Wall>) -> String {
    moment_in(time, TimeZone::system())
}

/// A time with its zone and how long ago it is. Empty where there is none.
pub fn moment_and_age(time: Option<Wall>) -> String {
    match time {
        Some(time) => format!("{}, {}", moment(Some(time)), since(time, now())),
        None => String::new(),
    }
}

/// How long ago a time is, in one unit.
pub fn age(time: Wall) -> String {
    let (us, _) = distance(time, now());
    in_one_unit(us)
}

/// The time of day to the millisecond, in the zone of this machine. It is for what happens now.
pub fn time_of_day(time: Wall) -> String {
    shown(time, TimeZone::system(), "%H:%M:%S%.3f")
}

fn moment_in(time: Option<Wall>, zone: TimeZone) -> String {
    let Some(time) = time else {
        return String::new();
    };
    shown(time, zone, "%Y-%m-%d %H:%M:%S %:z").replace("+00:00", "UTC")
}

fn shown(time: Wall, zone: TimeZone, format: &str) -> String {
    let time = Timestamp::from_microsecond(time.0).unwrap_or(Timestamp::UNIX_EPOCH);
    time.to_zoned_datetime(zone).strftime(format).to_string()
}

pub fn now() -> Wall {
    Wall(Timestamp::now().as_microsecond())
}

/// Microseconds between two times, and whether `time` is still to come.
fn distance(time: Wall, now: Wall) -> (u64, bool) {
    (time.0.abs_diff(now.0), time > now)
}

fn since(time: Wall, now: Wall) -> String {
    match distance(time, now) {
        (us, false) => format!("{} ago", in_one_unit(us)),
        (us, true) => format!("in {}", in_one_unit(us)),
    }
}

fn in_one_unit(us: u64) -> String {
    match us / 1_000_000 {
        seconds @ 0..60 => format!("{seconds} s"),
        seconds @ 60..3_600 => format!("{} min", seconds / 60),
        seconds @ 3_600..172_800 => format!("{} h", seconds / 3_600),
        seconds => format!("{} d", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_has_the_zone_in_which_it_is_shown() {
        let time = Some(Wall(1_700_000_000_123_456));
        for (zone, expected) in [
            (TimeZone::UTC, "2023-11-14 22:13:20 UTC"),
            (
                TimeZone::fixed(jiff::tz::Offset::constant(-3)),
                "2023-11-14 19:13:20 -03:00",
            ),
        ] {
            assert_eq!(moment_in(time, zone), expected);
        }
        assert_eq!(moment(None), "");
        assert_eq!(moment_and_age(None), "");
        let of_day = time_of_day(Wall(1_700_000_000_123_456));
        assert!(of_day.ends_with(":20.123"), "{of_day}");
    }

    #[test]
    fn an_age_has_one_unit() {
        let now = Wall(1_000_000_000_000);
        for (seconds, expected) in [
            (0, "0 s ago"),
            (59, "59 s ago"),
            (61, "1 min ago"),
            (7_300, "2 h ago"),
            (200_000, "2 d ago"),
            (-90, "in 1 min"),
        ] {
            assert_eq!(since(Wall(now.0 - seconds * 1_000_000), now), expected);
        }
    }
}
