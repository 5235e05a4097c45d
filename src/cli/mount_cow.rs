//! `rless mount-cow`: the file system alone, at a path, for test suites and for looking around; also as a
//! mount helper (`mount -t fuse.rless`) and in fuse-overlayfs's place (podman's `mount_program`).

mod options;

use crate::cow::{Cow, IdView, Lower, Options, mount};
use crate::error::{Result, ResultExt, failed, usage};
use crate::sys::supervise;
use nix::fcntl::{Flock, FlockArg, OFlag};
use nix::sys::wait::{WaitStatus, waitpid};
use options::Overlay;
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Names under which the binary is a mount helper.
const HELPERS: [&str; 2] = ["mount.fuse.rless", "mount.rless"];
/// How long a server of the same upper, whose mount has just gone, may take to end.
const PATIENCE: Duration = Duration::from_secs(20);

/// Mount an image's index or directories, with changes going to an upper, and serve it
///
/// Has to be run by the root of a user namespace in a mount namespace of its own
/// (`unshare --user --map-auto --map-root-user --mount`), or by root. Without `-o` it serves in
/// the foreground until the mount is gone (umount); then everything is on disk. With `-o` it
/// goes to the background when the mount is there, as mount helpers do.
///
/// As a mount helper: a symbolic link /sbin/mount.fuse.rless to rless makes
/// `mount -t fuse.rless SOURCE TARGET -o OPTIONS` work; podman takes the link's path as
/// `--storage-opt overlay.mount_program=`.
#[derive(Debug, clap::Args)]
#[command(after_long_help = limits())]
pub(crate) struct Args {
    /// Image index to mount
    #[arg(long, value_name = "FILE", requires = "packs")]
    index: Option<PathBuf>,
    /// Directory of the packs that the index names
    #[arg(long, value_name = "DIR", requires = "index")]
    packs: Option<PathBuf>,
    /// Directory to mount, which may change meanwhile
    #[arg(long, value_name = "DIR", conflicts_with = "index")]
    lower: Option<PathBuf>,
    /// Directory for the changes (made if missing); without it the mount is read-only
    #[arg(long, value_name = "DIR")]
    upper: Option<PathBuf>,
    /// Bytes that the upper may take
    #[arg(long, value_name = "BYTES")]
    size: Option<u64>,
    /// Show every owner as this one; true owners are in the attribute security.rless.owner
    #[arg(long, value_name = "UID:GID", value_parser = owner)]
    squash: Option<(u32, u32)>,
    /// Write the number of requests of each kind here at the end (or RLESS_FUSE_STATS)
    #[arg(long, value_name = "FILE")]
    stats: Option<PathBuf>,
    /// As overlayfs and fuse-overlayfs take: lowerdir=A:B:…,upperdir=,workdir=, ro, nosuid, nodev, noexec,
    /// noatime, squash_to_root …; also image=FILE,packs=DIR, size=BYTES
    ///
    /// Of several lower directories the first is uppermost; directories of one name are merged, overlayfs's
    /// whiteouts and opaque directories hide what is below. They must not change while they are mounted.
    /// The upper holds rless's journal, not plain files; the work directory is not needed.
    #[arg(short, long, value_name = "OPTIONS", conflicts_with_all = ["index", "lower"])]
    options: Vec<OsString>,
    /// Stay in the foreground with -o, too
    #[arg(short, long)]
    foreground: bool,
    /// Where to mount; before it, as mount(8) gives it, a source that is only shown
    #[arg(value_name = "[SOURCE] MOUNTPOINT", required = true, num_args = 1..=2)]
    places: Vec<PathBuf>,
}

/// The manual's list of what is not as on a local file system.
fn limits() -> String {
    let mut text = "File system limits (of a container's root as well): what a local ext4 would answer otherwise, \
                    or what a program may miss.\n"
        .to_owned();
    for (_, limit) in crate::cow::LIMITS {
        text.push_str("\n- ");
        text.push_str(limit);
        text.push('\n');
    }
    text
}

fn owner(text: &str) -> Result<(u32, u32), String> {
    let (uid, gid) = text.split_once(':').ok_or("not UID:GID")?;
    let id = |s: &str| s.parse::<u32>().map_err(|e| format!("{s:?}: {e}"));
    Ok((id(uid)?, id(gid)?))
}

