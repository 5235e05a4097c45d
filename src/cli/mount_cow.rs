//! `rless mount-cow`: the file system alone, at a path, for test suites and for looking around.
//!
//! It is also what mount(8) runs through mount.fuse(8): `mount -t fuse.rless mount-cow DIR -o OPTIONS` becomes
//! `rless mount-cow DIR -o OPTIONS`, for a remount too (the mount's source is `mount-cow`). With `-o` it goes to the
//! background once it is mounted, as mount(8) expects.

use crate::cow::{Cow, IdView, Lower, Options, mount};
use crate::error::{Result, usage};
use anyhow::Context;
use nix::mount::MsFlags;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::path::PathBuf;

/// Mount an image's index or a directory, with changes going to an upper, and serve it
///
/// Has to be run by the root of a user namespace in a mount namespace of its own
/// (`unshare --user --map-auto --map-root-user --mount`). Serves in the foreground until the
/// mount is gone (umount); then everything is on disk. With -o it works as a helper of mount(8):
/// `mount -t fuse.rless mount-cow DIR -o lowerdir=DIR,upperdir=DIR` where mount.fuse(8) is installed.
#[derive(Debug, clap::Args)]
#[command(after_long_help = limits())]
pub(crate) struct Args {
    /// Image index to mount
    #[arg(long, value_name = "FILE", conflicts_with = "lower")]
    index: Option<PathBuf>,
    /// Directory of the packs that the index names
    #[arg(long, value_name = "DIR")]
    packs: Option<PathBuf>,
    /// Directory to mount
    #[arg(long, value_name = "DIR")]
    lower: Option<PathBuf>,
    /// Directory for the changes (made if missing); without it the mount is read-only
    #[arg(long, value_name = "DIR")]
    upper: Option<PathBuf>,
    /// Bytes of content that the upper may hold
    #[arg(long, value_name = "BYTES")]
    size: Option<u64>,
    /// Show every owner as this one; true owners are in the attribute security.rless.owner
    #[arg(long, value_name = "UID:GID", value_parser = owner)]
    squash: Option<(u32, u32)>,
    /// Write the number of requests of each kind here at the end (or RLESS_FUSE_STATS)
    #[arg(long, value_name = "FILE")]
    stats: Option<PathBuf>,
    /// As mount(8) gives them, and go to the background: lowerdir=, upperdir=, workdir= (not needed), index=,
    /// packs=, size=, remount, ro, rw, nosuid, nodev, noexec, noatime and their opposites
    #[arg(short = 'o', value_name = "OPTIONS", value_delimiter = ',')]
    options: Vec<String>,
    /// Where to mount
    mountpoint: PathBuf,
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

/// What `-o` says beyond the long options.
#[derive(Debug)]
struct Mode {
    flags: MsFlags,
    remount: bool,
    background: bool,
}

/// Takes `-o` apart, into the long options where it names one.
fn take_options(args: &mut Args) -> Result<Mode> {
    let mut mode = Mode {
        background: !args.options.is_empty(),
        flags: MsFlags::empty(),
        remount: false,
    };
    for option in std::mem::take(&mut args.options) {
        let (name, value) = option.split_once('=').unwrap_or((&option, ""));
        let path = || Some(PathBuf::from(value));
        match name {
            "lowerdir" if value.contains(':') => {
                return Err(
                    usage(format!("{option}: only one lower directory is possible")).into(),
                );
            }
            "lowerdir" => args.lower = path(),
            "upperdir" => args.upper = path(),
            "index" => args.index = path(),
            "packs" => args.packs = path(),
            "size" => {
                let size = value.parse();
                args.size = Some(size.map_err(|e| usage(format!("{option}: {e}")))?);
            }
            "remount" => mode.remount = true,
            "ro" => mode.flags |= MsFlags::MS_RDONLY,
            "nosuid" => mode.flags |= MsFlags::MS_NOSUID,
            "nodev" => mode.flags |= MsFlags::MS_NODEV,
            "noexec" => mode.flags |= MsFlags::MS_NOEXEC,
            "noatime" => mode.flags |= MsFlags::MS_NOATIME,
            "workdir" | "rw" | "suid" | "dev" | "exec" | "atime" | "relatime" | "defaults" => {}
            // What mount(8) shows of the mount, and its own.
            "user_id" | "group_id" | "default_permissions" | "allow_other" | "nofail" => {}
            _ if name.starts_with("x-") => {}
            _ => return Err(usage(format!("{option}: not an option of mount-cow")).into()),
        }
    }
    Ok(mode)
}

fn remount(args: &Args, flags: MsFlags) -> Result<()> {
    let none = None::<&str>;
    nix::mount::mount(
        none,
        &args.mountpoint,
        none,
        MsFlags::MS_REMOUNT | flags,
        none,
    )
    .with_context(|| format!("remounting {}", args.mountpoint.display()))
}

pub(crate) fn run(mut args: Args) -> Result<u8> {
    let mode = take_options(&mut args)?;
    if mode.remount {
        remount(&args, mode.flags)?;
        return Ok(0);
    }
    let Args {
        index,
        packs,
        lower,
        upper,
        stats,
        ..
    } = &mut args;
    for path in [index, packs, lower, upper, stats].into_iter().flatten() {
        // The background is somewhere else.
        *path = std::path::absolute(&*path).context("finding the working directory")?;
    }
    if !mode.background {
        return serve(args, &mode, None);
    }
    let (read, write) =
        nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC).context("making a pipe")?;
    let Some(child) = crate::sys::supervise::fork().context("going to the background")? else {
        drop(read);
        return serve(args, &mode, Some(write));
    };
    drop(write);
    let mut told = Vec::new();
    if std::fs::File::from(read).read_to_end(&mut told).is_ok() && !told.is_empty() {
        return Ok(0);
    }
    // It has said why.
    match nix::sys::wait::waitpid(child, None).context("waiting for the server")? {
        nix::sys::wait::WaitStatus::Exited(_, code) => Ok(u8::try_from(code).unwrap_or(125)),
        _ => Ok(125),
    }
}

