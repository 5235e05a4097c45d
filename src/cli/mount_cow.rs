//! `rless mount-cow`: the file system alone, at a path, for test suites and for looking around.

use crate::cow::{Cow, IdView, Lower, Options, mount};
use crate::error::{Result, usage};
use clap::ArgGroup;
use std::path::PathBuf;

/// Mount an image's index or a directory, with changes going to an upper, and serve it
///
/// Has to be run by the root of a user namespace in a mount namespace of its own
/// (`unshare --user --map-auto --map-root-user --mount`). Serves in the foreground until the
/// mount is gone (umount); then everything is on disk.
#[derive(Debug, clap::Args)]
#[command(group(ArgGroup::new("what").required(true).args(["index", "lower"])), after_long_help = limits())]
pub(crate) struct Args {
    /// Image index to mount
    #[arg(long, value_name = "FILE", requires = "packs")]
    index: Option<PathBuf>,
    /// Directory of the packs that the index names
    #[arg(long, value_name = "DIR", requires = "index")]
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

pub(crate) fn run(args: Args) -> Result<u8> {
    let lower = match (args.index, args.packs, args.lower) {
        (Some(index), Some(packs), None) => Lower::Image { index, packs },
        (None, None, Some(root)) => Lower::HostDir {
            root,
            // Ours may lie below the root: it is not to be seen through itself.
            hide: args.upper.iter().cloned().collect(),
            uids: IdView(vec![(0, 0, u32::MAX)]),
            gids: IdView(vec![(0, 0, u32::MAX)]),
        },
        _ => return Err(usage("give either --index with --packs, or --lower").into()),
    };
    let cow = Cow::open(Options {
        lower,
        upper: args.upper,
        squash: args.squash,
        size_limit: args.size,
        stats: args
            .stats
            .or_else(|| std::env::var_os("RLESS_FUSE_STATS").map(Into::into)),
    })?;
    let server = mount::mount_at(&args.mountpoint, &cow)?;
    server.wait();
    server.stop()?;
    Ok(0)
}
