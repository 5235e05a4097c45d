//! The credentials of one emulated task: a pure model of credentials(7).
//!
//! Every method is one system call's rule as its manual page states it, over plain numbers and
//! without I/O. `None` in an argument is the kernel's `(uid_t)-1`: leave as it is.
//!
//! A task's power to choose ids and owners is its effective capabilities, as capabilities(7) moves them:
//! leaving uid 0 takes them away (PR_SET_KEEPCAPS leaves the permitted ones, to be raised by capset(2)), coming back to an
//! effective uid of 0 restores them. The kernel's own sets of the task do not move, since its one id never changes.

use nix::errno::Errno;

/// Most groups that setgroups(2) accepts (`NGROUPS_MAX`).
pub(crate) const NGROUPS_MAX: usize = 65_536;

/// Real, effective, saved and file-system id: the same four for users and for groups.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ids {
    /// Real id.
    pub(crate) real: u32,
    /// Effective id.
    pub(crate) effective: u32,
    /// Saved set-id.
    pub(crate) saved: u32,
    /// File-system id: follows the effective one but for setfsuid(2).
    pub(crate) fs: u32,
}

impl Ids {
    fn all(id: u32) -> Ids {
        Ids {
            real: id,
            effective: id,
            saved: id,
            fs: id,
        }
    }

    fn holds(&self, id: u32) -> bool {
        [self.real, self.effective, self.saved].contains(&id)
    }

    fn set_all(&mut self, id: u32, privileged: bool) -> Result<(), Errno> {
        if privileged {
            *self = Ids::all(id);
        } else if id == self.real || id == self.saved {
            self.effective = id;
            self.fs = id;
        } else {
            return Err(Errno::EPERM);
        }
        Ok(())
    }

    fn set_re(
        &mut self,
        real: Option<u32>,
        effective: Option<u32>,
        privileged: bool,
    ) -> Result<(), Errno> {
        let old = *self;
        if let Some(id) = real
            && !privileged
            && id != old.real
            && id != old.effective
        {
            return Err(Errno::EPERM);
        }
        if let Some(id) = effective
            && !privileged
            && !old.holds(id)
        {
            return Err(Errno::EPERM);
        }
        self.real = real.unwrap_or(old.real);
        self.effective = effective.unwrap_or(old.effective);
        if real.is_some() || effective.is_some_and(|id| id != old.real) {
            self.saved = self.effective;
        }
        self.fs = self.effective;
        Ok(())
    }

    fn set_res(&mut self, ids: [Option<u32>; 3], privileged: bool) -> Result<(), Errno> {
        if !privileged && ids.into_iter().flatten().any(|id| !self.holds(id)) {
            return Err(Errno::EPERM);
        }
        self.real = ids[0].unwrap_or(self.real);
        self.effective = ids[1].unwrap_or(self.effective);
        self.saved = ids[2].unwrap_or(self.saved);
        self.fs = self.effective;
        Ok(())
    }

    /// setfsuid(2) and setfsgid(2) answer the old id always and change it where they may.
    fn set_fs(&mut self, id: Option<u32>, privileged: bool) -> u32 {
        let old = self.fs;
        if let Some(id) = id
            && (privileged || self.holds(id) || id == old)
        {
            self.fs = id;
        }
        old
    }
}

/// Bit of `CAP_CHOWN` in a capability set.
const CAP_CHOWN: u64 = 1;
/// Bit of `CAP_SETGID`.
const CAP_SETGID: u64 = 1 << 6;
/// Bit of `CAP_SETUID`.
const CAP_SETUID: u64 = 1 << 7;

/// What one task believes to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Creds {
    /// Permitted capabilities.
    permitted: u64,
    /// Effective capabilities.
    effective: u64,
    /// `PR_SET_KEEPCAPS`.
    keep_caps: bool,
    /// User ids.
    pub(crate) uid: Ids,
    /// Group ids.
    pub(crate) gid: Ids,
    /// Supplementary groups, in the order given.
    pub(crate) groups: Vec<u32>,
}

impl Creds {
    /// The credentials of a task that starts as `uid`:`gid` with these supplementary groups.
    pub(crate) fn new(uid: u32, gid: u32, groups: Vec<u32>) -> Creds {
        let all = if uid == 0 { u64::MAX } else { 0 };
        Creds {
            permitted: all,
            effective: all,
            keep_caps: false,
            uid: Ids::all(uid),
            gid: Ids::all(gid),
            groups,
        }
    }

    fn can(&self, capability: u64) -> bool {
        self.effective & capability != 0
    }

