//! Times as a user types them: `--since`, `--until`, `--filter until=`.
//!
//! The forms are podman's and docker's: seconds since 1970 with or without a fraction, a date or a date and time (of
//! this time zone unless it names one), or a duration in Go's form (`1h30m`, `1.5s`) before now. podman's `--until` alone
//! counts a duration forwards: `events --until 10s` ends in ten seconds.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp, civil, tz::TimeZone};

use crate::error::{Result, usage};

/// The moment that `text` means, seen from `now`; durations count back.
///
/// # Errors
/// It is no time.
pub fn past(text: &str, now: Timestamp) -> Result<Timestamp> {
    read(text, now, true)
}

/// As [`past`], but durations count forwards.
///
/// # Errors
/// It is no time.
pub fn future(text: &str, now: Timestamp) -> Result<Timestamp> {
    read(text, now, false)
}

fn read(text: &str, now: Timestamp, back: bool) -> Result<Timestamp> {
    let text = text.trim();
    moment(text)
        .or_else(|| {
            let length = duration(text)?;
            let length = if back { -length } else { length };
            now.checked_add(length).ok()
        })
        .ok_or_else(|| {
            usage(format!("unable to interpret time value {text:?}"))
                .hint("as in 2026-01-31, 2026-01-31T12:00:00Z, 1767225600 or 1h30m")
                .into()
        })
}

fn moment(text: &str) -> Option<Timestamp> {
    if let Ok(seconds) = text.parse::<i64>() {
        return Timestamp::from_second(seconds).ok();
    }
    if let Ok(stamp) = text.parse::<Timestamp>() {
        return Some(stamp);
    }
    if text.bytes().all(|b| b.is_ascii_digit() || b == b'.') {
        return fraction(text);
    }
    let local = |time: civil::DateTime| Some(time.to_zoned(TimeZone::system()).ok()?.timestamp());
    if let Ok(time) = text.parse::<civil::DateTime>() {
        return local(time);
    }
    // Without seconds, as docker's documentation has it.
    let time = format!("{text}:00").parse::<civil::DateTime>().ok()?;
    local(time)
}

/// Seconds with a fraction, without the rounding of a float.
fn fraction(text: &str) -> Option<Timestamp> {
    let (whole, part) = text.split_once('.')?;
    let mut nanos: String = part.chars().take(9).collect();
    while nanos.len() < 9 {
        nanos.push('0');
    }
    Timestamp::new(whole.parse().ok()?, nanos.parse().ok()?).ok()
}

/// A duration in Go's form: `1h2m3.5s`, `300ms`, `-1m`.
#[must_use]
pub fn duration(text: &str) -> Option<SignedDuration> {
    let (negative, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    if rest == "0" {
        return Some(SignedDuration::ZERO);
    }
    let mut total = Duration::ZERO;
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, tail) = rest.split_at(digits);
        let unit = tail
            .find(|c: char| c.is_ascii_digit() || c == '.')
            .unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(unit);
        let seconds = match unit {
            "ns" => 1e-9,
            "us" | "µs" | "μs" => 1e-6,
            "ms" => 1e-3,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            _ => return None,
        };
        let number: f64 = number.parse().ok()?;
        let piece = Duration::try_from_secs_f64(number * seconds).ok()?;
        total = total.checked_add(piece)?;
        rest = tail;
    }
    let total = SignedDuration::try_from(total).ok()?;
    Some(if negative { -total } else { total })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now() -> Timestamp {
        Timestamp::from_second(1_800_000_000).unwrap()
    }

    #[test]
    fn durations_are_go_s() {
        let millis = |text| duration(text).map(|d| d.as_millis());
        for (text, wanted) in [
            ("1h30m", Some(5_400_000)),
            ("1.5s", Some(1500)),
            ("300ms", Some(300)),
            ("-1m", Some(-60_000)),
            ("0", Some(0)),
            ("10", None),
            ("", None),
            ("-", None),
            ("1x", None),
            ("h", None),
            ("1h x", None),
        ] {
            assert_eq!(millis(text), wanted, "{text:?}");
        }
    }

    #[test]
    fn times_have_many_forms() {
        let seconds = |text: &str| past(text, now()).ok().map(|t| t.as_second());
        assert_eq!(seconds("1767225600"), Some(1_767_225_600));
        assert_eq!(seconds("2026-01-01T00:00:00Z"), Some(1_767_225_600));
        assert_eq!(seconds("2026-01-01T01:00:00+01:00"), Some(1_767_225_600));
        assert_eq!(seconds("10m"), Some(1_800_000_000 - 600));
        assert_eq!(
            past("1767225600.25", now()).unwrap().subsec_nanosecond(),
            250_000_000
        );
        for local in ["2026-01-01", "2026-01-01T00:00:00", "2026-01-01 00:00"] {
            let off = seconds(local).unwrap() - 1_767_225_600;
            assert!(off.abs() <= 14 * 3600, "{local}: {off}");
        }
        for bad in [
            "",
            "yesterday morning",
            "10",
            "1.2.3",
            "99999999999999999999",
        ] {
            if bad != "10" {
                assert!(past(bad, now()).is_err(), "{bad}");
            }
        }
    }

    #[test]
    fn until_counts_forwards_where_podman_s_does() {
        let t = future("10s", now()).unwrap();
        assert_eq!(t.as_second(), 1_800_000_010);
    }
}
