//! Layers into an image: the union, done once.
//!
//! The changes of every layer, lowest first, are replayed on a tree in memory, as docker and containerd extract
//! them onto a directory; what stands at the end is written as one index. Nothing here touches the host's
//! file system by a name out of a layer, so nothing can escape.
//!
//! # How a layer's entries are read
//!
//! - **Whiteouts** (OCI image-spec, "layer.md"): `.wh.x` removes `x`, `.wh..wh..opq` everything in its directory, as the
//!   *lower* layers left it. They are applied before the layer's other entries, wherever in the tar they stand. The
//!   rest of AUFS's names (`/.wh..wh.plnk/…` and the like) can be targets of the layer's hard links and go with it.
//! - **A directory over a directory** gives it new metadata and keeps its entries; everything else **replaces**
//!   what has its path (a directory with all that is in it). Within one layer the later of two entries counts.
//! - **A missing parent** is made: mode 0755, owner 0:0, time 0.
//! - **A parent that is a symbolic link** (in this layer or below it) is followed within the tree, as extraction in a
//!   chroot does: at most 40 links, `..` stops at the root, missing directories of the target are made. An
//!   *entry* for a directory where a link was replaces the link.
//! - **A parent that is neither** is an error.
//! - **A hard link** names its target's inode, in whatever layer that is, and a symbolic link itself rather than
//!   what it points to. Missing targets and directories are errors. A link to itself changes nothing. Metadata in a
//!   link's own header is ignored, as GNU tar does.
//! - **Times of directories** are what their last entry says; adding a name does not change them.
//!
//! # Bounds
//!
//! [`MAX_INODES`] in the tree, [`MAX_DEPTH`] levels, and a total of path components walked.

use std::collections::BTreeMap;

use anyhow::{Context, bail, ensure};

use super::index::layer::{Act, Layer, Place};
use super::index::{Builder, Data, Index, Inode, Time, name_allowed};
use crate::error::Result;

#[cfg(test)]
mod tests;

/// Files and directories that an image may have.
pub const MAX_INODES: usize = 4 << 20;
/// Directories in one another.
pub const MAX_DEPTH: u32 = 2048;
/// Symbolic links followed for one path (Linux's `MAXSYMLINKS`).
const MAX_LINKS: u32 = 40;
/// Path components walked for a whole image: links in links could make few entries cost hours.
const MAX_STEPS: u64 = 1 << 28;

const WHITEOUT: &[u8] = b".wh.";
const OPAQUE: &[u8] = b".wh..wh..opq";
/// Names of AUFS's own, in the root only.
const META: &[u8] = b".wh..wh.";

/// Merges layers, lowest first, into the index of an image.
///
/// # Errors
/// When a layer cannot be applied to those below it, naming the entry; or the image is beyond the bounds.
pub fn merge(layers: &[Layer]) -> Result<Index> {
    let mut tree = Tree::new();
    for (i, layer) in layers.iter().enumerate() {
        tree.apply(u32::try_from(i)?, layer)
            .with_context(|| format!("applying layer {} of {}", i + 1, layers.len()))?;
    }
    tree.write(layers)
}

type Id = u32;
const ROOT: Id = 0;

/// Where an inode's metadata stands; `None`: a directory that no entry describes.
type Meta = Option<(u32, Place)>;

struct Node<'a> {
    meta: Meta,
    /// Names it has; 0: the slot is free.
    links: u32,
    body: Body<'a>,
}

enum Body<'a> {
    Dir(Dir<'a>),
    Symlink(&'a [u8]),
    Other,
}

struct Dir<'a> {
    parent: Id,
    depth: u32,
    children: BTreeMap<&'a [u8], Id>,
}

struct Tree<'a> {
    nodes: Vec<Node<'a>>,
    free: Vec<Id>,
    steps: u64,
    /// The parent path resolved last, and where it led: entries of one directory follow one another.
    last_parent: Option<(&'a [u8], Id)>,
}

/// What a name means to merging.
enum Name<'a> {
    Plain,
    Whiteout(&'a [u8]),
    Opaque,
}

