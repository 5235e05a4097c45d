//! The attach protocol: frames between a container's supervisor and its clients.
//!
//! A connection is a `SOCK_SEQPACKET` Unix socket: one packet is one frame, so there is no framing
//! to get wrong. The first byte names the kind, the rest is its payload, integers little-endian:
//!
//! | kind | from | payload |
//! |---|---|---|
//! | 1 `Hello` | client | `u8` flags: 1 wants standard input, 2 wants the backlog first |
//! | 2 `Stdin` | client | bytes |
//! | 3 `StdinEof` | client | – |
//! | 4 `Resize` | client | `u16` rows, `u16` columns |
//! | 5 `Signal` | client | `u8` signal number, for the container's first process |
//! | 6 `Detach` | client | – : the client leaves, the container stays |
//! | 7 `OutputClosed` | client | `u8` stream: nobody reads it any more |
//! | 8 `Ask` | client | JSON: a question ([`super::ask`]), or the last piece of one |
//! | 9 `Exec` | client | JSON: a process to be run beside the first one, or the last piece of it; the connection is that process's from then on |
//! | 10 `More` | client | a piece of what the next `Ask` or `Exec` ends |
//! | 16 `Started` | supervisor | – : the command has been executed |
//! | 17 `Stdout`, 18 `Stderr` | supervisor | bytes |
//! | 19 `StdinAck` | supervisor | `u32` bytes that reached the container |
//! | 20 `Exit` | supervisor | `i32` exit code, UTF-8 note for the user (`out of memory`) |
//! | 22 `Notice` | supervisor | UTF-8 text for the user |
//! | 23 `Answer` | supervisor | JSON: the answer to an `Ask`, or the last piece of one |
//! | 24 `AnswerMore` | supervisor | a piece of what the next `Answer` ends |
//! | 25 `Busy` | supervisor | – : every second, to everyone, while its record or the container's end is written to disk and nobody is heard; after `Exit`: others still read |
//! | 21 `Error` | supervisor | `u8` exit code, UTF-8 report: the container did not start |
//!
//! A client sends at most [`STDIN_WINDOW`] bytes of input that have not been acknowledged: a
//! container that does not read its input must not stop signals and window sizes behind it.
//! `Exit` and `Error` are the last frames; a connection that ends without one means that the
//! supervisor died. Unknown kinds are ignored, so that either side may be newer.

/// Most payload bytes of one frame.
pub const CHUNK: usize = 32 * 1024;
/// Most unacknowledged bytes of standard input.
pub const STDIN_WINDOW: usize = 4 * CHUNK;
/// Size of a buffer that any frame fits in.
pub const FRAME: usize = CHUNK + 64;

