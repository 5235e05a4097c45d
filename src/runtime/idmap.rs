//! Which host ids a container's ids are, and who may write that into the kernel.
//!
//! [`plan`] is the decision, [`write`] the act; [`crate::runtime::spawn`] does the second.

use crate::error::{Result, failed};

/// One line of a uid or gid map: `count` ids from `container` on are the host's from `host` on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IdRange {
    /// First id inside the container.
    pub container: u32,
    /// First id in the caller's own namespace.
    pub host: u32,
    /// Number of ids, at least 1.
    pub count: u32,
}

/// Who writes the maps; each rung needs less from the host than the one before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rung {
    /// We hold CAP_SETUID and CAP_SETGID (root) and write them ourselves.
    Direct,
    /// `rless-idmap`, by its file capabilities.
    Helper,
    /// The system's `newuidmap` and `newgidmap`.
    Newuidmap,
    /// Only the caller's own id can be mapped, to one container id.
    SingleId,
}

/// What `--userns` asks for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Userns {
    /// Container 0 is the caller, 1.. are the subordinate ids (podman's rootless default and `host`).
    #[default]
    Default,
    /// The caller keeps its ids (or gets these) inside; container 0.. are subordinate ids.
    KeepId {
        /// Container uid of the caller; its own uid if `None`.
        uid: Option<u32>,
        /// Container gid of the caller; its own gid if `None`.
        gid: Option<u32>,
    },
    /// The caller is not mapped at all: container 0.. are subordinate ids.
    NoMap,
    /// Like [`Userns::NoMap`] with `size` ids that no range in `avoid` (host ids) touches.
    Auto {
        /// Number of ids.
        size: u32,
        /// Host ranges that other containers hold.
        avoid: Vec<IdRange>,
    },
    /// `--uidmap`/`--gidmap`: host ids are podman's intermediate ones (0 = caller, 1.. =
    /// subordinate ids); for root they are host ids.
    Explicit {
        /// uid lines.
        uids: Vec<IdRange>,
        /// gid lines.
        gids: Vec<IdRange>,
    },
}

/// A planned mapping.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mapping {
    /// Lines of uid_map.
    pub uids: Vec<IdRange>,
    /// Lines of gid_map.
    pub gids: Vec<IdRange>,
    /// Who writes them.
    pub rung: Rung,
    /// One sentence for `rless info`: why this rung.
    pub reason: String,
}

impl Mapping {
    /// Host uid of a container uid.
    #[must_use]
    pub fn host_uid(&self, container: u32) -> Option<u32> {
        to_host(&self.uids, container)
    }

    /// Host gid of a container gid.
    #[must_use]
    pub fn host_gid(&self, container: u32) -> Option<u32> {
        to_host(&self.gids, container)
    }
}

/// Host id of a container id.
fn to_host(ranges: &[IdRange], container: u32) -> Option<u32> {
    ranges.iter().find_map(|r| {
        let offset = container.checked_sub(r.container)?;
        (offset < r.count).then(|| r.host + offset)
    })
}

/// Plans the mapping for `userns`; `forced` (or else the environment's `RLESS_IDMAP`) picks the rung.
///
/// # Errors
/// A fault that names the ids or the tool that is missing.
pub fn plan(userns: &Userns, forced: Option<Rung>) -> Result<Mapping> {
    let _ = (userns, forced);
    Err(failed("planning the id mapping: not built yet").into())
}
