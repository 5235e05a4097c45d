//! Just enough of three protocols to know what a server has acknowledged.

use std::collections::BTreeSet;
use std::io::{self, BufRead, BufReader, Error, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

/// A connection to a service on this machine.
pub(super) trait Connection: Sized {
    fn open(port: u16) -> io::Result<Self>;
    /// It answers a question that changes nothing.
    fn alive(&mut self) -> bool;
    /// Stores a number; returns when the service has said that it is stored.
    fn store(&mut self, number: u64) -> io::Result<()>;
}

fn connect(port: u16) -> io::Result<BufReader<TcpStream>> {
    let stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(Duration::from_secs(60)))?;
    stream.set_nodelay(true)?;
    Ok(BufReader::new(stream))
}

fn bad(what: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidData, what.into())
}

fn line(stream: &mut impl BufRead) -> io::Result<String> {
    let mut line = String::new();
    stream.read_line(&mut line)?;
    match line.strip_suffix("\r\n") {
        Some(line) => Ok(line.to_owned()),
        None => Err(ErrorKind::UnexpectedEof.into()),
    }
}

/// RESP.
pub(super) struct Redis(BufReader<TcpStream>);

impl Redis {
    /// Every number that is stored.
    pub(super) fn numbers(&mut self) -> io::Result<BTreeSet<u64>> {
        self.0.get_mut().write_all(b"SMEMBERS acknowledged\r\n")?;
        let count = line(&mut self.0)?;
        let count: usize = count[1..].parse().map_err(|_| bad(count.clone()))?;
        let mut all = BTreeSet::new();
        for _ in 0..count {
            line(&mut self.0)?;
            let text = line(&mut self.0)?;
            all.insert(text.parse().map_err(|_| bad(text.clone()))?);
        }
        Ok(all)
    }

    /// Keys that there are.
    pub(super) fn keys(&mut self) -> io::Result<u64> {
        let answer = self.ask("DBSIZE\r\n")?;
        answer[1..].parse().map_err(|_| bad(answer.clone()))
    }

    fn ask(&mut self, question: &str) -> io::Result<String> {
        self.0.get_mut().write_all(question.as_bytes())?;
        line(&mut self.0)
    }
}

impl Connection for Redis {
    fn open(port: u16) -> io::Result<Redis> {
        Ok(Redis(connect(port)?))
    }

    /// Not while it loads its log.
    fn alive(&mut self) -> bool {
        self.ask("PING\r\n").is_ok_and(|a| a == "+PONG")
    }

    fn store(&mut self, number: u64) -> io::Result<()> {
        match self
            .ask(&format!("SADD acknowledged {number}\r\n"))?
            .as_str()
        {
            ":1" => Ok(()),
            other => Err(bad(other)),
        }
    }
}

/// PostgreSQL's protocol 3, simple queries, no password.
pub(super) struct Postgres(BufReader<TcpStream>);

impl Postgres {
    /// The rows of a query, every value as text.
    pub(super) fn query(&mut self, sql: &str) -> io::Result<Vec<Vec<String>>> {
        let length = u32::try_from(sql.len() + 5).map_err(|_| bad("length"))?;
        let mut message = vec![b'Q'];
        message.extend(length.to_be_bytes());
        message.extend(sql.as_bytes());
        message.push(0);
        self.0.get_mut().write_all(&message)?;
        let mut rows = Vec::new();
        loop {
            let (kind, body) = self.message()?;
            match kind {
                b'D' => rows.push(row(&body)?),
                b'E' => return Err(bad(String::from_utf8_lossy(&body))),
                b'Z' => return Ok(rows),
                _ => {}
            }
        }
    }

    fn message(&mut self) -> io::Result<(u8, Vec<u8>)> {
        let mut head = [0; 5];
        self.0.read_exact(&mut head)?;
        let length = u32::from_be_bytes([head[1], head[2], head[3], head[4]]) as usize;
        let mut body = vec![0; length.checked_sub(4).ok_or_else(|| bad("length"))?];
        self.0.read_exact(&mut body)?;
        Ok((head[0], body))
    }
}

/// The values of a row, none of them null.
fn row(body: &[u8]) -> io::Result<Vec<String>> {
    let short = || bad("a short row");
    let mut rest = body.get(2..).ok_or_else(short)?;
    let mut values = Vec::new();
    while let Some((length, after)) = rest.split_first_chunk::<4>() {
        let length = u32::from_be_bytes(*length) as usize;
        let (value, after) = after.split_at_checked(length).ok_or_else(short)?;
        values.push(String::from_utf8_lossy(value).into_owned());
        rest = after;
    }
    Ok(values)
}

impl Connection for Postgres {
    fn open(port: u16) -> io::Result<Postgres> {
        let mut stream = connect(port)?;
        let words = b"user\0postgres\0database\0postgres\0\0";
        let mut message = u32::try_from(words.len() + 8)
            .unwrap_or(0)
            .to_be_bytes()
            .to_vec();
        message.extend(196_608_u32.to_be_bytes());
        message.extend(words);
        stream.get_mut().write_all(&message)?;
        let mut connection = Postgres(stream);
        loop {
            match connection.message()? {
                (b'Z', _) => return Ok(connection),
                (b'E', body) => return Err(bad(String::from_utf8_lossy(&body))),
                _ => {}
            }
        }
    }

    fn alive(&mut self) -> bool {
        self.query("SELECT 1").is_ok_and(|rows| rows == [["1"]])
    }

    fn store(&mut self, number: u64) -> io::Result<()> {
        let sql = format!("INSERT INTO acknowledged VALUES ({number})");
        self.query(&sql).map(drop)
    }
}

/// HTTP/1.1, one question after the other.
pub(super) struct Http(BufReader<TcpStream>);

impl Http {
    /// The body of a page.
    pub(super) fn get(&mut self, path: &str) -> io::Result<Vec<u8>> {
        let question = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n");
        self.0.get_mut().write_all(question.as_bytes())?;
        let status = line(&mut self.0)?;
        let mut length = None;
        loop {
            let header = line(&mut self.0)?;
            if header.is_empty() {
                break;
            }
            if let Some(value) = header.to_lowercase().strip_prefix("content-length:") {
                length = value.trim().parse::<usize>().ok();
            }
        }
        let mut body = vec![0; length.ok_or_else(|| bad("no length"))?];
        self.0.read_exact(&mut body)?;
        match status.as_str() {
            "HTTP/1.1 200 OK" => Ok(body),
            other => Err(bad(other)),
        }
    }
}

impl Connection for Http {
    fn open(port: u16) -> io::Result<Http> {
        Ok(Http(connect(port)?))
    }

    fn alive(&mut self) -> bool {
        self.get("/").is_ok()
    }

    fn store(&mut self, number: u64) -> io::Result<()> {
        self.get(&format!("/index.html?{number}")).map(drop)
    }
}