/// What the command line of a mount helper asks for.
#[derive(Debug)]
pub(crate) enum Helper {
    /// It is none: the program has another name.
    No,
    /// This command line of `mount-cow`.
    Line(Vec<OsString>),
    /// Nothing is to be done (`mount --fake`).
    Fake,
    /// What cannot be done.
    Refused(anyhow::Error),
}

/// Reads the command line of a mount helper (mount(8), EXTERNAL HELPERS):
/// `mount.TYPE SOURCE DIR [-sfnv] [-N NAMESPACE] [-o OPTIONS] [-t TYPE.SUBTYPE]`.
pub(crate) fn helper(words: &[OsString]) -> Helper {
    let Some((name, rest)) = words.split_first() else {
        return Helper::No;
    };
    let name = Path::new(name).file_name().unwrap_or_default();
    if !HELPERS.iter().any(|h| name == *h) {
        return Helper::No;
    }
    let mut line: Vec<OsString> = vec!["rless".into()];
    if rest.iter().any(|w| w == "--version" || w == "-V") {
        line.push("--version".into());
        return Helper::Line(line);
    }
    line.push("mount-cow".into());
    let mut rest = rest.iter();
    let mut with_options = false;
    while let Some(word) = rest.next() {
        match word.to_str() {
            // mount(8): no mtab, sloppy, verbose; the type.
            Some("-n" | "-s" | "-v") => {}
            Some("-t") => drop(rest.next()),
            Some("-f") => return Helper::Fake,
            Some(w) if w.starts_with("-N") => {
                let e = usage("mount -N: mounting in another mount namespace is not there")
                    .hint("nsenter --mount=NAMESPACE mount … does it");
                return Helper::Refused(e.into());
            }
            _ => {
                with_options |= word.to_string_lossy().starts_with("-o");
                line.push(word.clone());
            }
        }
    }
    if !with_options {
        line.extend(["-o".into(), "defaults".into()]);
    }
    Helper::Line(line)
}

/// What is mounted where.
struct Plan {
    options: Options,
    target: PathBuf,
    source: OsString,
    flags: nix::mount::MsFlags,
}

pub(crate) fn run(args: Args) -> Result<u8> {
    let background = !args.options.is_empty() && !args.foreground;
    if Overlay::parse(&args.options)?.remount {
        return remount(&args).map(|()| 0);
    }
    let plan = plan(args)?;
    if !background {
        let server = start(plan)?;
        return serve(server);
    }
    let (read, write) = nix::unistd::pipe2(OFlag::O_CLOEXEC)?;
    match supervise::fork().fault(|| failed("forking the file system's server"))? {
        Some(child) => {
            drop(write);
            let mut read = File::from(read);
            if again(|| read.read(&mut [0]))? == 1 {
                return Ok(0);
            }
            // It has said why on standard error.
            match again(|| waitpid(child, None).map_err(Into::into))? {
                WaitStatus::Exited(_, code) if code != 0 => Ok(u8::try_from(code).unwrap_or(125)),
                _ => Err(failed("the file system's server ended").into()),
            }
        }
        None => {
            drop(read);
            // Nobody is to wait for the end of a pipe that the caller gave to all its children.
            supervise::close_leaked().fault(|| failed("closing the caller's files"))?;
            let server = start(plan)?;
            leave()?;
            let _ = File::from(write).write(b"+");
            serve(server)
        }
    }
}

