//! Reading a file of lines that somebody else appends to and rotates: events and logs.
//!
//! A file `NAME` is rotated by renaming it to `NAME.1`, what was `NAME.1` to `NAME.2` and so on; the last is dropped.
//! Lines are written whole and only to `NAME`. [`Tail`] holds the file it reads open and knows it by its inode: at its end it
//! looks where that file is by now, and goes on with the one after it, so that it loses nothing however
//! often the file was rotated meanwhile (unless the one it should read is dropped already).
//!
//! [`Watch`] waits for a change by inotify, and looks once a second all the same: on network file systems it does not
//! see what other hosts write.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};

/// Longest line that is kept together; what is longer is no line of ours.
const LONGEST: usize = 1 << 20;

/// The file of generation `n`: 0 is the one written to.
#[must_use]
pub fn generation(path: &Path, n: usize) -> PathBuf {
    if n == 0 {
        return path.to_owned();
    }
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{n}"));
    name.into()
}

/// Renames `path` to its first generation, and so on; `keep` old ones stay.
///
/// # Errors
/// The file cannot be renamed.
pub fn rotate(path: &Path, keep: usize) -> io::Result<()> {
    if keep == 0 {
        return std::fs::remove_file(path);
    }
    for n in (0..keep).rev() {
        match std::fs::rename(generation(path, n), generation(path, n + 1)) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            result => result?,
        }
    }
    Ok(())
}

/// Device and inode.
type Identity = (u64, u64);

fn identity(path: &Path) -> Option<Identity> {
    let meta = std::fs::metadata(path).ok()?;
    Some((meta.dev(), meta.ino()))
}

/// A place in a file of lines.
#[derive(Debug)]
pub struct Tail {
    path: PathBuf,
    keep: usize,
    file: Option<(File, Identity)>,
    /// The beginning of a line that is not whole yet.
    rest: Vec<u8>,
}

impl Tail {
    /// At the beginning of the oldest of at most `keep` old generations.
    #[must_use]
    pub fn oldest(path: &Path, keep: usize) -> Tail {
        Tail {
            path: path.to_owned(),
            keep,
            file: None,
            rest: Vec::new(),
        }
    }

    /// At the end of what is there now.
    #[must_use]
    pub fn end(path: &Path, keep: usize) -> Tail {
        let mut tail = Tail::oldest(path, keep);
        if let Ok(mut file) = super::logs::open_to_read(path)
            && let Ok(meta) = file.metadata()
            && file.seek(SeekFrom::End(0)).is_ok()
        {
            tail.file = Some((file, (meta.dev(), meta.ino())));
        }
        tail
    }

    /// Calls `each` with every line that is whole by now, without its end; false from it stops there.
    ///
    /// # Errors
    /// A file cannot be read.
    pub fn lines(&mut self, each: &mut dyn FnMut(&[u8]) -> bool) -> io::Result<()> {
        loop {
            if let Some((file, _)) = &mut self.file {
                let mut buffer = vec![0; 64 << 10];
                let n = file.read(&mut buffer)?;
                if n > 0 {
                    if !self.take(&buffer[..n], each) {
                        return Ok(());
                    }
                    continue;
                }
                cut_off(file)?;
            }
            if !self.next_file()? {
                return Ok(());
            }
        }
    }

    fn take(&mut self, mut bytes: &[u8], each: &mut dyn FnMut(&[u8]) -> bool) -> bool {
        while let Some(end) = bytes.iter().position(|b| *b == b'\n') {
            let (line, rest) = bytes.split_at(end);
            bytes = &rest[1..];
            let go_on = if self.rest.is_empty() {
                each(line)
            } else {
                self.rest.extend_from_slice(line);
                each(&std::mem::take(&mut self.rest))
            };
            if !go_on {
                return false;
            }
        }
        if self.rest.len() < LONGEST {
            self.rest.extend_from_slice(bytes);
        }
        true
    }

    /// Goes on with the file after the one that has been read to its end; false when there is none.
    fn next_file(&mut self) -> io::Result<bool> {
        loop {
            let held = self.file.as_ref().map(|(_, id)| *id);
            let at = self.position(held);
            if at == Some(0) {
                return Ok(false);
            }
            // It was rotated: what was written to it before that has to be read, too.
            if let Some((file, _)) = &mut self.file {
                let here = file.stream_position()?;
                if file.metadata()?.len() > here {
                    return Ok(true);
                }
            }
            let older = at.unwrap_or(self.keep + 1);
            let names = (0..older).rev().map(|n| generation(&self.path, n));
            let Some(next) = names
                .filter_map(|p| super::logs::open_to_read(&p).ok())
                .next()
            else {
                return Ok(false);
            };
            // A rotation between these looks would make it the wrong one.
            if self.position(held) == at {
                let meta = next.metadata()?;
                self.file = Some((next, (meta.dev(), meta.ino())));
                self.rest.clear();
                return Ok(true);
            }
        }
    }

    /// Which generation the file with this identity is.
    fn position(&self, held: Option<Identity>) -> Option<usize> {
        let held = held?;
        (0..=self.keep).find(|n| identity(&generation(&self.path, *n)) == Some(held))
    }
}

