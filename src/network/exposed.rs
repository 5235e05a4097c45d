//! Ports that an image or `--expose` names without publishing them.
//!
//! An image's configuration is somebody else's text: each word of it is checked, and what is many ports stays a range,
//! so that neither work nor memory grow with the numbers in it. Pure.

use std::fmt;

use crate::error::{Result, usage};

/// Consecutive ports of one protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Exposed {
    /// `tcp`, `udp` or `sctp`.
    pub protocol: &'static str,
    /// The first, from 1 on.
    pub first: u16,
    /// The last, not below the first.
    pub last: u16,
}

impl Exposed {
    /// Reads `PORT[-PORT][/PROTOCOL]`.
    ///
    /// # Errors
    /// A usage fault naming the text and what is wrong with it.
    pub fn parse(text: &str) -> Result<Exposed> {
        let bad = |why: &str| usage(format!("exposing the port {text:?}: {why}"));
        let (ports, named) = text.split_once('/').unwrap_or((text, "tcp"));
        let known = ["tcp", "udp", "sctp"];
        let protocol = known.into_iter().find(|p| p.eq_ignore_ascii_case(named));
        let Some(protocol) = protocol else {
            return Err(bad("the protocols are tcp, udp and sctp").into());
        };
        let (first, last) = ports.split_once('-').unwrap_or((ports, ports));
        let digits = |n: &str| n.bytes().all(|b| b.is_ascii_digit());
        let number = |n: &str| n.parse::<u16>().ok().filter(|p| *p > 0 && digits(n));
        match (number(first), number(last)) {
            (Some(first), Some(last)) if first <= last => Ok(Exposed {
                protocol,
                first,
                last,
            }),
            (Some(_), Some(_)) => Err(bad("it ends before it begins").into()),
            _ => Err(bad("a port is a number from 1 to 65535").into()),
        }
    }

    /// How many ports.
    #[must_use]
    pub fn count(&self) -> u32 {
        u32::from(self.last) - u32::from(self.first) + 1
    }
}

/// As `--expose` takes it, and images have it.
impl fmt::Display for Exposed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.count() {
            1 => write!(f, "{}/{}", self.first, self.protocol),
            _ => write!(f, "{}-{}/{}", self.first, self.last, self.protocol),
        }
    }
}

/// The same ports, each once, as few ranges as there can be: by protocol and number.
#[must_use]
pub fn merged(mut ranges: Vec<Exposed>) -> Vec<Exposed> {
    ranges.sort_unstable();
    let mut all: Vec<Exposed> = Vec::new();
    for range in ranges {
        match all.last_mut() {
            Some(before)
                if before.protocol == range.protocol
                    && u32::from(range.first) <= u32::from(before.last) + 1 =>
            {
                before.last = before.last.max(range.last);
            }
            _ => all.push(range),
        }
    }
    all
}

/// Those of `ranges` that are not in `taken`, merged.
#[must_use]
pub fn without(ranges: Vec<Exposed>, taken: Vec<Exposed>) -> Vec<Exposed> {
    let taken = merged(taken);
    let mut all = Vec::new();
    let mut at = 0;
    for range in merged(ranges) {
        // Both are in order: what ends before this range begins ends before the next one, too.
        let below = |t: &Exposed| (t.protocol, t.last) < (range.protocol, range.first);
        while taken.get(at).is_some_and(below) {
            at += 1;
        }
        let mut first = u32::from(range.first);
        for hole in &taken[at..] {
            if hole.protocol != range.protocol || hole.first > range.last {
                break;
            }
            all.extend(between(range.protocol, first, u32::from(hole.first)));
            first = u32::from(hole.last) + 1;
        }
        all.extend(between(range.protocol, first, u32::from(range.last) + 1));
    }
    all
}

/// From `first` to before `end`, if that is any.
fn between(protocol: &'static str, first: u32, end: u32) -> Option<Exposed> {
    let last = end.checked_sub(1).filter(|last| *last >= first)?;
    Some(Exposed {
        protocol,
        first: u16::try_from(first).ok()?,
        last: u16::try_from(last).ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(texts: &[&str]) -> Vec<Exposed> {
        texts.iter().map(|t| Exposed::parse(t).expect(t)).collect()
    }

    fn shown(ranges: &[Exposed]) -> Vec<String> {
        ranges.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn ports_are_read_as_images_have_them() {
        let texts = ["80", "53/udp", "7-9/TCP", "1-65535/sctp"];
        let expected = ["80/tcp", "53/udp", "7-9/tcp", "1-65535/sctp"];
        assert_eq!(shown(&all(&texts)), expected);
        for bad in [
            "",
            "x",
            "0",
            "0/tcp",
            "0-65535/tcp",
            "70000",
            "9-3",
            "80/bogus",
            "80/",
            "-",
            "1-",
            "+1",
            "1-2-3",
            "80/tcp/x",
        ] {
            assert!(Exposed::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn ranges_that_touch_become_one() {
        let ranges = all(&[
            "9/udp",
            "80",
            "81-90",
            "85-87",
            "92",
            "65535",
            "1-65534/sctp",
            "65535/sctp",
        ]);
        assert_eq!(
            shown(&merged(ranges)),
            ["1-65535/sctp", "80-90/tcp", "92/tcp", "65535/tcp", "9/udp"]
        );
    }

    #[test]
    fn what_is_taken_is_cut_out() {
        let cut = |from: &[&str], taken: &[&str]| shown(&without(all(from), all(taken)));
        assert_eq!(
            cut(&["80-90"], &["80", "85-86", "90", "1"]),
            ["81-84/tcp", "87-89/tcp"]
        );
        assert_eq!(cut(&["80-90", "80/udp"], &["1-65535"]), ["80/udp"]);
        assert_eq!(cut(&["1-65535"], &["65535"]), ["1-65534/tcp"]);
        assert_eq!(
            cut(&["10-20", "30-40"], &["15-35"]),
            ["10-14/tcp", "36-40/tcp"]
        );
        assert_eq!(cut(&["80"], &[]), ["80/tcp"]);
    }

    #[test]
    fn ten_thousand_ranges_are_no_more_work_than_their_text() {
        let began = std::time::Instant::now();
        // Expanded these are 655 million ports.
        let many: Vec<Exposed> = (0..10_000u16)
            .map(|i| Exposed::parse(&format!("{}-65535/udp", i % 7 + 1)).expect("range"))
            .collect();
        let holes: Vec<Exposed> = (0..10_000u16)
            .map(|i| Exposed::parse(&format!("{}/udp", i * 2 + 2)).expect("hole"))
            .collect();
        assert_eq!(shown(&merged(many.clone())), ["1-65535/udp"]);
        assert_eq!(without(many, holes).len(), 10_001);
        assert!(began.elapsed() < std::time::Duration::from_secs(5));
    }
}