impl<'a> Tree<'a> {
    fn new() -> Tree<'a> {
        let root = Node {
            meta: None,
            links: 1,
            body: Body::Dir(Dir {
                parent: ROOT,
                depth: 0,
                children: BTreeMap::new(),
            }),
        };
        Tree {
            nodes: vec![root],
            free: Vec::new(),
            steps: 0,
            last_parent: None,
        }
    }

    fn apply(&mut self, number: u32, layer: &'a Layer) -> Result<()> {
        let named = |path: &[u8]| format!("entry `{}`", path.escape_ascii());
        if number > 0 {
            for (_, change) in layer.changes() {
                let what = || named(change.path);
                self.hide(change.path).with_context(what)?;
            }
        }
        for (place, change) in layer.changes() {
            let what = || named(change.path);
            self.step(change.path, &change.act, (number, place))
                .with_context(what)?;
        }
        self.drop_aufs_names();
        Ok(())
    }

    /// First pass: a whiteout takes away what the lower layers left.
    fn hide(&mut self, path: &'a [u8]) -> Result<()> {
        let (parent, name) = split(path);
        let hidden = classify(parent, name)?;
        if matches!(hidden, Name::Plain) {
            return Ok(());
        }
        let Some(dir) = self.walk(parent, false)? else {
            return Ok(());
        };
        match hidden {
            Name::Whiteout(name) => self.remove(dir, name),
            Name::Opaque => {
                let names: Vec<_> = self
                    .children(dir)
                    .map_or(vec![], |c| c.keys().copied().collect());
                for name in names {
                    self.remove(dir, name);
                }
            }
            Name::Plain => {}
        }
        Ok(())
    }

    /// Second pass: everything else, in the tar's order.
    fn step(&mut self, path: &'a [u8], act: &Act<'a>, meta: (u32, Place)) -> Result<()> {
        if path.is_empty() {
            let Act::Node(Inode {
                data: Data::Dir { .. },
                ..
            }) = act
            else {
                bail!("the root can only be a directory");
            };
            self.nodes[ROOT as usize].meta = Some(meta);
            return Ok(());
        }
        let (parent, name) = split(path);
        match classify(parent, name)? {
            Name::Whiteout(_) => return Ok(()),
            // An opaque directory exists, whether or not it has an entry.
            Name::Opaque => return self.parent(parent).map(drop),
            Name::Plain => {}
        }
        let dir = self.parent(parent)?;
        let old = self.child(dir, name);
        let inode = match act {
            Act::Link(target) => return self.link(dir, name, old, target),
            Act::Node(inode) => inode,
        };
        let body = match inode.data {
            Data::Dir { .. } => {
                if let Some(old) = old
                    && let Body::Dir(_) = self.nodes[old as usize].body
                {
                    self.nodes[old as usize].meta = Some(meta);
                    return Ok(());
                }
                self.remove(dir, name);
                let made = self.make_dir(dir, name)?;
                self.nodes[made as usize].meta = Some(meta);
                return Ok(());
            }
            Data::Symlink(target) => Body::Symlink(target),
            _ => Body::Other,
        };
        self.remove(dir, name);
        let made = self.insert(Node {
            meta: Some(meta),
            links: 1,
            body,
        })?;
        self.name(dir, name, made);
        Ok(())
    }

    fn link(&mut self, dir: Id, name: &'a [u8], old: Option<Id>, target: &'a [u8]) -> Result<()> {
        let said = || format!("it is a hard link to `{}`", target.escape_ascii());
        let (parent, last) = split(target);
        let target = match self.walk(parent, false).with_context(said)? {
            Some(dir) if !target.is_empty() => self.child(dir, last),
            _ => None,
        };
        let target = target.context("which does not exist").with_context(said)?;
        if old == Some(target) {
            return Ok(());
        }
        let node = &mut self.nodes[target as usize];
        if let Body::Dir(_) = node.body {
            return Err(anyhow::anyhow!("which is a directory")).with_context(said);
        }
        // Counted first: what is replaced may hold the target's only other name.
        node.links = node.links.checked_add(1).context("too many links")?;
        self.remove(dir, name);
        self.name(dir, name, target);
        Ok(())
    }

    /// The directory that an entry's parent path leads to, made if missing.
    fn parent(&mut self, path: &'a [u8]) -> Result<Id> {
        if let Some((last, id)) = self.last_parent
            && last == path
        {
            return Ok(id);
        }
        let id = self
            .walk(path, true)?
            .context("its parent cannot be made")?;
        self.last_parent = Some((path, id));
        Ok(id)
    }

    /// Follows `path` from the root to a directory. Missing ones are made, or with `make` false give `None`
    /// (as does anything else that is not a directory then).
    fn walk(&mut self, path: &'a [u8], make: bool) -> Result<Option<Id>> {
        let mut at = ROOT;
        let mut links = 0;
        let mut pending: Vec<&'a [u8]> = vec![path];
        while let Some(rest) = pending.pop() {
            let (part, rest) = match rest.iter().position(|b| *b == b'/') {
                Some(i) => (&rest[..i], &rest[i + 1..]),
                None => (rest, &b""[..]),
            };
            if !rest.is_empty() {
                pending.push(rest);
            }
            self.steps += 1;
            ensure!(
                self.steps <= MAX_STEPS,
                "the image's links make too long paths"
            );
            if part.is_empty() || part == b"." {
                continue;
            }
            let Body::Dir(dir) = &self.nodes[at as usize].body else {
                return Ok(None);
            };
            if part == b".." {
                at = dir.parent;
                continue;
            }
            let Some(&found) = dir.children.get(part) else {
                if !make {
                    return Ok(None);
                }
                ensure!(name_allowed(part), "a name in its path is too long");
                let whiteout = part.starts_with(WHITEOUT) && !(at == ROOT && aufs(part));
                ensure!(
                    !whiteout,
                    "`{}` in its path is a whiteout",
                    part.escape_ascii()
                );
                at = self.make_dir(at, part)?;
                continue;
            };
            match self.nodes[found as usize].body {
                Body::Dir(_) => at = found,
                Body::Symlink(target) => {
                    links += 1;
                    ensure!(
                        links <= MAX_LINKS,
                        "its path has more than {MAX_LINKS} symbolic links"
                    );
                    if target.starts_with(b"/") {
                        at = ROOT;
                    }
                    pending.push(target);
                }
                Body::Other if !make => return Ok(None),
                Body::Other => bail!("`{}` in its path is not a directory", part.escape_ascii()),
            }
        }
        Ok(Some(at))
    }

    fn children(&self, dir: Id) -> Option<&BTreeMap<&'a [u8], Id>> {
        match &self.nodes[dir as usize].body {
            Body::Dir(dir) => Some(&dir.children),
            _ => None,
        }
    }

    fn child(&self, dir: Id, name: &[u8]) -> Option<Id> {
        self.children(dir)?.get(name).copied()
    }

    fn make_dir(&mut self, parent: Id, name: &'a [u8]) -> Result<Id> {
        let depth = match &self.nodes[parent as usize].body {
            Body::Dir(dir) => dir.depth + 1,
            _ => 0,
        };
        ensure!(
            depth <= MAX_DEPTH,
            "it is more than {MAX_DEPTH} directories deep"
        );
        let made = self.insert(Node {
            meta: None,
            links: 1,
            body: Body::Dir(Dir {
                parent,
                depth,
                children: BTreeMap::new(),
            }),
        })?;
        self.name(parent, name, made);
        Ok(made)
    }

    fn insert(&mut self, node: Node<'a>) -> Result<Id> {
        if let Some(id) = self.free.pop() {
            self.nodes[id as usize] = node;
            return Ok(id);
        }
        ensure!(
            self.nodes.len() < MAX_INODES,
            "the image has more than {MAX_INODES} files"
        );
        let id = Id::try_from(self.nodes.len())?;
        self.nodes.push(node);
        Ok(id)
    }

    fn name(&mut self, dir: Id, name: &'a [u8], id: Id) {
        if let Body::Dir(dir) = &mut self.nodes[dir as usize].body {
            dir.children.insert(name, id);
        }
    }

    /// Takes a name away, and with the last one what it named and all that is in it.
    fn remove(&mut self, dir: Id, name: &[u8]) {
        let Body::Dir(dir) = &mut self.nodes[dir as usize].body else {
            return;
        };
        let Some(id) = dir.children.remove(name) else {
            return;
        };
        // What it led through may be gone, or another directory may get its number.
        self.last_parent = None;
        let mut gone = vec![id];
        while let Some(id) = gone.pop() {
            let node = &mut self.nodes[id as usize];
            node.links = node.links.saturating_sub(1);
            if node.links > 0 {
                continue;
            }
            if let Body::Dir(dir) = std::mem::replace(&mut node.body, Body::Other) {
                gone.extend(dir.children.into_values());
            }
            self.free.push(id);
        }
    }

    fn drop_aufs_names(&mut self) {
        let names = self
            .children(ROOT)
            .into_iter()
            .flat_map(|c| c.range(META..));
        let names = names
            .map(|(name, _)| *name)
            .take_while(|name| name.starts_with(META));
        for name in names.collect::<Vec<_>>() {
            self.remove(ROOT, name);
        }
        self.last_parent = None;
    }

    /// Numbers the inodes (those of a directory's entries side by side) and writes the index.
    fn write(self, layers: &[Layer]) -> Result<Index> {
        let mut out = Builder::new();
        out.reserve(self.nodes.len() - self.free.len());
        let mut numbers = vec![0_u64; self.nodes.len()];
        numbers[ROOT as usize] = Index::ROOT;
        self.put(ROOT, Index::ROOT, Index::ROOT, layers, &mut out)?;
        let mut next = Index::ROOT;
        let mut dirs = vec![ROOT];
        while let Some(id) = dirs.pop() {
            let Body::Dir(dir) = &self.nodes[id as usize].body else {
                continue;
            };
            let number = numbers[id as usize];
            for &child in dir.children.values() {
                let slot = &mut numbers[child as usize];
                if *slot == 0 {
                    next += 1;
                    *slot = next;
                    self.put(child, next, number, layers, &mut out)?;
                }
            }
            let entries = dir.children.iter();
            out.entries(
                number,
                entries.map(|(name, id)| (*name, numbers[*id as usize])),
            )?;
            // Reversed, so that the first is next.
            dirs.extend(
                dir.children
                    .values()
                    .rev()
                    .filter(|id| matches!(self.nodes[**id as usize].body, Body::Dir(_))),
            );
        }
        // What remains needs memory of its own.
        drop((self, numbers));
        out.finish()
    }

    /// Writes one inode.
    fn put(
        &self,
        id: Id,
        number: u64,
        parent: u64,
        layers: &[Layer],
        out: &mut Builder,
    ) -> Result<()> {
        let node = &self.nodes[id as usize];
        let Some((layer, place)) = node.meta else {
            return out.set(number, &implied(parent), []);
        };
        let layer = layers.get(layer as usize).context("a layer is missing")?;
        let change = layer.change(place).context("an entry is missing")?;
        let Act::Node(mut inode) = change.act else {
            bail!("an entry has changed");
        };
        match &mut inode.data {
            Data::Dir { parent: p, .. } => {
                *p = parent;
                inode.size = DIR_SIZE;
            }
            Data::File { pack, .. } => {
                let (id, len) = layer
                    .packs()
                    .get(*pack as usize)
                    .context("a pack is missing")?;
                *pack = out.pack(*id, *len)?;
            }
            Data::None | Data::Symlink(_) => {}
        }
        out.set(number, &inode, change.xattrs)
    }
}