/// Leaves the terminal and tells the parent that the mount is there.
fn detach(ready: OwnedFd) -> Result<()> {
    nix::unistd::setsid().context("leaving the session")?;
    std::env::set_current_dir("/").context("leaving the directory")?;
    let null = std::fs::File::options()
        .read(true)
        .write(true)
        .open("/dev/null");
    let null = null.context("opening /dev/null")?;
    nix::unistd::dup2_stdin(&null).context("closing standard input")?;
    nix::unistd::dup2_stdout(&null).context("closing standard output")?;
    nix::unistd::dup2_stderr(&null).context("closing standard error")?;
    let _ = std::fs::File::from(ready).write_all(b"m"); // it may have ended
    Ok(())
}

fn serve(args: Args, mode: &Mode, ready: Option<OwnedFd>) -> Result<u8> {
    let mountpoint = std::path::absolute(&args.mountpoint).context("finding the mount point")?;
    let lower = match (args.index.clone(), args.packs.clone(), args.lower.clone()) {
        (Some(index), Some(packs), None) => Lower::Image { index, packs },
        (None, None, Some(root)) => Lower::HostDir {
            root,
            // Ours may lie below the root: it is not to be seen through itself.
            hide: args.upper.iter().cloned().collect(),
            uids: IdView(vec![(0, 0, u32::MAX)]),
            gids: IdView(vec![(0, 0, u32::MAX)]),
        },
        _ => return Err(usage("give either --index and --packs, or --lower").into()),
    };
    let cow = Cow::open(Options {
        lower,
        upper: args.upper.clone(),
        squash: args.squash,
        size_limit: args.size,
        stats: args
            .stats
            .clone()
            .or_else(|| std::env::var_os("RLESS_FUSE_STATS").map(Into::into)),
    })?;
    let server = mount::mount_at(&mountpoint, &cow)?;
    let settled = match mode.flags {
        flags if flags.is_empty() => Ok(()),
        flags => remount(&args, flags),
    };
    if let Err(e) = settled.and_then(|()| ready.map_or(Ok(()), detach)) {
        let _ = nix::mount::umount(&mountpoint);
        return Err(e);
    }
    server.wait();
    server.stop()?;
    Ok(0)
}