/// A call that a signal may interrupt.
fn again<T>(mut call: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    loop {
        match call() {
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

/// Changes the flags of a mount.
fn remount(args: &Args) -> Result<()> {
    use nix::mount::MsFlags;
    let overlay = Overlay::parse(&args.options)?;
    if let Some(word) = overlay.of_a_new_mount() {
        return Err(usage(format!("-o remount changes flags only, not {word}"))
            .hint("umount and mount do; `mount -o remount,… SOURCE DIR` takes nothing from /etc/fstab")
            .into());
    }
    let flags = MsFlags::MS_REMOUNT | overlay.flags.0;
    let target = args
        .places
        .last()
        .map(PathBuf::as_path)
        .unwrap_or(Path::new(""));
    let none = None::<&str>;
    nix::mount::mount(none, target, none, flags, none)
        .fault(|| failed(format!("remounting {}", target.display())))
}

fn serve(server: mount::Server) -> Result<u8> {
    server.wait();
    server.stop()?;
    Ok(0)
}

/// Leaves the caller's session, directory and standard streams.
fn leave() -> Result<()> {
    nix::unistd::setsid()?;
    nix::unistd::chdir("/")?;
    let null = File::options().read(true).write(true).open("/dev/null")?;
    nix::unistd::dup2_stdin(&null)?;
    nix::unistd::dup2_stdout(&null)?;
    nix::unistd::dup2_stderr(&null)?;
    Ok(())
}

fn start(plan: Plan) -> Result<mount::Server> {
    if let Some(upper) = &plan.options.upper {
        wait_free(&upper.join("journal"));
    }
    let cow = Cow::open(plan.options)?;
    mount::mount_at(&plan.target, &cow, &plan.source, plan.flags)
}

/// umount(8) does not wait for a server that is still writing back: who mounts the same upper again does.
fn wait_free(journal: &Path) {
    let began = Instant::now();
    while began.elapsed() < PATIENCE {
        let Ok(file) = File::open(journal) else {
            return;
        };
        if Flock::lock(file, FlockArg::LockSharedNonblock).is_ok() {
            return;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn plan(args: Args) -> Result<Plan> {
    let mut places = args.places;
    let target = places.pop().unwrap_or_default();
    let target = target
        .canonicalize()
        .fault(|| failed(format!("mounting at {}", target.display())))?;
    let overlay = Overlay::parse(&args.options)?;
    let upper = overlay.upper.or(args.upper).map(absolute).transpose()?;
    let work = overlay.work.map(absolute).transpose()?;
    // Ours may lie below what is mounted: it is not to be seen through itself.
    let hide: Vec<PathBuf> = upper.iter().chain(&work).cloned().collect();
    let lower = match (
        args.index.or(overlay.image),
        args.packs.or(overlay.packs),
        args.lower,
    ) {
        (Some(index), Some(packs), None) if overlay.lower.is_empty() => {
            Lower::Image { index, packs }
        }
        (None, None, Some(root)) => Lower::HostDir {
            root,
            hide,
            uids: IdView(vec![(0, 0, u32::MAX)]),
            gids: IdView(vec![(0, 0, u32::MAX)]),
        },
        (None, None, None) if !overlay.lower.is_empty() => Lower::Stack {
            roots: overlay.lower,
            hide,
        },
        _ => {
            return Err(usage("nothing to mount, or more than one thing")
                .hint("one of --index with --packs, --lower, -o lowerdir=DIR:…, -o image=FILE,packs=DIR")
                .into());
        }
    };
    let stats = args
        .stats
        .or_else(|| std::env::var_os("RLESS_FUSE_STATS").map(Into::into));
    Ok(Plan {
        options: Options {
            lower,
            upper,
            squash: overlay.squash.or(args.squash),
            size_limit: overlay.size.or(args.size),
            stats: stats.map(absolute).transpose()?,
        },
        target,
        source: overlay
            .source
            .or_else(|| places.pop().map(PathBuf::into_os_string))
            .unwrap_or_else(|| "mount-cow".into()),
        flags: overlay.flags.0,
    })
}

/// The server leaves the directory it was started in.
fn absolute(path: PathBuf) -> Result<PathBuf> {
    std::path::absolute(&path).fault(|| failed(format!("finding {}", path.display())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mount_helpers_are_known_by_their_name() {
        let line = |words: &str| {
            let words: Vec<OsString> = words.split(' ').map(Into::into).collect();
            match helper(&words) {
                Helper::Line(line) => Some(line.join(" ".as_ref()).into_string().unwrap()),
                _ => None,
            }
        };
        assert_eq!(line("/usr/bin/rless run x"), None);
        let given =
            line("/sbin/mount.fuse.rless none /mnt -n -o lowerdir=/a -t fuse.rless").unwrap();
        assert_eq!(given, "rless mount-cow none /mnt -o lowerdir=/a");
        assert_eq!(
            line("mount.rless -o lowerdir=/a /mnt").unwrap(),
            "rless mount-cow -o lowerdir=/a /mnt"
        );
        assert_eq!(
            line("mount.rless x /mnt").unwrap(),
            "rless mount-cow x /mnt -o defaults"
        );
        assert_eq!(
            line("mount.fuse.rless --version").unwrap(),
            "rless --version"
        );
        let kind = |words: &str| helper(&words.split(' ').map(Into::into).collect::<Vec<_>>());
        assert!(matches!(kind("rless mount-cow -f x"), Helper::No));
        assert!(matches!(kind("mount.rless x /mnt -f"), Helper::Fake));
        let refused = kind("mount.rless x /mnt -N /proc/1/ns/mnt");
        assert!(matches!(refused, Helper::Refused(_)));
    }
}
