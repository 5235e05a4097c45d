//! POSIX access control lists as `system.posix_acl_*` values carry them: pure functions.
//!
//! With `FUSE_POSIX_ACL` the kernel checks access; the file system inherits default lists, keeps
//! mode and list in step and drops a list that says no more than the mode. Format (little-endian):
//! a 32-bit version 2, then entries of tag (16 bits), permissions (16) and id (32). `acl(5)`.

use super::meta::Res;
use nix::errno::Errno;

/// Extended attribute of the access list.
pub(crate) const ACCESS: &[u8] = b"system.posix_acl_access";
/// Extended attribute of a directory's default list.
pub(crate) const DEFAULT: &[u8] = b"system.posix_acl_default";

const USER_OBJ: u16 = 0x01;
const USER: u16 = 0x02;
const GROUP_OBJ: u16 = 0x04;
const GROUP: u16 = 0x08;
const MASK: u16 = 0x10;
const OTHER: u16 = 0x20;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Entry {
    tag: u16,
    perm: u16,
    id: u32,
}

/// A valid list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Acl(Vec<Entry>);

impl Acl {
    /// Decodes and validates a list; an empty one is `None`.
    ///
    /// # Errors
    /// `EINVAL` for what `posix_acl_valid` of the kernel refuses, `EOPNOTSUPP` for another version.
    pub(crate) fn parse(value: &[u8]) -> Res<Option<Acl>> {
        let Some((head, body)) = value.split_first_chunk::<4>() else {
            return Err(Errno::EINVAL);
        };
        if u32::from_le_bytes(*head) != 2 {
            return Err(Errno::EOPNOTSUPP);
        }
        let (chunks, rest) = body.as_chunks::<8>();
        if !rest.is_empty() {
            return Err(Errno::EINVAL);
        }
        let list: Vec<Entry> = chunks
            .iter()
            .map(|&[a, b, c, d, e, f, g, h]| Entry {
                tag: u16::from_le_bytes([a, b]),
                perm: u16::from_le_bytes([c, d]),
                id: u32::from_le_bytes([e, f, g, h]),
            })
            .collect();
        if list.is_empty() {
            return Ok(None);
        }
        check(&list)?;
        Ok(Some(Acl(list)))
    }

    /// Encodes the list.
    pub(crate) fn value(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(4 + self.0.len() * 8);
        out.extend_from_slice(&2u32.to_le_bytes());
        for e in &self.0 {
            out.extend_from_slice(&e.tag.to_le_bytes());
            out.extend_from_slice(&e.perm.to_le_bytes());
            out.extend_from_slice(&e.id.to_le_bytes());
        }
        out
    }

    fn perm(&mut self, tag: u16) -> Option<&mut u16> {
        self.0
            .iter_mut()
            .find(|e| e.tag == tag)
            .map(|e| &mut e.perm)
    }

    /// The entry that the group bits of the mode stand for: the mask, else the owning group.
    fn group_class(&mut self) -> Option<&mut u16> {
        let tag = if self.0.iter().any(|e| e.tag == MASK) {
            MASK
        } else {
            GROUP_OBJ
        };
        self.perm(tag)
    }

    /// The nine permission bits the list stands for, and whether it says no more than they do.
    pub(crate) fn mode(&self) -> (u32, bool) {
        let mut list = self.clone();
        let mut bits = 0;
        bits |= u32::from(list.perm(USER_OBJ).map_or(0, |p| *p)) << 6;
        bits |= u32::from(list.group_class().map_or(0, |p| *p)) << 3;
        bits |= u32::from(list.perm(OTHER).map_or(0, |p| *p));
        let minimal = self
            .0
            .iter()
            .all(|e| matches!(e.tag, USER_OBJ | GROUP_OBJ | OTHER));
        (bits, minimal)
    }

    /// What `chmod` does to the list.
    pub(crate) fn chmod(&mut self, mode: u32) {
        if let Some(p) = self.perm(USER_OBJ) {
            *p = (mode >> 6 & 7) as u16;
        }
        if let Some(p) = self.group_class() {
            *p = (mode >> 3 & 7) as u16;
        }
        if let Some(p) = self.perm(OTHER) {
            *p = (mode & 7) as u16;
        }
    }

    /// What creating an object with `mode` below this default list does: the list is masked by
    /// the mode, the mode by the list. Returns the new mode.
    pub(crate) fn inherit(&mut self, mode: u32) -> u32 {
        let mut out = mode & !0o777;
        if let Some(p) = self.perm(USER_OBJ) {
            *p &= (mode >> 6 & 7) as u16;
            out |= u32::from(*p) << 6;
        }
        if let Some(p) = self.group_class() {
            *p &= (mode >> 3 & 7) as u16;
            out |= u32::from(*p) << 3;
        }
        if let Some(p) = self.perm(OTHER) {
            *p &= (mode & 7) as u16;
            out |= u32::from(*p);
        }
        out
    }
}

/// `posix_acl_valid` of the kernel: the order of tags, one of each object, a mask where needed.
fn check(list: &[Entry]) -> Res<()> {
    let mut state = USER_OBJ;
    let mut need_mask = false;
    for e in list {
        if e.perm & !7 != 0 {
            return Err(Errno::EINVAL);
        }
        state = match (e.tag, state) {
            (USER_OBJ, USER_OBJ) => USER,
            (USER, USER) => {
                need_mask = true;
                USER
            }
            (GROUP_OBJ, USER) => GROUP,
            (GROUP, GROUP) => {
                need_mask = true;
                GROUP
            }
            (MASK, GROUP) => OTHER,
            (OTHER, OTHER) => 0,
            (OTHER, GROUP) if !need_mask => 0,
            _ => return Err(Errno::EINVAL),
        };
    }
    if state == 0 {
        Ok(())
    } else {
        Err(Errno::EINVAL)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn acl(list: &[(u16, u16, u32)]) -> Acl {
        Acl(list
            .iter()
            .map(|&(tag, perm, id)| Entry { tag, perm, id })
            .collect())
    }

    #[test]
    fn value_round_trips_and_rejects_nonsense() {
        let a = acl(&[
            (USER_OBJ, 7, u32::MAX),
            (USER, 5, 33),
            (GROUP_OBJ, 5, u32::MAX),
            (MASK, 5, u32::MAX),
            (OTHER, 0, u32::MAX),
        ]);
        assert_eq!(Acl::parse(&a.value()), Ok(Some(a.clone())));
        assert_eq!(a.mode(), (0o750, false));
        let no_mask = acl(&[
            (USER_OBJ, 7, 0),
            (USER, 5, 33),
            (GROUP_OBJ, 5, 0),
            (OTHER, 0, 0),
        ]);
        assert_eq!(Acl::parse(&no_mask.value()), Err(Errno::EINVAL));
        assert_eq!(Acl::parse(&[2, 0, 0, 0]), Ok(None));
        assert_eq!(Acl::parse(&[1, 0, 0, 0]), Err(Errno::EOPNOTSUPP));
        assert_eq!(Acl::parse(&[2, 0, 0]), Err(Errno::EINVAL));
    }

    #[test]
    fn inherit_masks_both_sides() {
        let mut a = acl(&[
            (USER_OBJ, 7, 0),
            (USER, 7, 33),
            (GROUP_OBJ, 5, 0),
            (MASK, 7, 0),
            (OTHER, 5, 0),
        ]);
        assert_eq!(a.inherit(0o100_660), 0o100_660);
        assert_eq!(a.mode(), (0o660, false));
        // The owning group's own entry is untouched: the mask limits it.
        assert_eq!(a.perm(GROUP_OBJ), Some(&mut 5));
    }
}