    /// prctl(2) `PR_SET_KEEPCAPS`.
    pub(crate) fn keep_caps(&mut self, keep: bool) {
        self.keep_caps = keep;
    }

    /// capset(2): sets can only shrink, but for the effective one within the permitted.
    pub(crate) fn capset(&mut self, effective: u64, permitted: u64) {
        self.permitted &= permitted;
        self.effective = effective & self.permitted;
    }

    /// Changes user ids by `f`, and the capabilities as the kernel does with them.
    fn change_uid<T>(
        &mut self,
        f: impl FnOnce(&mut Ids, bool) -> Result<T, Errno>,
    ) -> Result<T, Errno> {
        let old = self.uid;
        let privileged = self.can(CAP_SETUID);
        let done = f(&mut self.uid, privileged)?;
        if old.holds(0) && !self.uid.holds(0) && !self.keep_caps {
            self.permitted = 0;
            self.effective = 0;
        } else if old.effective == 0 && self.uid.effective != 0 {
            self.effective = 0;
        } else if old.effective != 0 && self.uid.effective == 0 {
            self.effective = self.permitted;
        }
        Ok(done)
    }

    /// Whether `gid` is the task's file-system group or one of its supplementary groups.
    pub(crate) fn in_group(&self, gid: u32) -> bool {
        self.gid.fs == gid || self.groups.contains(&gid)
    }

    /// setuid(2). # Errors `EINVAL` for -1, `EPERM`.
    pub(crate) fn setuid(&mut self, id: Option<u32>) -> Result<(), Errno> {
        let id = id.ok_or(Errno::EINVAL)?;
        self.change_uid(|uid, privileged| uid.set_all(id, privileged))
    }

    /// setgid(2). # Errors `EINVAL` for -1, `EPERM`.
    pub(crate) fn setgid(&mut self, id: Option<u32>) -> Result<(), Errno> {
        let privileged = self.can(CAP_SETGID);
        self.gid.set_all(id.ok_or(Errno::EINVAL)?, privileged)
    }

    /// setreuid(2). # Errors `EPERM`.
    pub(crate) fn setreuid(&mut self, real: Option<u32>, eff: Option<u32>) -> Result<(), Errno> {
        self.change_uid(|uid, privileged| uid.set_re(real, eff, privileged))
    }

    /// setregid(2). # Errors `EPERM`.
    pub(crate) fn setregid(&mut self, real: Option<u32>, eff: Option<u32>) -> Result<(), Errno> {
        let privileged = self.can(CAP_SETGID);
        self.gid.set_re(real, eff, privileged)
    }

    /// setresuid(2). # Errors `EPERM`.
    pub(crate) fn setresuid(&mut self, ids: [Option<u32>; 3]) -> Result<(), Errno> {
        self.change_uid(|uid, privileged| uid.set_res(ids, privileged))
    }

    /// setresgid(2). # Errors `EPERM`.
    pub(crate) fn setresgid(&mut self, ids: [Option<u32>; 3]) -> Result<(), Errno> {
        let privileged = self.can(CAP_SETGID);
        self.gid.set_res(ids, privileged)
    }

    /// setfsuid(2): the former file-system user id.
    pub(crate) fn setfsuid(&mut self, id: Option<u32>) -> u32 {
        let privileged = self.can(CAP_SETUID);
        self.uid.set_fs(id, privileged)
    }

    /// setfsgid(2): the former file-system group id.
    pub(crate) fn setfsgid(&mut self, id: Option<u32>) -> u32 {
        let privileged = self.can(CAP_SETGID);
        self.gid.set_fs(id, privileged)
    }

    /// setgroups(2). # Errors `EPERM`, `EINVAL` for more than [`NGROUPS_MAX`].
    pub(crate) fn setgroups(&mut self, groups: Vec<u32>) -> Result<(), Errno> {
        if !self.can(CAP_SETGID) {
            return Err(Errno::EPERM);
        }
        if groups.len() > NGROUPS_MAX {
            return Err(Errno::EINVAL);
        }
        self.groups = groups;
        Ok(())
    }

