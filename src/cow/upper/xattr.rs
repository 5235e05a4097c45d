//! Extended attributes and access control lists.

use super::super::acl::{self, Acl};
use super::super::journal::Record;
use super::super::meta::{Caller, NAME_MAX, Res, S_IFLNK, S_ISGID, Time, rd, wr};
use super::node::{State, Xattrs};
use super::space::{xattr_cost, xattrs_cost};
use super::{Tree, now};
use nix::errno::Errno;
use std::borrow::Cow;

/// Longest value, and longest list of names (`XATTR_SIZE_MAX`, `XATTR_LIST_MAX`).
const VALUE_MAX: usize = 65536;
/// Bytes that the attributes of one inode may take: one record holds them all.
const ALL_MAX: u64 = 64 << 20;
/// The true owner of an inode in single-id mode, `uid:gid` in decimal.
pub(crate) const OWNER: &[u8] = b"security.rless.owner";

/// `setxattr(2)` flags.
const CREATE: u32 = 1;
const REPLACE: u32 = 2;

/// What `xattr_resolve_name` of the kernel does for a file system with these handlers: FUSE's only
/// one takes every name.
fn check_name(name: &[u8]) -> Res<()> {
    if name == acl::ACCESS || name == acl::DEFAULT {
        return Ok(());
    }
    let prefixes = [&b"user."[..], b"security.", b"trusted."];
    match prefixes.iter().find_map(|p| name.strip_prefix(*p)) {
        Some([]) => Err(Errno::EINVAL),
        Some(_) => Ok(()),
        None => Err(Errno::EOPNOTSUPP),
    }
}

