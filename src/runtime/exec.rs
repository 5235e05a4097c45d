//! Finding and executing the command, and saying why when it cannot be.

use std::ffi::{CString, OsStr};
use std::fs::{self, File};
use std::io::{ErrorKind, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, AtFlags};
use nix::unistd::{AccessFlags, execve, faccessat};
use oci_spec::runtime::Process;

use crate::error::{Fault, Kind, Result, failed};

/// What a process without PATH gets to be searched.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// Interpreters of interpreters that the kernel follows.
const MAX_SCRIPTS: usize = 5;

/// A file on the disk.
pub(super) type FileId = (u64, u64);

/// Our own binary, which no container may execute (it would show it as /proc/PID/exe).
pub(super) fn own_binary() -> Option<FileId> {
    id(Path::new("/proc/self/exe"))
}

fn id(path: &Path) -> Option<FileId> {
    fs::metadata(path).ok().map(|m| (m.dev(), m.ino()))
}

/// A command ready to be executed.
#[derive(Debug)]
pub(super) struct Command {
    path: PathBuf,
    args: Vec<CString>,
    env: Vec<CString>,
}

impl Command {
    /// Finds `args[0]` as the current user, in the current root and working directory.
    ///
    /// # Errors
    /// 127 not found, 126 not executable.
    pub(super) fn find(process: &Process, own: Option<FileId>) -> Result<Command> {
        let args = process.args().as_deref().unwrap_or_default();
        let env = process.env().as_deref().unwrap_or_default();
        let name = args
            .first()
            .filter(|a| !a.is_empty())
            .ok_or_else(|| failed("no command given and the image has none"))?;
        let path = if name.contains('/') {
            let path = PathBuf::from(name);
            check(&path).map_err(|e| describe(&path, e))?;
            path
        } else {
            search(name, env)?
        };
        refuse_own(&path, own)?;
        let strings = |list: &[String]| -> Result<Vec<CString>> {
            list.iter()
                .map(|s| CString::new(s.as_str()))
                .collect::<Result<_, _>>()
                .map_err(|_| failed("an argument or variable holds a NUL byte").into())
        };
        Ok(Command {
            path,
            args: strings(args)?,
            // What is no assignment is left out: nothing of the host's is put in its place.
            env: strings(
                &env.iter()
                    .filter(|e| e.find('=').is_some_and(|at| at > 0))
                    .cloned()
                    .collect::<Vec<_>>(),
            )?,
        })
    }

    /// Executes it; returns only why it could not.
    pub(super) fn execute(&self) -> anyhow::Error {
        let Ok(path) = CString::new(self.path.as_os_str().as_bytes()) else {
            return failed("the command holds a NUL byte").into();
        };
        match execve(&path, &self.args, &self.env) {
            Err(e) => describe(&self.path, e),
        }
    }
}

/// The first executable `name` of PATH; else the error of the first that is there, as execvp(3) has it.
fn search(name: &str, env: &[String]) -> Result<PathBuf> {
    let path = env
        .iter()
        .find_map(|e| e.strip_prefix("PATH="))
        .unwrap_or(DEFAULT_PATH);
    let mut denied = None;
    for dir in path.split(':') {
        let dir = if dir.is_empty() { "." } else { dir };
        let candidate = Path::new(dir).join(name);
        match check(&candidate) {
            Ok(()) => return Ok(candidate),
            Err(Errno::ENOENT | Errno::ENOTDIR) => {}
            Err(e) => denied = denied.or(Some((candidate, e))),
        }
    }
    match denied {
        // A directory of that name in PATH is not a command.
        Some((candidate, e)) if e != Errno::EISDIR => Err(describe(&candidate, e)),
        _ => Err(Fault::new(
            Kind::CommandNotFound,
            format!("executable file `{name}` not found in $PATH"),
        )
        .into()),
    }
}

/// Whether the file could be executed by this process's effective ids.
fn check(path: &Path) -> Result<(), Errno> {
    let meta = fs::metadata(path).map_err(errno)?;
    if meta.is_dir() {
        return Err(Errno::EISDIR);
    }
    if !meta.is_file() {
        return Err(Errno::EACCES);
    }
    faccessat(AT_FDCWD, path, AccessFlags::X_OK, AtFlags::AT_EACCESS)
}

fn errno(e: std::io::Error) -> Errno {
    Errno::from_raw(e.raw_os_error().unwrap_or(libc::EIO))
}

/// The fault for a failed execve(2), with what the errno does not say.
fn describe(path: &Path, errno: Errno) -> anyhow::Error {
    let shown = path.display();
    let fault = match errno {
        Errno::ENOENT if path.exists() => match interpreter(path) {
            Some(interpreter) => Fault::new(
                Kind::CommandNotFound,
                format!(
                    "executing `{shown}`: its interpreter `{}` is missing",
                    interpreter.display()
                ),
            ),
            None => Fault::new(
                Kind::CommandNotFound,
                format!("executing `{shown}`: its interpreter is missing"),
            ),
        },
        Errno::ENOENT | Errno::ENOTDIR => Fault::new(
            Kind::CommandNotFound,
            format!("executable file `{shown}` not found"),
        ),
        Errno::EISDIR => Fault::new(
            Kind::NotExecutable,
            format!("executing `{shown}`: it is a directory"),
        ),
        Errno::EACCES => Fault::new(
            Kind::NotExecutable,
            format!("executing `{shown}`: the container's user may not execute it"),
        ),
        Errno::ENOEXEC => Fault::new(Kind::NotExecutable, format!("executing `{shown}`")).hint(
            "it is a script without a first line like `#!/bin/sh`, or a program for another \
             processor (see --platform)",
        ),
        _ => Fault::new(Kind::NotExecutable, format!("executing `{shown}`")),
    };
    match errno {
        Errno::EISDIR => fault.into(),
        _ => anyhow::Error::new(errno).context(fault),
    }
}

