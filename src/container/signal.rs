//! Signals by the names users write.

use nix::sys::signal::Signal;

use crate::error::{Result, usage};

/// `TERM`, `SIGTERM`, `15`, `RTMIN+3` as a signal number.
///
/// # Errors
/// There is no such signal.
pub fn parse(text: &str) -> Result<i32> {
    let bad = || usage(format!("invalid signal: {text}"));
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    let number = if let Ok(n) = name.parse::<i32>() {
        if !(1..=64).contains(&n) {
            return Err(usage("valid signals are 1 through 64").into());
        }
        n
    } else if let Some(offset) = name.strip_prefix("RTMIN") {
        34 + offset_of(offset).ok_or_else(bad)?
    } else if let Some(offset) = name.strip_prefix("RTMAX") {
        64 + offset_of(offset).ok_or_else(bad)?
    } else {
        format!("SIG{name}").parse::<Signal>().map_err(|_| bad())? as i32
    };
    if (1..=64).contains(&number) {
        return Ok(number);
    }
    Err(bad().into())
}

/// `SIGTERM` for 15.
#[must_use]
pub fn name(number: i32) -> String {
    match (Signal::try_from(number), number) {
        (Ok(signal), _) => signal.to_string(),
        (Err(_), 34) => "SIGRTMIN".to_owned(),
        (Err(_), 35..=64) => format!("SIGRTMIN+{}", number - 34),
        (Err(_), other) => other.to_string(),
    }
}

fn offset_of(text: &str) -> Option<i32> {
    match text {
        "" => Some(0),
        text => text.parse().ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers() {
        for (text, number) in [
            ("TERM", 15),
            ("SIGKILL", 9),
            ("sigint", 2),
            ("15", 15),
            ("RTMIN+3", 37),
            ("SIGRTMAX-1", 63),
            ("SIGRTMIN", 34),
        ] {
            assert_eq!(parse(text).unwrap(), number, "{text}");
        }
        assert_eq!(name(15), "SIGTERM");
        assert_eq!(parse(&name(37)).unwrap(), 37);
        for bad in ["", "0", "65", "SIGFOO", "RTMIN+99", "-1"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
