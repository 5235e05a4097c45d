//! The little D-Bus that a scope takes: a blocking client over a Unix socket.
//!
//! zbus gives the wire format. Its connections are not used: they need an asynchronous runtime
//! (threads, before the supervisor clones), and they refuse every message of systemd's private
//! socket, whose sender is `org.freedesktop.systemd1` where the specification wants a unique name.
//!
//! Authentication and calls are written at once, without waiting for the server's `OK`: sd-bus
//! does the same with every server. So a call is one hand-over to the server and one back.
//!
//! D-Bus specification: <https://dbus.freedesktop.org/doc/dbus-specification.html>.

use std::io::{Read as _, Write as _};
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixStream};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, anyhow, bail};
use serde::Serialize;
use serde::de::DeserializeOwned;
use zbus::wire::serialized::{Context, Data};
use zbus::wire::{BE, LE, to_bytes};
use zbus::{Type, Variant};

use crate::error::Result;

/// Longest message taken from a server, bytes; the specification allows 128 MiB.
const LONGEST: usize = 1 << 20;

/// Kinds of messages, as the header has them.
const METHOD_CALL: u8 = 1;
pub(crate) const ERROR: u8 = 3;
pub(crate) const SIGNAL: u8 = 4;

/// Header field codes.
const PATH: u8 = 1;
const INTERFACE: u8 = 2;
const MEMBER: u8 = 3;
const ERROR_NAME: u8 = 4;
const REPLY_SERIAL: u8 = 5;
const DESTINATION: u8 = 6;
const SIGNATURE: u8 = 8;

/// Byte order, kind, flags, protocol version, body length, serial, fields.
type Header<'a> = (u8, u8, u8, u8, u32, u32, Vec<(u8, Variant<'a>)>);

/// A connection with what is to be sent and what has come but was not asked for yet.
#[derive(Debug)]
pub(crate) struct Client {
    stream: UnixStream,
    deadline: Instant,
    out: Vec<u8>,
    got: Vec<u8>,
    greeted: bool,
    serial: u32,
}

/// A method call.
#[derive(Debug)]
pub(crate) struct Call<'a> {
    pub(crate) destination: &'a str,
    pub(crate) path: &'a str,
    pub(crate) interface: &'a str,
    pub(crate) member: &'a str,
}

/// A message from the server.
#[derive(Debug)]
pub(crate) struct Incoming {
    pub(crate) kind: u8,
    pub(crate) reply_to: Option<u32>,
    pub(crate) member: Option<String>,
    pub(crate) error: Option<String>,
    big_endian: bool,
    body: Vec<u8>,
}

impl Client {
    /// Wraps a connected socket; nothing is sent yet. Every wait ends after `within`.
    pub(crate) fn new(stream: UnixStream, within: Duration) -> Client {
        let uid = nix::unistd::geteuid().to_string();
        let hex: String = uid.bytes().map(|b| format!("{b:02x}")).collect();
        Client {
            stream,
            deadline: Instant::now() + within,
            out: format!("\0AUTH EXTERNAL {hex}\r\nBEGIN\r\n").into_bytes(),
            got: Vec::new(),
            greeted: false,
            serial: 0,
        }
    }

    /// Appends a call to what will be sent; its serial number.
    pub(crate) fn call<B: Serialize + Type>(&mut self, call: &Call<'_>, body: &B) -> Result<u32> {
        self.serial += 1;
        let body = to_bytes(Context::new(LE, 0), body).context("encoding a D-Bus call")?;
        let length = u32::try_from(body.len()).context("a D-Bus call is too long")?;
        // The outer parentheses of a tuple are not part of a message's signature.
        let signature = B::SIGNATURE.to_string_no_parens();
        let header = header(call, self.serial, length, &signature);
        self.out.extend_from_slice(&header);
        self.out.resize(self.out.len() + padding(header.len()), 0);
        self.out.extend_from_slice(&body);
        Ok(self.serial)
    }