/// Refuses to execute our own binary, be it through interpreters.
fn refuse_own(path: &Path, own: Option<FileId>) -> Result<()> {
    let mut path = path.to_owned();
    for _ in 0..=MAX_SCRIPTS {
        if own.is_some() && id(&path) == own {
            return Err(Fault::new(
                Kind::NotExecutable,
                format!(
                    "executing `{}`: it is the runtime itself: refused",
                    path.display()
                ),
            )
            .into());
        }
        // The kernel needs no permission to read; we do, to know that it is not led back to us.
        if own.is_some() && readable(&path).is_err_and(|e| e.kind() == ErrorKind::PermissionDenied)
        {
            return Err(Fault::new(
                Kind::NotExecutable,
                format!("executing `{}`: its user may not read it", path.display()),
            )
            .hint("chmod +r it in the image, or run as another user")
            .into());
        }
        match script(&path) {
            Some(next) => path = next,
            None => break,
        }
    }
    Ok(())
}

/// Opens a regular file; what a fifo or a terminal holds is not taken, nor waited for.
fn readable(path: &Path) -> std::io::Result<File> {
    let file = File::options()
        .read(true)
        .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY)
        .open(path)?;
    match file.metadata()?.is_file() {
        true => Ok(file),
        false => Err(ErrorKind::InvalidInput.into()),
    }
}

/// The first bytes of a file that the user may read.
fn head(path: &Path, length: u64) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    let file = readable(path).ok()?;
    file.take(length).read_to_end(&mut bytes).ok()?;
    Some(bytes)
}

/// A script's interpreter.
fn script(path: &Path) -> Option<PathBuf> {
    let bytes = head(path, 256)?;
    let line = bytes.strip_prefix(b"#!")?.split(|b| *b == b'\n').next()?;
    let word = line
        .split(|b| matches!(b, b' ' | b'\t' | 0))
        .find(|w| !w.is_empty())?;
    Some(PathBuf::from(OsStr::from_bytes(word)))
}

/// What a file needs to be executed: a script's interpreter or a program's dynamic loader.
fn interpreter(path: &Path) -> Option<PathBuf> {
    script(path).or_else(|| elf_interpreter(&head(path, 8192)?))
}

/// PT_INTERP of a little-endian ELF file (elf(5)).
fn elf_interpreter(bytes: &[u8]) -> Option<PathBuf> {
    let number = |at: usize, size: usize| {
        let field = bytes.get(at..at.checked_add(size)?)?;
        let value = field.iter().rev().fold(0u64, |n, b| n << 8 | u64::from(*b));
        usize::try_from(value).ok()
    };
    if bytes.get(..4)? != b"\x7fELF" || *bytes.get(5)? != 1 {
        return None;
    }
    let wide = *bytes.get(4)? == 2;
    let (table, size, count, offset, length) = if wide {
        (number(32, 8)?, number(54, 2)?, number(56, 2)?, 8, 32)
    } else {
        (number(28, 4)?, number(42, 2)?, number(44, 2)?, 4, 16)
    };
    let word = if wide { 8 } else { 4 };
    for n in 0..count.min(64) {
        let header = table.checked_add(n.checked_mul(size)?)?;
        if number(header, 4)? == 3 {
            let (at, length) = (
                number(header.checked_add(offset)?, word)?,
                number(header.checked_add(length)?, word)?,
            );
            let text = bytes.get(at..at.checked_add(length)?)?;
            let text = text.split(|b| *b == 0).next()?;
            return Some(PathBuf::from(OsStr::from_bytes(text)));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_dynamic_programs_loader_is_found() {
        let own = std::env::current_exe().unwrap();
        let found = interpreter(&own).unwrap();
        assert!(found.to_string_lossy().contains("/ld-"), "{found:?}");
        assert_eq!(elf_interpreter(b"\x7fELF\x02\x01"), None);
    }

    #[test]
    fn the_search_takes_executables_and_remembers_what_was_denied() {
        let dir = tempfile::tempdir().unwrap();
        let (a, b) = (dir.path().join("a"), dir.path().join("b"));
        fs::create_dir_all(a.join("dir")).unwrap();
        fs::create_dir(&b).unwrap();
        for (path, mode) in [
            (a.join("x"), 0o644),
            (b.join("x"), 0o755),
            (a.join("y"), 0o644),
        ] {
            fs::write(&path, "#! /nowhere/sh -e\n").unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        }
        let env = [format!("PATH={}:{}", a.display(), b.display())];
        assert_eq!(search("x", &env).unwrap(), b.join("x"));
        let kind = |name: &str| crate::error::kind(&search(name, &env).unwrap_err());
        assert_eq!(kind("y"), Kind::NotExecutable);
        assert_eq!(kind("dir"), Kind::CommandNotFound);
        assert_eq!(kind("none"), Kind::CommandNotFound);
        let missing = describe(&b.join("x"), Errno::ENOENT).to_string();
        assert!(missing.contains("interpreter `/nowhere/sh`"), "{missing}");
    }
}