/// Directories show the size that they have on ext4.
const DIR_SIZE: u64 = 4096;

/// A directory that no entry describes.
fn implied(parent: u64) -> Inode<'static> {
    Inode {
        mode: libc::S_IFDIR | 0o755,
        nlink: 0,
        uid: 0,
        gid: 0,
        rdev_major: 0,
        rdev_minor: 0,
        size: DIR_SIZE,
        mtime: Time::default(),
        atime: Time::default(),
        ctime: Time::default(),
        data: Data::Dir { parent, entries: 0 },
    }
}

/// A path's parent and its last name.
fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|b| *b == b'/') {
        Some(i) => (&path[..i], &path[i + 1..]),
        None => (b"", path),
    }
}

/// What the name of an entry in the directory `parent` means.
fn classify<'a>(parent: &[u8], name: &'a [u8]) -> Result<Name<'a>> {
    if !name.starts_with(WHITEOUT) || (parent.is_empty() && aufs(name)) {
        return Ok(Name::Plain);
    }
    if name == OPAQUE {
        return Ok(Name::Opaque);
    }
    let hidden = &name[WHITEOUT.len()..];
    ensure!(name_allowed(hidden), "it is a whiteout of nothing");
    Ok(Name::Whiteout(hidden))
}

/// Names in the root that AUFS keeps for itself.
fn aufs(name: &[u8]) -> bool {
    name.starts_with(META) && name != OPAQUE
}