    /// Sends everything appended.
    pub(crate) fn flush(&mut self) -> Result<()> {
        self.stream.set_write_timeout(Some(self.left()?))?;
        self.stream.write_all(&self.out).context("sending")?;
        self.out.clear();
        Ok(())
    }

    /// The next message, whatever it is.
    pub(crate) fn receive(&mut self) -> Result<Incoming> {
        if !self.greeted {
            self.greeting()?;
        }
        loop {
            if let Some((message, used)) = decode(&self.got)? {
                self.got.drain(..used);
                return Ok(message);
            }
            self.fill()?;
        }
    }

    /// The server's answer to the authentication.
    fn greeting(&mut self) -> Result<()> {
        let end = loop {
            if let Some(end) = self.got.windows(2).position(|two| two == b"\r\n") {
                break end;
            }
            if self.got.len() > 1024 {
                bail!("the server does not speak D-Bus");
            }
            self.fill()?;
        };
        let line = String::from_utf8_lossy(&self.got[..end]).into_owned();
        self.got.drain(..end + 2);
        if !line.starts_with("OK") {
            bail!("the server refuses this user: {line}");
        }
        self.greeted = true;
        Ok(())
    }

    fn fill(&mut self) -> Result<()> {
        self.stream.set_read_timeout(Some(self.left()?))?;
        let mut buffer = [0u8; 4096];
        match self.stream.read(&mut buffer) {
            Ok(0) => bail!("the server closed the connection"),
            Ok(n) => self.got.extend_from_slice(&buffer[..n]),
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
            Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => bail!("no answer in time"),
            Err(e) => return Err(e).context("receiving"),
        }
        Ok(())
    }

    fn left(&self) -> Result<Duration> {
        let left = self.deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            bail!("no answer in time");
        }
        Ok(left)
    }
}

impl Incoming {
    /// The body as `T`.
    pub(crate) fn body<T: DeserializeOwned + Type>(&self) -> Result<T> {
        let data = Data::new(
            self.body.as_slice(),
            Context::new(endian(self.big_endian), 0),
        );
        Ok(data.deserialize().context("reading a D-Bus message")?.0)
    }
}

/// The header of a method call, without the padding that follows it.
fn header(call: &Call<'_>, serial: u32, body: u32, signature: &str) -> Vec<u8> {
    let mut bytes = vec![b'l', METHOD_CALL, 0, 1];
    bytes.extend_from_slice(&body.to_le_bytes());
    bytes.extend_from_slice(&serial.to_le_bytes());
    bytes.extend_from_slice(&[0; 4]);
    let mut field = |code: u8, kind: u8, value: &str| {
        bytes.resize(bytes.len().next_multiple_of(8), 0);
        bytes.extend_from_slice(&[code, 1, kind, 0]);
        // Names are our own and short; a signature is at most 255 bytes long.
        let length = u8::try_from(value.len()).unwrap_or(u8::MAX);
        match kind {
            b'g' => bytes.push(length),
            _ => bytes.extend_from_slice(&u32::from(length).to_le_bytes()),
        }
        bytes.extend_from_slice(&value.as_bytes()[..usize::from(length)]);
        bytes.push(0);
    };
    field(PATH, b'o', call.path);
    field(INTERFACE, b's', call.interface);
    field(MEMBER, b's', call.member);
    field(DESTINATION, b's', call.destination);
    if !signature.is_empty() {
        field(SIGNATURE, b'g', signature);
    }
    let fields = u32::try_from(bytes.len() - 16).unwrap_or(0);
    bytes[12..16].copy_from_slice(&fields.to_le_bytes());
    bytes
}

fn endian(big: bool) -> zbus::wire::Endian {
    if big { BE } else { LE }
}

fn padding(length: usize) -> usize {
    length.next_multiple_of(8) - length
}

