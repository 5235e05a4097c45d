//! Downloads that bring almost nothing. A pause between two reads is limited elsewhere ([`super::http::Patience::idle`]); who sends
//! a byte a second never makes one.

use std::time::{Duration, Instant};

/// A download that brings less than this in [`super::http::Patience::slow`] is stalled; and it is no progress that would
/// forgive an earlier failure.
pub(super) const SLOW_BYTES: u64 = 16 << 10;

/// Watches one download.
pub(super) struct Pace {
    window: Duration,
    since: Instant,
    at: u64,
}

impl Pace {
    /// Of one that is at byte `at`.
    pub(super) fn new(window: Duration, at: u64) -> Pace {
        Pace {
            window,
            since: Instant::now(),
            at,
        }
    }

    /// Whether a window is over in which almost nothing came; the download is at byte `at` now.
    pub(super) fn is_stalled(&mut self, at: u64) -> bool {
        if self.since.elapsed() < self.window {
            return false;
        }
        let slow = at.saturating_sub(self.at) < SLOW_BYTES;
        *self = Pace::new(self.window, at);
        slow
    }
}

#[cfg(test)]
mod tests {
    use crate::image::digest::Digest;
    use crate::image::http::Patience;
    use crate::image::manifest::Descriptor;
    use crate::image::reference::Reference;
    use crate::image::registry::Repository;
    use std::io::{BufRead, BufReader, Write};
    use std::net::{TcpListener, TcpStream};
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::{Duration, Instant};

    const SIZE: u64 = 1 << 20;

    /// Sends a head, then `quick` bytes at once, then one every 20 ms until nobody listens.
    fn trickle(mut stream: TcpStream, head: &str, quick: usize) {
        let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
        // TLS is not spoken here; its first bytes are no text.
        while let Some(Ok(line)) = lines.next() {
            if line.is_empty() {
                let _ = stream.write_all(head.as_bytes());
                let _ = stream.write_all(&vec![7; quick]);
                while stream.write_all(&[7]).is_ok() {
                    std::thread::sleep(Duration::from_millis(20));
                }
            }
        }
    }

    /// Reads a blob of that registry to its end; what the error is, how often it was asked, how long it took.
    fn read(head: &'static str, quick: usize) -> (String, usize, Duration) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let name = format!("{}/slow:latest", listener.local_addr().unwrap());
        let asked = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&asked);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let mut first = [0];
                // A TLS greeting begins so.
                if stream.peek(&mut first).is_ok() && first != [0x16] {
                    count.fetch_add(1, Ordering::Relaxed);
                    std::thread::spawn(move || trickle(stream, head, quick));
                }
            }
        });
        let patience = Patience {
            backoff: Duration::from_millis(1),
            slow: Duration::from_millis(300),
            small_body: Duration::from_millis(300),
            ..Patience::default()
        };
        let notice = Arc::new(|_: &str| {});
        let repository = Repository::new(
            &Reference::parse(&name).unwrap(),
            true,
            None,
            patience,
            notice,
        );
        let blob = Descriptor {
            media_type: String::new(),
            size: SIZE,
            digest: Digest::sha256(b"never comes"),
        };
        let began = Instant::now();
        let mut reader = Arc::new(repository).blob(&blob);
        let mut buf = vec![0; 4096];
        let error = loop {
            match reader.next(&mut buf) {
                Ok(n) => assert_ne!(n, 0),
                Err(e) => break format!("{e:#}"),
            }
        };
        (error, asked.load(Ordering::Relaxed), began.elapsed())
    }

    #[test]
    fn a_download_that_trickles_ends_after_some_tries() {
        let head = "HTTP/1.1 200 OK\r\ncontent-length: 1048576\r\n\r\n";
        let (error, asked, took) = read(head, 0);
        assert!(error.contains("it brings almost nothing"), "{error}");
        assert!((2..=6).contains(&asked), "{asked}");
        assert!(took < Duration::from_secs(20), "{took:?}");
    }

    #[test]
    fn what_trickles_again_from_the_begin_is_not_waited_for() {
        // No ranges: what was received is to be passed over again.
        let head = "HTTP/1.1 200 OK\r\ncontent-length: 1048576\r\n\r\n";
        let (error, _, took) = read(head, 100);
        assert!(error.contains("almost nothing"), "{error}");
        assert!(took < Duration::from_secs(20), "{took:?}");
    }

    #[test]
    fn an_errors_text_that_trickles_is_not_waited_for() {
        let head = "HTTP/1.1 404 Not Found\r\ncontent-length: 1048576\r\n\r\n";
        let (error, _, took) = read(head, 0);
        assert!(error.contains("no such image"), "{error}");
        assert!(took < Duration::from_secs(20), "{took:?}");
    }
}