/// Somebody emptied the file: it is read from its beginning.
fn cut_off(file: &mut File) -> io::Result<()> {
    let here = file.stream_position()?;
    if file.metadata()?.len() < here {
        file.seek(SeekFrom::Start(0))?;
    }
    Ok(())
}

/// Waits for changes of the files in a directory.
#[derive(Debug)]
pub struct Watch {
    inotify: Option<Inotify>,
}

impl Watch {
    /// Watches the directory `dir`; without inotify (too many are open) it is looked at often instead.
    #[must_use]
    pub fn dir(dir: &Path) -> Watch {
        Watch::dirs(&[dir])
    }

    /// Watches several directories.
    #[must_use]
    pub fn dirs(dirs: &[&Path]) -> Watch {
        let flags = InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK;
        let events = AddWatchFlags::IN_MODIFY
            | AddWatchFlags::IN_CREATE
            | AddWatchFlags::IN_MOVED_TO
            | AddWatchFlags::IN_MOVE_SELF
            | AddWatchFlags::IN_DELETE_SELF;
        let inotify = Inotify::init(flags).ok().filter(|inotify| {
            dirs.iter()
                .all(|dir| inotify.add_watch(*dir, events).is_ok())
        });
        Watch { inotify }
    }

    /// Waits until something changed, or for `most`, or a second.
    pub fn wait(&self, most: Duration) {
        self.wait_beside(&[], most);
    }

    /// As [`Watch::wait`], or until one of `others` is readable.
    pub fn wait_beside(&self, others: &[BorrowedFd<'_>], most: Duration) {
        let longest = match self.inotify {
            Some(_) => Duration::from_secs(1),
            None => Duration::from_millis(200),
        };
        let millis = u16::try_from(most.min(longest).as_millis()).unwrap_or(1000);
        let changes = self.inotify.iter().map(AsFd::as_fd);
        let fds = changes.chain(others.iter().copied());
        let mut fds: Vec<PollFd> = fds.map(|fd| PollFd::new(fd, PollFlags::POLLIN)).collect();
        let _ = poll(&mut fds, PollTimeout::from(millis));
        let Some(inotify) = &self.inotify else {
            return;
        };
        while inotify.read_events().is_ok_and(|e| !e.is_empty()) {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn append(path: &Path, text: &str) {
        let mut file = File::options()
            .append(true)
            .create(true)
            .open(path)
            .unwrap();
        file.write_all(text.as_bytes()).unwrap();
    }

    fn read(tail: &mut Tail) -> String {
        let mut all = String::new();
        tail.lines(&mut |line| {
            all.push_str(std::str::from_utf8(line).unwrap());
            all.push(',');
            true
        })
        .unwrap();
        all
    }

    #[test]
    fn lines_come_once_and_whole() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        let mut tail = Tail::oldest(&path, 1);
        assert_eq!(read(&mut tail), "");
        append(&path, "a\nb");
        assert_eq!(read(&mut tail), "a,");
        append(&path, "c\n\nd\n");
        assert_eq!(read(&mut tail), "bc,,d,");
        assert_eq!(read(&mut tail), "");
        let mut end = Tail::end(&path, 1);
        append(&path, "e\n");
        assert_eq!(read(&mut end), "e,");
        assert_eq!(read(&mut tail), "e,");
    }

    #[test]
    fn nothing_is_lost_over_rotations() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        append(&path, "1\n");
        let mut tail = Tail::oldest(&path, 3);
        assert_eq!(read(&mut tail), "1,");
        for n in 2..5 {
            append(&path, &format!("{n}a\n"));
            rotate(&path, 3).unwrap();
            append(&path, &format!("{n}b\n"));
        }
        assert_eq!(read(&mut tail), "2a,2b,3a,3b,4a,4b,");
        // One is dropped before it was read: then the oldest that is left.
        for n in 5..10 {
            append(&path, &format!("{n}\n"));
            rotate(&path, 3).unwrap();
        }
        // The one it holds open is read to its end.
        assert_eq!(read(&mut tail), "5,7,8,9,");
        append(&path, "10\n");
        assert_eq!(read(&mut tail), "10,");
        assert_eq!(read(&mut Tail::oldest(&path, 3)), "7,8,9,10,");
    }

    #[test]
    fn an_emptied_file_is_read_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        append(&path, "long line\n");
        let mut tail = Tail::oldest(&path, 1);
        assert_eq!(read(&mut tail), "long line,");
        File::create(&path).unwrap();
        assert_eq!(read(&mut tail), "");
        append(&path, "x\n");
        assert_eq!(read(&mut tail), "x,");
    }

    #[test]
    fn a_watch_wakes_on_a_write_and_ends_in_time() {
        let dir = tempfile::tempdir().unwrap();
        let watch = Watch::dir(dir.path());
        let in_time = || {
            let began = std::time::Instant::now();
            watch.wait(Duration::from_millis(20));
            let waited = began.elapsed();
            append(&dir.path().join("f"), "x");
            watch.wait(Duration::from_secs(60));
            waited < Duration::from_millis(900) && began.elapsed() < Duration::from_secs(2)
        };
        // The machine may stand still for a second, but not each time.
        assert!((0..5).any(|_| in_time()));
    }
}
