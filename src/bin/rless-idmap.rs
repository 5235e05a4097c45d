//! `rless-idmap PID uid C H N [C H N]... gid C H N [C H N]...`: writes the uid and gid maps of the user
//! namespace of process PID: N container ids from C on become the host ids from H on.
//!
//! Installed with the file capabilities cap_setuid,cap_setgid=ep: the only code of rless that may
//! do what its caller may not. Theory of operation:
//!
//! 1. Put all capabilities aside, read arguments (numbers, at most as many as the kernel takes).
//! 2. Hold /proc/PID open as a directory. Every later look goes through it, so that it is one process.
//! 3. Refuse unless that process is the caller's own (uid, gid), its user namespace was made by the caller
//!    in the caller's namespace, and it has no maps yet.
//! 4. Refuse unless each line lies inside one grant of /etc/subuid or /etc/subgid (to the caller's name or uid), or
//!    is the caller's own id alone; and lines do not overlap, wrap, or name host id 0 or 2³²−1.
//! 5. Write uid_map with CAP_SETUID alone, give it up, write gid_map with CAP_SETGID alone. A gid map that no grant
//!    backs gets setgroups denied, since dropping a group may give access (CVE-2014-8989).
//!
//! The environment is not read. Memory does not grow with any file. Exit status: 0 done, 1 refused
//! or failed (one line on stderr), 2 wrong usage.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::ExitCode;

use nix::fcntl::{OFlag, openat};
use nix::sys::stat::{Mode, fstat};
use nix::unistd::{User, getgid, getuid};

#[path = "../sys/caps.rs"]
#[allow(dead_code, unreachable_pub)]
mod caps;
#[path = "../sys/nsfs.rs"]
#[allow(unreachable_pub)]
mod nsfs;

/// The kernel's limit of lines in a map (UID_GID_MAP_MAX_EXTENTS).
const MAX_LINES: usize = 340;
/// The longest line of subuid(5) that is looked at.
const MAX_TEXT: u64 = 1024;
/// 2³²−1 is no id.
const NO_ID: u64 = u32::MAX as u64;

/// One line of a map; numbers are checked to lie below 2³².
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Line {
    inside: u64,
    host: u64,
    count: u64,
}

/// What was asked for.
#[derive(Debug)]
struct Request {
    pid: u32,
    uids: Vec<Line>,
    gids: Vec<Line>,
}

/// Why not.
enum Failure {
    Usage(String),
    Refused(String),
}

impl<T: Into<String>> From<T> for Failure {
    fn from(text: T) -> Self {
        Failure::Refused(text.into())
    }
}

fn main() -> ExitCode {
    let (text, code) = match run() {
        Ok(()) => return ExitCode::SUCCESS,
        Err(Failure::Refused(text)) => (text, 1),
        Err(Failure::Usage(text)) => (
            format!("{text}\nusage: rless-idmap PID uid C H N [C H N]... gid C H N [C H N]..."),
            2,
        ),
    };
    // Nothing can be done if stderr is closed.
    let _ = writeln!(io::stderr(), "rless-idmap: {text}");
    ExitCode::from(code)
}

fn run() -> Result<(), Failure> {
    let both = 1 << caps::SETUID | 1 << caps::SETGID;
    let had = caps::get().map_err(|e| format!("reading capabilities: {e}"))?;
    hold(had.permitted & both, 0)?;

    let request = parse(std::env::args_os().skip(1).take(2 * 3 * MAX_LINES + 8))?;
    check_lines("uid", &request.uids)?;
    check_lines("gid", &request.gids)?;
    let name = caller_name()?;
    let process = open_process(request.pid)?;
    check_process(&process)?;
    let (uid, gid) = (getuid().as_raw(), getgid().as_raw());
    check_grants("/etc/subuid", &name, uid, uid, &request.uids)?;
    let granted = check_grants("/etc/subgid", &name, uid, gid, &request.gids)?;

    if had.permitted & both != both {
        return Err("no capability: install it with `setcap cap_setuid,cap_setgid=ep`, not on a nosuid mount"
            .into());
    }
    hold(both, 1 << caps::SETUID)?;
    put(&process, "uid_map", &text(&request.uids))?;
    if !granted {
        put(&process, "setgroups", "deny")?;
    }
    hold(1 << caps::SETGID, 1 << caps::SETGID)?;
    put(&process, "gid_map", &text(&request.gids))?;
    hold(0, 0)
}

/// Keeps `permitted` only, of which `effective` works.
fn hold(permitted: u64, effective: u64) -> Result<(), Failure> {
    let sets = caps::Sets {
        effective,
        permitted,
        inheritable: 0,
    };
    caps::set(sets).map_err(|e| format!("dropping capabilities: {e}").into())
}