    /// Whether chown(2) from the owner `(uid, gid)` to the new ids is allowed.
    /// # Errors `EPERM`.
    pub(crate) fn may_chown(
        &self,
        owner: (u32, u32),
        uid: Option<u32>,
        gid: Option<u32>,
    ) -> Result<(), Errno> {
        if self.can(CAP_CHOWN) {
            return Ok(());
        }
        let mine = self.uid.fs == owner.0;
        let uid_ok = uid.is_none_or(|id| mine && id == owner.0);
        let gid_ok = gid.is_none_or(|id| mine && (id == owner.1 || self.in_group(id)));
        if uid_ok && gid_ok {
            Ok(())
        } else {
            Err(Errno::EPERM)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn root() -> Creds {
        Creds::new(0, 0, vec![0])
    }

    #[test]
    fn dropping_by_setuid_is_final() {
        let mut c = root();
        c.setgroups(vec![65534]).unwrap();
        c.setgid(Some(65534)).unwrap();
        c.setuid(Some(42)).unwrap();
        assert_eq!(
            c.uid,
            Ids {
                real: 42,
                effective: 42,
                saved: 42,
                fs: 42
            }
        );
        assert_eq!(c.setuid(Some(0)), Err(Errno::EPERM));
        assert_eq!(c.setgroups(vec![]), Err(Errno::EPERM));
        assert_eq!(c.setgid(Some(0)), Err(Errno::EPERM));
        assert_eq!(c.setresuid([None, Some(0), None]), Err(Errno::EPERM));
    }

    #[test]
    fn kept_capabilities_work_once_they_are_raised() {
        // As setpriv(1) does it: users first, groups with the capabilities it kept.
        let mut c = root();
        c.keep_caps(true);
        c.setresuid([Some(33); 3]).unwrap();
        assert_eq!(c.setresgid([Some(33); 3]), Err(Errno::EPERM));
        c.capset(CAP_SETGID, CAP_SETGID | CAP_SETUID);
        c.setresgid([Some(33); 3]).unwrap();
        assert_eq!(c.setresuid([Some(0); 3]), Err(Errno::EPERM));
        c.capset(0, 0);
        c.capset(u64::MAX, u64::MAX);
        assert_eq!(c.setgroups(vec![]), Err(Errno::EPERM));
    }

    #[test]
    fn seteuid_keeps_a_way_back() {
        let mut c = root();
        c.setresuid([None, Some(33), None]).unwrap();
        assert_eq!(
            (c.uid.real, c.uid.effective, c.uid.saved, c.uid.fs),
            (0, 33, 0, 33)
        );
        assert_eq!(c.setgid(Some(7)), Err(Errno::EPERM));
        c.setuid(Some(0)).unwrap();
        assert!(c.can(CAP_SETUID));
    }

    #[test]
    fn setreuid_moves_the_saved_id_by_the_kernels_rule() {
        let mut c = root();
        c.setreuid(Some(5), None).unwrap();
        assert_eq!(
            c.uid,
            Ids {
                real: 5,
                effective: 0,
                saved: 0,
                fs: 0
            }
        );
        c.setreuid(None, Some(5)).unwrap();
        // The new effective id is the old real one: the saved id stays.
        assert_eq!(
            c.uid,
            Ids {
                real: 5,
                effective: 5,
                saved: 0,
                fs: 5
            }
        );
        c.setreuid(None, Some(0)).unwrap();
        assert!(c.can(CAP_SETUID));
    }

    #[test]
    fn setfsuid_answers_the_old_id_even_when_refused() {
        let mut c = root();
        assert_eq!(c.setfsuid(Some(12)), 0);
        assert_eq!(c.setfsuid(None), 12);
        let mut u = Creds::new(9, 9, vec![]);
        assert_eq!(u.setfsuid(Some(0)), 9);
        assert_eq!(u.uid.fs, 9);
    }

    #[test]
    fn only_an_owner_may_give_a_file_to_a_group_of_his() {
        let c = Creds::new(9, 9, vec![20]);
        assert_eq!(c.may_chown((9, 9), None, Some(20)), Ok(()));
        assert_eq!(c.may_chown((9, 9), Some(9), None), Ok(()));
        assert_eq!(c.may_chown((9, 9), None, Some(21)), Err(Errno::EPERM));
        assert_eq!(c.may_chown((8, 9), None, Some(20)), Err(Errno::EPERM));
        assert_eq!(c.may_chown((9, 9), Some(0), None), Err(Errno::EPERM));
        assert_eq!(root().may_chown((8, 9), Some(1), Some(1)), Ok(()));
    }

    #[test]
    fn minus_one_is_invalid_for_setuid_only() {
        assert_eq!(root().setuid(None), Err(Errno::EINVAL));
        assert_eq!(root().setgid(None), Err(Errno::EINVAL));
        assert_eq!(root().setresuid([None, None, None]), Ok(()));
    }
}
