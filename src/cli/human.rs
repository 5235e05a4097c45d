//! Sizes and times as podman and docker print them (go-units).

use jiff::Timestamp;

/// `7.34MB`: decimal units, three significant digits.
#[must_use]
pub fn size(bytes: u64) -> String {
    with_units(bytes, 1000.0, &DECIMAL, 3)
}

/// `7.342MB`: decimal units, four significant digits.
#[must_use]
pub fn size4(bytes: u64) -> String {
    with_units(bytes, 1000.0, &DECIMAL, 4)
}

/// `7.002MiB`: powers of 1024, four significant digits.
#[must_use]
pub fn binary(bytes: u64) -> String {
    with_units(bytes, 1024.0, &["B", "KiB", "MiB", "GiB", "TiB", "PiB"], 4)
}

const DECIMAL: [&str; 6] = ["B", "kB", "MB", "GB", "TB", "PB"];

fn with_units(bytes: u64, base: f64, units: &[&str; 6], digits: usize) -> String {
    let mut unit = 0;
    let mut value = bytes as f64;
    while value >= base && unit + 1 < units.len() {
        value /= base;
        unit += 1;
    }
    format!("{}{}", significant(value, digits), units[unit])
}

/// A duration as Go prints it: `1h2m3.5s`, `12.5ms`, `0s`.
#[must_use]
pub fn go_duration(duration: std::time::Duration) -> String {
    let nanos = duration.as_nanos();
    let below = |unit: f64, name: &str| {
        let text = format!("{:.6}", nanos as f64 / unit);
        let text = text.trim_end_matches('0').trim_end_matches('.');
        format!("{text}{name}")
    };
    match nanos {
        0 => return "0s".to_owned(),
        1..1_000 => return format!("{nanos}ns"),
        1_000..1_000_000 => return below(1e3, "µs"),
        1_000_000..1_000_000_000 => return below(1e6, "ms"),
        _ => {}
    }
    let seconds = duration.as_secs();
    let part = format!("{}.{:09}", seconds % 60, duration.subsec_nanos());
    let part = part.trim_end_matches('0').trim_end_matches('.');
    match (seconds / 3600, seconds / 60 % 60) {
        (0, 0) => format!("{part}s"),
        (0, minutes) => format!("{minutes}m{part}s"),
        (hours, minutes) => format!("{hours}h{minutes}m{part}s"),
    }
}

/// Go's `%.3g` for values below 1000: `7.34`, `12`, `123`.
fn significant(value: f64, digits: usize) -> String {
    let whole = match value {
        v if v < 10.0 => 1,
        v if v < 100.0 => 2,
        v if v < 1000.0 => 3,
        _ => 4,
    };
    let decimals = digits.saturating_sub(whole);
    let text = format!("{value:.decimals$}");
    if text.contains('.') {
        text.trim_end_matches('0').trim_end_matches('.').to_owned()
    } else {
        text
    }
}

/// `3 minutes`, `About an hour`: how long `seconds` is.
#[must_use]
pub fn duration(seconds: i64) -> String {
    let plural = |n: i64, unit: &str| format!("{n} {unit}s");
    let (minutes, hours) = (seconds / 60, (seconds + 1800) / 3600);
    match seconds {
        i64::MIN..1 => "Less than a second".into(),
        1 => "1 second".into(),
        2..60 => plural(seconds, "second"),
        60..120 => "About a minute".into(),
        120..3600 => plural(minutes, "minute"),
        _ if hours == 1 => "About an hour".into(),
        _ if hours < 48 => plural(hours, "hour"),
        _ if hours < 24 * 7 * 2 => plural(hours / 24, "day"),
        _ if hours < 24 * 30 * 2 => plural(hours / 24 / 7, "week"),
        _ if hours < 24 * 365 * 2 => plural(hours / 24 / 30, "month"),
        _ => plural(hours / 24 / 365, "year"),
    }
}

/// `3 minutes ago`; empty for no time.
#[must_use]
pub fn ago(time: Option<Timestamp>) -> String {
    time.map_or_else(String::new, |t| {
        format!(
            "{} ago",
            duration(Timestamp::now().as_second() - t.as_second())
        )
    })
}

/// `2026-01-02 03:04:05.678901234 +0000 UTC` in the local zone, as Go prints a time.
#[must_use]
pub fn date(time: Timestamp) -> String {
    let zoned = time.to_zoned(jiff::tz::TimeZone::system());
    zoned.strftime("%Y-%m-%d %H:%M:%S%.f %z %Z").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_three_digits() {
        for (bytes, text) in [
            (0, "0B"),
            (999, "999B"),
            (1000, "1kB"),
            (7_340_000, "7.34MB"),
            (12_000_000, "12MB"),
            (123_456_789, "123MB"),
            (1_500_000_000, "1.5GB"),
        ] {
            assert_eq!(size(bytes), text);
        }
    }

    #[test]
    fn four_digits_binary_units_and_go_s_durations() {
        assert_eq!(size4(7_342_123), "7.342MB");
        assert_eq!(size4(0), "0B");
        assert_eq!(size4(123_400), "123.4kB");
        assert_eq!(binary(7 << 20), "7MiB");
        assert_eq!(binary(1023), "1023B");
        let go = |nanos| go_duration(std::time::Duration::from_nanos(nanos));
        for (nanos, text) in [
            (0, "0s"),
            (15, "15ns"),
            (1_500, "1.5µs"),
            (12_345_678, "12.345678ms"),
            (1_000_000_000, "1s"),
            (61_500_000_000, "1m1.5s"),
            (3_600_000_000_000, "1h0m0s"),
        ] {
            assert_eq!(go(nanos), text);
        }
    }

    #[test]
    fn durations_round_as_go_units() {
        for (seconds, text) in [
            (0, "Less than a second"),
            (1, "1 second"),
            (59, "59 seconds"),
            (61, "About a minute"),
            (185, "3 minutes"),
            (3600, "About an hour"),
            (7200, "2 hours"),
            (3 * 86400, "3 days"),
            (20 * 86400, "2 weeks"),
            (800 * 86400, "2 years"),
        ] {
            assert_eq!(duration(seconds), text, "{seconds}");
        }
    }
}