/// One packet of the protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Frame<'a> {
    /// First frame of a client that came through the attach socket.
    Hello {
        /// It will send standard input.
        input: bool,
        /// It wants what was written lately before what is written now.
        backlog: bool,
    },
    /// Standard input.
    Stdin(&'a [u8]),
    /// End of standard input.
    StdinEof,
    /// The client's terminal has this size.
    Resize {
        /// Lines.
        rows: u16,
        /// Characters a line.
        columns: u16,
    },
    /// A signal for the container's first process.
    Signal(i32),
    /// The client leaves.
    Detach,
    /// Nobody reads this stream (1 or 2) any more.
    OutputClosed(u8),
    /// A question.
    Ask(&'a [u8]),
    /// A process to be run beside the first one.
    Exec(&'a [u8]),
    /// A piece of the next question or process.
    More(&'a [u8]),
    /// The container's command has been executed.
    Started,
    /// Standard output, or what a terminal shows.
    Stdout(&'a [u8]),
    /// Standard error.
    Stderr(&'a [u8]),
    /// So many bytes of standard input reached the container.
    StdinAck(u32),
    /// The container has ended and is cleaned up.
    Exit {
        /// Its exit code, 128+n for a signal.
        code: i32,
        /// What the user should know about it; empty if nothing.
        note: &'a str,
    },
    /// Something the user should know, while the container goes on.
    Notice(&'a str),
    /// An answer.
    Answer(&'a [u8]),
    /// A piece of the next answer.
    AnswerMore(&'a [u8]),
    /// It lives, and what it does takes its time: who waits for an answer is to wait on.
    Busy,
    /// The container did not start.
    Error {
        /// Exit code for the client: 125, 126 or 127.
        code: u8,
        /// The report, as [`crate::error::report`] makes it.
        text: &'a str,
    },
}

impl<'a> Frame<'a> {
    /// The packet of this frame.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        match *self {
            Frame::Hello { input, backlog } => {
                vec![1, u8::from(input) | u8::from(backlog) << 1]
            }
            Frame::Stdin(bytes) => tagged(2, bytes),
            Frame::StdinEof => vec![3],
            Frame::Resize { rows, columns } => {
                let (r, c) = (rows.to_le_bytes(), columns.to_le_bytes());
                vec![4, r[0], r[1], c[0], c[1]]
            }
            Frame::Signal(n) => vec![5, u8::try_from(n).unwrap_or(0)],
            Frame::Detach => vec![6],
            Frame::OutputClosed(stream) => vec![7, stream],
            Frame::Ask(json) => tagged(8, json),
            Frame::Exec(json) => tagged(9, json),
            Frame::More(piece) => tagged(10, piece),
            Frame::Started => vec![16],
            Frame::Stdout(bytes) => tagged(17, bytes),
            Frame::Stderr(bytes) => tagged(18, bytes),
            Frame::StdinAck(n) => tagged(19, &n.to_le_bytes()),
            Frame::Exit { code, note } => {
                let mut packet = tagged(20, &code.to_le_bytes());
                packet.extend_from_slice(clip(note).as_bytes());
                packet
            }
            Frame::Notice(text) => tagged(22, clip(text).as_bytes()),
            Frame::Answer(json) => tagged(23, json),
            Frame::AnswerMore(piece) => tagged(24, piece),
            Frame::Busy => vec![25],
            Frame::Error { code, text } => {
                let mut packet = vec![21, code];
                packet.extend_from_slice(clip(text).as_bytes());
                packet
            }
        }
    }

    /// The frame of a packet; `None` if it is malformed or of an unknown kind.
    #[must_use]
    pub fn decode(packet: &'a [u8]) -> Option<Frame<'a>> {
        let (kind, rest) = packet.split_first()?;
        let text = |bytes: &'a [u8]| std::str::from_utf8(bytes).ok();
        Some(match (kind, rest) {
            (1, [flags]) => Frame::Hello {
                input: flags & 1 != 0,
                backlog: flags & 2 != 0,
            },
            (2, bytes) => Frame::Stdin(bytes),
            (3, []) => Frame::StdinEof,
            (4, [r0, r1, c0, c1]) => Frame::Resize {
                rows: u16::from_le_bytes([*r0, *r1]),
                columns: u16::from_le_bytes([*c0, *c1]),
            },
            (5, [n]) => Frame::Signal(i32::from(*n)),
            (6, []) => Frame::Detach,
            (7, [stream @ 1..=2]) => Frame::OutputClosed(*stream),
            (8, json) => Frame::Ask(json),
            (9, json) => Frame::Exec(json),
            (10, piece) => Frame::More(piece),
            (16, []) => Frame::Started,
            (17, bytes) => Frame::Stdout(bytes),
            (18, bytes) => Frame::Stderr(bytes),
            (19, bytes) => Frame::StdinAck(u32::from_le_bytes(bytes.try_into().ok()?)),
            (20, bytes) => {
                let (code, note) = bytes.split_first_chunk()?;
                Frame::Exit {
                    code: i32::from_le_bytes(*code),
                    note: text(note)?,
                }
            }
            (22, bytes) => Frame::Notice(text(bytes)?),
            (23, json) => Frame::Answer(json),
            (24, piece) => Frame::AnswerMore(piece),
            (25, []) => Frame::Busy,
            (21, [code, bytes @ ..]) => Frame::Error {
                code: *code,
                text: text(bytes)?,
            },
            _ => return None,
        })
    }
}

/// The packets of a long payload: each piece but the last as `more` makes it, the last as `last` does.
#[must_use]
pub fn pieces<'a>(
    payload: &'a [u8],
    more: impl Fn(&'a [u8]) -> Frame<'a>,
    last: impl Fn(&'a [u8]) -> Frame<'a>,
) -> Vec<Vec<u8>> {
    let mut rest = payload;
    let mut packets = Vec::new();
    while rest.len() > CHUNK {
        let (piece, after) = rest.split_at(CHUNK);
        packets.push(more(piece).encode());
        rest = after;
    }
    packets.push(last(rest).encode());
    packets
}

fn tagged(kind: u8, bytes: &[u8]) -> Vec<u8> {
    let mut packet = Vec::with_capacity(1 + bytes.len());
    packet.push(kind);
    packet.extend_from_slice(bytes);
    packet
}

/// The longest prefix of `text` that fits a frame.
fn clip(text: &str) -> &str {
    let mut end = text.len().min(CHUNK);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_frame_survives_the_wire() {
        for frame in [
            Frame::Hello {
                input: true,
                backlog: false,
            },
            Frame::Hello {
                input: false,
                backlog: true,
            },
            Frame::Stdin(b"x\0y"),
            Frame::StdinEof,
            Frame::Resize {
                rows: 24,
                columns: 300,
            },
            Frame::Signal(15),
            Frame::Detach,
            Frame::OutputClosed(2),
            Frame::Ask(b"{}"),
            Frame::Exec(b"{}"),
            Frame::More(b"["),
            Frame::Answer(b"1"),
            Frame::AnswerMore(b"\""),
            Frame::Started,
            Frame::Busy,
            Frame::Stdout(b""),
            Frame::Stderr(&[255; 10]),
            Frame::StdinAck(70000),
            Frame::Notice("pasta ended"),
            Frame::Exit {
                code: 137,
                note: "out of memory",
            },
            Frame::Error {
                code: 127,
                text: "ä",
            },
        ] {
            assert_eq!(Frame::decode(&frame.encode()), Some(frame));
        }
    }

    #[test]
    fn malformed_packets_are_no_frames() {
        for packet in [
            &[][..],
            &[0],
            &[3, 1],
            &[4, 1, 2],
            &[7, 3],
            &[19, 1],
            &[20, 1],
            &[21],
            &[99],
        ] {
            assert_eq!(Frame::decode(packet), None, "{packet:?}");
        }
        assert_eq!(Frame::decode(&[21, 125, 0xff]), None);
    }

    #[test]
    fn long_payloads_come_in_pieces_that_fit() {
        let payload: Vec<u8> = (0..=255).cycle().take(2 * CHUNK + 7).collect();
        let packets = pieces(&payload, Frame::More, Frame::Ask);
        let mut joined: Vec<u8> = Vec::new();
        for (i, packet) in packets.iter().enumerate() {
            assert!(packet.len() <= FRAME);
            match Frame::decode(packet) {
                Some(Frame::More(piece)) if i < 2 => joined.extend(piece),
                Some(Frame::Ask(piece)) if i == 2 => joined.extend(piece),
                other => panic!("{i}: {other:?}"),
            }
        }
        assert_eq!(joined, payload);
        assert_eq!(pieces(b"", Frame::More, Frame::Ask), [[8]]);
    }

    #[test]
    fn long_text_is_clipped_between_characters() {
        let text = "ä".repeat(CHUNK);
        let packet = Frame::Error {
            code: 125,
            text: &text,
        }
        .encode();
        assert!(packet.len() <= FRAME);
        assert!(matches!(Frame::decode(&packet), Some(Frame::Error { .. })));
    }
}