/// Reads the arguments.
fn parse(args: impl Iterator<Item = std::ffi::OsString>) -> Result<Request, Failure> {
    let usage = |text: &str| Failure::Usage(text.to_owned());
    let mut words = Vec::new();
    for arg in args {
        words.push(
            arg.into_string()
                .map_err(|_| usage("an argument is not text"))?,
        );
    }
    let [pid, uid, rest @ ..] = words.as_slice() else {
        return Err(usage("too few arguments"));
    };
    let pid = number(pid)?;
    let middle = rest.iter().position(|w| w == "gid");
    let (Some(middle), "uid") = (middle, uid.as_str()) else {
        return Err(usage("expected `uid` and `gid`"));
    };
    Ok(Request {
        pid: u32::try_from(pid).map_err(|_| usage("PID out of range"))?,
        uids: lines(&rest[..middle])?,
        gids: lines(&rest[middle + 1..])?,
    })
}

/// A decimal number below 2³²: digits only.
fn number(word: &str) -> Result<u64, Failure> {
    let digits = !word.is_empty() && word.len() <= 10 && word.bytes().all(|b| b.is_ascii_digit());
    match word.parse() {
        Ok(n) if digits && n <= NO_ID => Ok(n),
        _ => Err(Failure::Usage(format!(
            "{word:?} is not a number below 2^32"
        ))),
    }
}

/// Triples of numbers.
fn lines(words: &[String]) -> Result<Vec<Line>, Failure> {
    let (triples, rest) = words.as_chunks::<3>();
    if triples.is_empty() || !rest.is_empty() || triples.len() > MAX_LINES {
        return Err(Failure::Usage(format!(
            "expected 1 to {MAX_LINES} triples of numbers"
        )));
    }
    triples
        .iter()
        .map(|[inside, host, count]| {
            Ok(Line {
                inside: number(inside)?,
                host: number(host)?,
                count: number(count)?,
            })
        })
        .collect()
}

/// Checks lines by themselves and against each other.
fn check_lines(what: &str, lines: &[Line]) -> Result<(), Failure> {
    for (i, a) in lines.iter().enumerate() {
        let refuse =
            |why: &str| Err(format!("{what} {} {} {}: {why}", a.inside, a.host, a.count).into());
        if a.count == 0 {
            return refuse("the count is 0");
        }
        // Sums of two numbers below 2³² do not overflow u64.
        if a.inside + a.count > NO_ID || a.host + a.count > NO_ID {
            return refuse("ids must be below 4294967295");
        }
        if a.host == 0 {
            return refuse("host id 0 is never mapped");
        }
        let meet = |x: u64, n: u64, y: u64, m: u64| x < y + m && y < x + n;
        for b in &lines[..i] {
            if meet(a.inside, a.count, b.inside, b.count) || meet(a.host, a.count, b.host, b.count)
            {
                return refuse("overlaps another line");
            }
        }
    }
    Ok(())
}

/// The name of the caller; its passwd entry must have the caller's uid and gid.
fn caller_name() -> Result<String, Failure> {
    let (uid, gid) = (getuid(), getgid());
    let entry = User::from_uid(uid).map_err(|e| format!("looking up uid {uid}: {e}"))?;
    match entry {
        Some(user) if user.uid == uid && user.gid == gid => Ok(user.name),
        Some(user) if user.uid == uid => Err(format!(
            "gid {gid} is not the login group {} of {}",
            user.gid, user.name
        )
        .into()),
        _ => Err(format!("uid {uid} has no passwd entry").into()),
    }
}

/// Opens /proc/PID.
fn open_process(pid: u32) -> Result<OwnedFd, Failure> {
    let path = format!("/proc/{pid}");
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    nix::fcntl::open(Path::new(&path), flags, Mode::empty())
        .map_err(|e| format!("opening {path}: {e}").into())
}

/// Opens a file of the held process.
fn open_in(process: &OwnedFd, name: &str, flags: OFlag) -> Result<File, Failure> {
    openat(process, name, flags | OFlag::O_CLOEXEC, Mode::empty())
        .map(File::from)
        .map_err(|e| format!("opening {name} of the process: {e}").into())
}

/// Checks whose the process and its user namespace are, and that the maps are empty.
fn check_process(process: &OwnedFd) -> Result<(), Failure> {
    let (uid, gid) = (getuid().as_raw(), getgid().as_raw());
    let stat = fstat(process).map_err(|e| format!("looking at the process: {e}"))?;
    if (stat.st_uid, stat.st_gid) != (uid, gid) {
        return Err(format!(
            "the process is of {}:{}, not of {uid}:{gid}",
            stat.st_uid, stat.st_gid
        )
        .into());
    }
    let theirs = open_in(process, "ns/user", OFlag::O_RDONLY)?;
    let ours = File::open("/proc/self/ns/user").map_err(|e| format!("our namespace: {e}"))?;
    if identity(&theirs)? == identity(&ours)? {
        return Err("the process has no user namespace of its own".into());
    }
    let parent =
        nsfs::parent(theirs.as_fd()).map_err(|e| format!("the namespace's parent: {e}"))?;
    if identity(&File::from(parent))? != identity(&ours)? {
        return Err("the process's user namespace is no child of the caller's".into());
    }
    let owner = nsfs::owner(theirs.as_fd()).map_err(|e| format!("the namespace's owner: {e}"))?;
    if owner != uid {
        return Err(format!("the process's user namespace was made by uid {owner}").into());
    }
    for name in ["uid_map", "gid_map"] {
        let mut byte = [0];
        let read = open_in(process, name, OFlag::O_RDONLY)?.read(&mut byte);
        match read {
            Ok(0) => {}
            Ok(_) => return Err(format!("{name} is written already").into()),
            Err(e) => return Err(format!("reading {name}: {e}").into()),
        }
    }
    Ok(())
}