/// One message off the front of `bytes` and its length, or `None` when it is not all there yet.
fn decode(bytes: &[u8]) -> Result<Option<(Incoming, usize)>> {
    if bytes.len() < 16 {
        return Ok(None);
    }
    let big_endian = match bytes[0] {
        b'l' => false,
        b'B' => true,
        other => return Err(anyhow!("unknown byte order {other} in a D-Bus message")),
    };
    let number = |at: usize| {
        let four = [bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]];
        if big_endian {
            u32::from_be_bytes(four)
        } else {
            u32::from_le_bytes(four)
        }
    };
    let body_length = usize::try_from(number(4)).unwrap_or(usize::MAX);
    let fields_length = usize::try_from(number(12)).unwrap_or(usize::MAX);
    if body_length > LONGEST || fields_length > LONGEST {
        bail!("a D-Bus message is too long");
    }
    let header_length = 16 + fields_length;
    let body_at = header_length.next_multiple_of(8);
    let total = body_at + body_length;
    if bytes.len() < total {
        return Ok(None);
    }
    let data = Data::new(&bytes[..header_length], Context::new(endian(big_endian), 0));
    let (header, _): (Header<'_>, usize) = data.deserialize().context("reading a D-Bus header")?;
    let mut message = Incoming {
        kind: header.1,
        reply_to: None,
        member: None,
        error: None,
        big_endian,
        body: bytes[body_at..total].to_vec(),
    };
    for (code, value) in header.6 {
        match (code, value) {
            (REPLY_SERIAL, Variant::U32(serial)) => message.reply_to = Some(serial),
            (MEMBER, Variant::Str(member)) => message.member = Some(member.to_string()),
            (ERROR_NAME, Variant::Str(name)) => message.error = Some(name.to_string()),
            _ => {}
        }
    }
    Ok(Some((message, total)))
}

/// Connects to the first Unix socket of a D-Bus address list that answers.
pub(crate) fn connect(addresses: &str) -> Result<UnixStream> {
    let mut last = anyhow!("there is no Unix socket in the address `{addresses}`");
    for address in addresses.split(';') {
        let Some(values) = address.strip_prefix("unix:") else {
            continue;
        };
        for pair in values.split(',') {
            let connected = match pair.split_once('=') {
                Some(("path", path)) => UnixStream::connect(Path::new(&unescape(path)?)),
                Some(("abstract", name)) => SocketAddr::from_abstract_name(unescape(name)?)
                    .and_then(|a| UnixStream::connect_addr(&a)),
                _ => continue,
            };
            match connected {
                Ok(stream) => return Ok(stream),
                Err(e) => last = anyhow!(e).context(format!("connecting to {address}")),
            }
        }
    }
    Err(last)
}