impl Tree {
    /// An attribute of an inode with its node locked.
    pub(super) fn xattr_of<'a>(
        &'a self,
        ino: u64,
        state: &'a State,
        name: &[u8],
    ) -> Res<Option<Cow<'a, [u8]>>> {
        match &state.xattrs {
            Some(map) => Ok(map.get(name).map(|v| Cow::Borrowed(&**v))),
            None => match self.low.xattr(ino, name) {
                // A live host took the file away.
                Err(Errno::ENOENT) => Ok(None),
                other => other,
            },
        }
    }

    /// Takes the lower's attributes into a locked node: before a change of one is journalled, since it may fail.
    pub(super) fn own_xattrs(&self, ino: u64, state: &mut State) -> Res<()> {
        if state.xattrs.is_some() {
            return Ok(());
        }
        let low = match self.low.xattrs(ino) {
            // A live host took the file away; or has closed it since the change that is replayed.
            Err(Errno::ENOENT) => Vec::new(),
            Err(Errno::EACCES) if self.store.is_none() => Vec::new(),
            other => other?,
        };
        let map: Xattrs = low.into_iter().map(|(n, v)| (n.into(), v.into())).collect();
        self.recount(0, xattrs_cost(&map));
        state.xattrs = Some(map);
        Ok(())
    }

    /// Hands an attribute's value to `f`.
    ///
    /// # Errors
    /// `ENODATA`, `EOPNOTSUPP` (no such namespace), `EINVAL` (nothing but a namespace).
    pub(crate) fn getxattr<T>(&self, ino: u64, name: &[u8], f: impl FnOnce(&[u8]) -> T) -> Res<T> {
        check_name(name)?;
        if name == OWNER && self.squash.is_some() {
            let meta = self.true_meta(ino)?;
            return Ok(f(format!("{}:{}", meta.uid, meta.gid).as_bytes()));
        }
        if let Some(node) = self.node(ino) {
            let state = rd(&node.state);
            let value = self.xattr_of(ino, &state, name)?.ok_or(Errno::ENODATA)?;
            return Ok(f(&value));
        }
        let value = self.low.xattr(ino, name)?.ok_or(Errno::ENODATA)?;
        Ok(f(&value))
    }

    /// Names of all attributes, each ended by a NUL.
    ///
    /// # Errors
    /// What the host answers.
    pub(crate) fn listxattr(&self, ino: u64) -> Res<Vec<u8>> {
        let mut out = Vec::new();
        let mut add = |name: &[u8]| {
            out.extend_from_slice(name);
            out.push(0);
        };
        if let Some(node) = self.node(ino) {
            let state = rd(&node.state);
            if let Some(map) = &state.xattrs {
                map.keys().for_each(|n| add(n));
                return Ok(out);
            }
        }
        for (name, _) in self.low.xattrs(ino)? {
            add(&name);
        }
        Ok(out)
    }

    /// Sets an attribute; a list sets the mode with it.
    ///
    /// # Errors
    /// `EEXIST`, `ENODATA` (flags), `ERANGE`, `E2BIG`, `ENOSPC` (limits), `EINVAL` (a bad list), `EROFS`, and as
    /// [`Tree::getxattr`] about the name.
    pub(crate) fn setxattr(
        &self,
        who: Caller,
        ino: u64,
        name: &[u8],
        value: &[u8],
        flags: u32,
    ) -> Res<()> {
        self.writable()?;
        if name == OWNER && self.squash.is_some() {
            let (uid, gid) = owner(value).ok_or(Errno::EINVAL)?;
            return self.chown_true(who, ino, uid, gid);
        }
        self.reclaiming(|| self.setxattr_once(who, ino, name, value, flags))
    }

    fn setxattr_once(
        &self,
        who: Caller,
        ino: u64,
        name: &[u8],
        value: &[u8],
        flags: u32,
    ) -> Res<()> {
        let _gate = self.change()?;
        if name.is_empty() || name.len() > NAME_MAX {
            return Err(Errno::ERANGE);
        }
        check_name(name)?;
        if value.len() > VALUE_MAX {
            return Err(Errno::E2BIG);
        }
        let node = self.promote(ino)?;
        let mut state = wr(&node.state);
        let old = self.xattr_of(ino, &state, name)?;
        let (have, freed) = (old.is_some(), old.map_or(0, |v| xattr_cost(name, &v)));
        match flags {
            0 => {}
            CREATE if have => return Err(Errno::EEXIST),
            CREATE => {}
            REPLACE if !have => return Err(Errno::ENODATA),
            REPLACE => {}
            _ => return Err(Errno::EINVAL),
        }
        self.room(xattr_cost(name, value).saturating_sub(freed))?;
        let time = now();
        match name {
            acl::ACCESS => self.set_access(who, ino, &mut state, value, time),
            acl::DEFAULT if !state.meta.is_dir() => Err(Errno::EACCES),
            acl::DEFAULT => {
                let list = Acl::parse(value)?;
                let value = list.is_some().then_some(value);
                self.put_xattr(ino, &mut state, name, value, time)
            }
            _ => {
                self.room_for(ino, &state, name, value)?;
                self.put_xattr(ino, &mut state, name, Some(value), time)
            }
        }
    }

    /// Removes an attribute. An access control list that is not there is removed all the same, as by ext4.
    ///
    /// # Errors
    /// `EROFS`, and as [`Tree::getxattr`].
    pub(crate) fn removexattr(&self, ino: u64, name: &[u8]) -> Res<()> {
        let _gate = self.change()?;
        check_name(name)?;
        let absent = || match name {
            acl::ACCESS | acl::DEFAULT => Ok(()),
            _ => Err(Errno::ENODATA),
        };
        // An inode gets no node for what it does not have.
        let (node, lower_has) = match self.node(ino) {
            Some(node) => (node, false),
            None if self.low.xattr(ino, name)?.is_none() => return absent(),
            None => (self.promote(ino)?, true),
        };
        let mut state = wr(&node.state);
        let there = lower_has && state.xattrs.is_none();
        if !there && self.xattr_of(ino, &state, name)?.is_none() {
            return absent();
        }
        self.put_xattr(ino, &mut state, name, None, now())
    }

    /// Sets an access list: the mode follows it, and a list that says no more than the mode is
    /// not kept.
    fn set_access(
        &self,
        who: Caller,
        ino: u64,
        state: &mut State,
        value: &[u8],
        time: Time,
    ) -> Res<()> {
        if state.meta.kind() == S_IFLNK {
            return Err(Errno::EOPNOTSUPP);
        }
        self.own_xattrs(ino, state)?;
        let keep = match Acl::parse(value)? {
            Some(list) => {
                let (bits, minimal) = list.mode();
                state.meta.mode = (state.meta.mode & !0o777) | bits;
                if who.uid != 0 && who.gid != state.meta.gid {
                    state.meta.mode &= !S_ISGID;
                }
                !minimal
            }
            None => false,
        };
        self.put_xattr(ino, state, acl::ACCESS, keep.then_some(value), time)
    }

    /// All names together must fit what listxattr(2) can return, and all attributes a record.
    fn room_for(&self, ino: u64, state: &State, name: &[u8], value: &[u8]) -> Res<()> {
        let all = state.xattrs.as_ref().map_or(0, xattrs_cost);
        if all + xattr_cost(name, value) > ALL_MAX {
            return Err(Errno::ENOSPC);
        }
        let used: usize = match &state.xattrs {
            Some(map) => map
                .keys()
                .filter(|n| &***n != name)
                .map(|n| n.len() + 1)
                .sum(),
            None => self
                .low
                .xattrs(ino)?
                .iter()
                .filter(|(n, _)| n != name)
                .map(|(n, _)| n.len() + 1)
                .sum(),
        };
        if used + name.len() + 1 > VALUE_MAX {
            return Err(Errno::ENOSPC);
        }
        Ok(())
    }

    /// Sets or removes an attribute of a locked node, and journals it with the mode as it is.
    pub(super) fn put_xattr(
        &self,
        ino: u64,
        state: &mut State,
        name: &[u8],
        value: Option<&[u8]>,
        time: Time,
    ) -> Res<()> {
        self.own_xattrs(ino, state)?;
        self.follow(ino, state);
        self.log(&Record::Xattr {
            ino,
            name,
            value,
            mode: state.meta.mode,
            ctime: time,
        });
        self.apply_xattr(ino, state, name, value, state.meta.mode, time)
    }

    pub(super) fn apply_xattr(
        &self,
        ino: u64,
        state: &mut State,
        name: &[u8],
        value: Option<&[u8]>,
        mode: u32,
        time: Time,
    ) -> Res<()> {
        self.own_xattrs(ino, state)?;
        if let Some(map) = &mut state.xattrs {
            let before = match value {
                Some(v) => map.insert(name.into(), v.into()),
                None => map.remove(name),
            };
            let cost = |v: &[u8]| xattr_cost(name, v);
            self.recount(before.map_or(0, |v| cost(&v)), value.map_or(0, cost));
        }
        state.meta.mode = (state.meta.mode & super::super::meta::S_IFMT) | (mode & 0o7777);
        state.meta.ctime = time;
        Ok(())
    }
}

/// Parses `uid:gid`; an id may be `-1` for "as it is".
fn owner(value: &[u8]) -> Option<(u32, u32)> {
    let text = std::str::from_utf8(value).ok()?;
    let (uid, gid) = text.split_once(':')?;
    let id = |s: &str| match s {
        "-1" => Some(u32::MAX),
        s => s.parse::<u32>().ok(),
    };
    Some((id(uid)?, id(gid)?))
}

#[cfg(test)]
mod tests {
    use super::owner;

    #[test]
    fn owners_are_two_ids() {
        assert_eq!(owner(b"0:33"), Some((0, 33)));
        assert_eq!(owner(b"-1:4294967294"), Some((u32::MAX, u32::MAX - 1)));
        for bad in [
            &b""[..],
            b"1",
            b"1:",
            b"1:2:3",
            b"4294967296:0",
            b"a:b",
            b"\xff:1",
        ] {
            assert_eq!(owner(bad), None);
        }
    }
}