/// What makes two descriptors the same namespace.
fn identity(namespace: &File) -> Result<(u64, u64), Failure> {
    let meta = namespace
        .metadata()
        .map_err(|e| format!("looking at a namespace: {e}"))?;
    Ok((meta.dev(), meta.ino()))
}

/// Checks that each line is granted; returns whether some grant was needed (not only `own`).
fn check_grants(
    table: &str,
    name: &str,
    uid: u32,
    own: u32,
    lines: &[Line],
) -> Result<bool, Failure> {
    let mut granted = [false; MAX_LINES];
    match File::open(table) {
        Ok(file) => read_grants(BufReader::new(file), name, uid, lines, &mut granted)
            .map_err(|e| format!("reading {table}: {e}"))?,
        Err(e) if e.kind() == io::ErrorKind::NotFound => {}
        Err(e) => return Err(format!("opening {table}: {e}").into()),
    }
    for (line, granted) in lines.iter().zip(granted) {
        let own_alone = line.count == 1 && line.host == u64::from(own);
        if !granted && !own_alone {
            return Err(format!(
                "{} {} {}: no line of {table} grants these ids to {name}",
                line.inside, line.host, line.count
            )
            .into());
        }
    }
    Ok(granted.contains(&true))
}

/// Marks which of `lines` one grant of the table holds.
fn read_grants(
    mut table: impl BufRead,
    name: &str,
    uid: u32,
    lines: &[Line],
    granted: &mut [bool; MAX_LINES],
) -> io::Result<()> {
    let uid = uid.to_string();
    let mut buffer = Vec::with_capacity(MAX_TEXT as usize);
    loop {
        buffer.clear();
        if (&mut table).take(MAX_TEXT).read_until(b'\n', &mut buffer)? == 0 {
            return Ok(());
        }
        if buffer.last() != Some(&b'\n') && buffer.len() as u64 == MAX_TEXT {
            // Too long for a grant, and the rest of it is no line of its own.
            table.skip_until(b'\n')?;
            continue;
        }
        let Some((owner, first, count)) = grant(&buffer) else {
            continue;
        };
        if owner != name && owner != uid {
            continue;
        }
        for (line, granted) in lines.iter().zip(granted.iter_mut()) {
            *granted |= first <= line.host && line.host + line.count <= first + count;
        }
    }
}

/// Splits `owner:first:count`; `None` if it is anything else.
fn grant(line: &[u8]) -> Option<(&str, u64, u64)> {
    let line = std::str::from_utf8(line).ok()?.trim_end_matches('\n');
    let mut fields = line.split(':');
    let (owner, first, count) = (fields.next()?, fields.next()?, fields.next()?);
    if owner.is_empty() || fields.next().is_some() {
        return None;
    }
    Some((owner, number(first).ok()?, number(count).ok()?))
}

/// The text of a map.
fn text(lines: &[Line]) -> String {
    lines
        .iter()
        .map(|l| format!("{} {} {}\n", l.inside, l.host, l.count))
        .collect()
}

/// Writes a file of the process in the one write(2) that these files take.
fn put(process: &OwnedFd, name: &str, text: &str) -> Result<(), Failure> {
    let mut file = open_in(process, name, OFlag::O_WRONLY)?;
    match file.write(text.as_bytes()) {
        Ok(n) if n == text.len() => Ok(()),
        Ok(_) => Err(format!("writing {name}: cut short").into()),
        Err(e) => Err(format!("writing {name}: {e}").into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn marks(table: &str, lines: &[Line]) -> Vec<bool> {
        let mut granted = [false; MAX_LINES];
        read_grants(table.as_bytes(), "ann", 1001, lines, &mut granted).unwrap();
        granted[..lines.len()].to_vec()
    }

    #[test]
    fn a_grant_must_hold_the_whole_line() {
        let line = |host, count| Line {
            inside: 0,
            host,
            count,
        };
        let lines = [line(100, 10), line(99, 2), line(105, 10), line(300, 1)];
        assert_eq!(marks("ann:100:10\n", &lines), [true, false, false, false]);
        assert_eq!(marks("1001:300:1", &lines), [false, false, false, true]);
        // Two grants side by side are two grants.
        assert_eq!(marks("ann:100:10\nann:110:10\n", &lines[2..3]), [false]);
        let others = "bob:0:4294967295\nann:100\nann:100:10:1\nann:+100:10\nann:100:99999999999\n";
        assert_eq!(marks(others, &lines), [false; 4]);
        let long = format!("{}ann:100:10\nann:300:5\n", "x".repeat(1024));
        assert_eq!(marks(&long, &lines), [false, false, false, true]);
    }
}