/// Undoes the percent escapes of an address value.
fn unescape(value: &str) -> Result<String> {
    let mut bytes = Vec::with_capacity(value.len());
    let mut rest = value.bytes();
    while let Some(byte) = rest.next() {
        if byte == b'%' {
            let hex: Vec<u8> = rest.by_ref().take(2).collect();
            let hex = std::str::from_utf8(&hex).unwrap_or("");
            bytes.push(u8::from_str_radix(hex, 16).context("a D-Bus address has a bad escape")?);
        } else {
            bytes.push(byte);
        }
    }
    String::from_utf8(bytes).context("a D-Bus address is not UTF-8")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use zbus::Signature;

    const METHOD_RETURN: u8 = 2;

    /// A message as systemd's private socket sends it: the sender is no unique name.
    fn from_systemd(
        kind: u8,
        reply_to: Option<u32>,
        member: &str,
        body: &[u8],
        signature: &str,
    ) -> Vec<u8> {
        let mut fields = vec![(7u8, Variant::from("org.freedesktop.systemd1"))];
        fields.extend(reply_to.map(|serial| (REPLY_SERIAL, Variant::from(serial))));
        if !member.is_empty() {
            fields.push((MEMBER, Variant::from(member)));
        }
        fields.push((
            SIGNATURE,
            Variant::from(Signature::try_from(signature).expect("signature")),
        ));
        let header: Header<'_> = (
            b'l',
            kind,
            0,
            1,
            u32::try_from(body.len()).expect("short"),
            9,
            fields,
        );
        let mut bytes = to_bytes(Context::new(LE, 0), &header)
            .expect("header")
            .to_vec();
        bytes.resize(bytes.len().next_multiple_of(8), 0);
        bytes.extend_from_slice(body);
        bytes
    }

    #[test]
    fn a_call_and_its_answers_pass_in_one_exchange() {
        let (client, mut server) = UnixStream::pair().expect("pair");
        let mut client = Client::new(client, Duration::from_secs(5));
        let call = Call {
            destination: "a.b",
            path: "/a",
            interface: "a.b",
            member: "Do",
        };
        let serial = client
            .call(&call, &("x", vec![("k", Variant::from(7u32))]))
            .expect("call");
        client.flush().expect("flush");
        let mut sent = vec![0u8; 4096];
        let n = server.read(&mut sent).expect("read");
        let text = String::from_utf8_lossy(&sent[..n]).into_owned();
        assert!(
            text.starts_with("\0AUTH EXTERNAL 3") && text.contains("\r\nBEGIN\r\nl"),
            "{text:?}"
        );
        let start = text.find("BEGIN\r\n").expect("begin") + 7;
        let (echoed, used) = decode(&sent[start..n]).expect("decode").expect("whole");
        assert_eq!(
            (echoed.kind, echoed.member.as_deref(), used),
            (METHOD_CALL, Some("Do"), n - start)
        );
        // Greeting, signal and reply in one segment, cut in the middle.
        let body = to_bytes(Context::new(LE, 0), &"done")
            .expect("body")
            .to_vec();
        let mut answer = b"OK 1234\r\n".to_vec();
        answer.extend(from_systemd(SIGNAL, None, "JobRemoved", &body, "s"));
        answer.extend(from_systemd(METHOD_RETURN, Some(serial), "", &body, "s"));
        server
            .write_all(&answer[..answer.len() - 3])
            .expect("write");
        let signal = client.receive().expect("signal");
        assert_eq!(
            (signal.kind, signal.member.as_deref()),
            (SIGNAL, Some("JobRemoved"))
        );
        server
            .write_all(&answer[answer.len() - 3..])
            .expect("write");
        let reply = client.receive().expect("reply");
        assert_eq!(reply.reply_to, Some(serial));
        assert_eq!(reply.body::<String>().expect("body"), "done");
    }

    #[test]
    fn a_server_that_refuses_or_babbles_is_an_error() {
        for answer in [
            &b"REJECTED EXTERNAL\r\n"[..],
            &[b'x'; 2000],
            b"OK\r\nZ23456789012345678",
        ] {
            let (client, mut server) = UnixStream::pair().expect("pair");
            let mut client = Client::new(client, Duration::from_secs(5));
            server.write_all(answer).expect("write");
            assert!(client.receive().is_err());
        }
        let (client, _server) = UnixStream::pair().expect("pair");
        let mut client = Client::new(client, Duration::from_millis(20));
        assert!(format!("{:#}", client.receive().expect_err("silence")).contains("in time"));
    }

    #[test]
    fn lengths_beyond_the_bound_are_refused_before_they_are_read() {
        let mut bytes = from_systemd(SIGNAL, None, "X", b"", "");
        bytes[4..8].copy_from_slice(&u32::MAX.to_le_bytes());
        assert!(decode(&bytes).is_err());
        bytes[4..8].copy_from_slice(&0u32.to_le_bytes());
        bytes[12..16].copy_from_slice(&0x7fff_ffffu32.to_le_bytes());
        assert!(decode(&bytes).is_err());
    }

    #[test]
    fn addresses_are_unescaped() {
        assert_eq!(unescape("/run/a%20b").expect("path"), "/run/a b");
        assert!(unescape("/run/%zz").is_err());
        assert!(connect("tcp:host=localhost").is_err());
    }
}
