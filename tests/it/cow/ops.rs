//! Random file operations, made from a seed.
//!
//! Several actors work in one tree at once, and yet each answer is determined: an actor only makes, changes and
//! removes names that end in its own digit, in directories of its own and in shared ones ([`SHARED`]) that nobody
//! removes. What symbolic links lead to ends in such a name too.

/// A small generator: the same sequence for a seed everywhere.
#[derive(Debug, Clone)]
pub(crate) struct Rng(u64);

impl Rng {
    pub(crate) fn new(seed: u64) -> Rng {
        Rng(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }
    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 11
    }
    pub(crate) fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }
    fn pick<'a, T: ?Sized>(&mut self, list: &[&'a T]) -> &'a T {
        list[self.below(list.len() as u64) as usize]
    }
    fn one<T: Copy>(&mut self, list: &[T]) -> T {
        list[self.below(list.len() as u64) as usize]
    }
}

/// How a time is set, as utimensat(2) has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum When {
    At(i64, i64),
    Now,
    Omit,
}

/// One operation; paths are relative to the root of the tree, slots are files held open.
#[derive(Debug, Clone)]
pub(crate) enum Op {
    Mkdir(String, u32),
    Rmdir(String),
    /// Mode, then `O_EXCL` and `O_TRUNC`.
    Create(String, u32, bool, bool),
    Write(String, u64, usize, u8),
    Append(String, usize, u8),
    Truncate(String, u64),
    Unlink(String),
    Rename(String, String, u32),
    Link(String, String),
    Symlink(String, String),
    Mknod(String, u32),
    Chmod(String, u32),
    Chown(String, u32, u32),
    Utimes(String, When, When),
    /// Name, value, flags.
    SetXattr(String, String, Vec<u8>, u8),
    RemoveXattr(String, String),
    GetXattr(String, String),
    Fallocate(String, u32, u64, u64),
    /// From, to, offsets, length.
    CopyRange(String, String, u64, u64, usize),
    Access(String, u32),
    Look(String),
    List(String),
    Sync(String),
    /// Offset, length, byte: through `MAP_SHARED`, inside the file's size.
    MapWrite(String, u64, usize, u8),
    /// Through `MAP_PRIVATE`: the file stays as it is.
    MapPrivate(String, u64, usize, u8),
    Hold(usize, String),
    /// A file made, held and unlinked.
    HoldNew(usize, String, u32),
    /// The first half of it.
    HoldMade(usize, String, u32),
    /// `O_TMPFILE` in a directory.
    HoldUnnamed(usize, String, u32),
    /// Gives the held file a (or another) name.
    LinkHeld(usize, String),
    HeldWrite(usize, u64, usize, u8),
    HeldAppend(usize, usize, u8),
    HeldTruncate(usize, u64),
    HeldChmod(usize, u32),
    HeldFallocate(usize, u32, u64, u64),
    HeldLook(usize),
    HeldSync(usize),
    /// Maps the held file, shared.
    HeldMap(usize),
    HeldMapWrite(usize, u64, usize, u8, bool),
    HeldMapRead(usize),
    Drop(usize),
    /// The mount ends in order and is made again (between all actors' operations).
    Remount,
    /// Everything is synced, the server killed with SIGKILL, the mount made again.
    Kill,
}

impl Op {
    /// The paths and the slot whose files' content may be another after it.
    pub(crate) fn about(&self) -> (Vec<&str>, Option<usize>) {
        match self {
            Op::Create(p, ..)
            | Op::Write(p, ..)
            | Op::Append(p, ..)
            | Op::Truncate(p, _)
            | Op::Fallocate(p, ..) => (vec![p], None),
            Op::CopyRange(_, p, ..) => (vec![p], None),
            Op::HeldWrite(i, ..)
            | Op::HeldAppend(i, ..)
            | Op::HeldTruncate(i, _)
            | Op::HeldFallocate(i, ..)
            | Op::Hold(i, _)
            | Op::HoldNew(i, ..)
            | Op::HoldMade(i, ..)
            | Op::HoldUnnamed(i, ..) => (Vec::new(), Some(*i)),
            _ => (Vec::new(), None),
        }
    }
}

impl Op {
    /// The names that it makes, moves or removes.
    pub(crate) fn names(&self) -> Vec<&str> {
        match self {
            Op::Mkdir(p, _)
            | Op::Rmdir(p)
            | Op::Create(p, ..)
            | Op::Unlink(p)
            | Op::Symlink(_, p)
            | Op::Mknod(p, _)
            | Op::HoldNew(_, p, _)
            | Op::HoldMade(_, p, _)
            | Op::HoldUnnamed(_, p, _)
            | Op::LinkHeld(_, p) => vec![p],
            Op::Rename(a, b, _) | Op::Link(a, b) => vec![a, b],
            _ => Vec::new(),
        }
    }
}

/// Files an actor may hold at once.
pub(crate) const SLOTS: usize = 6;

/// Directories that all actors put names into; nobody changes or removes them.
pub(crate) const SHARED: [&str; 3] = ["", "shared", "shared/low"];

const NAMES: &[&str] = &["a", "b", "c", "dir", "low1", "low2", "e\u{e9}"];

/// Makes one actor's operations.
#[derive(Debug, Clone)]
pub(crate) struct Maker {
    pub(crate) rng: Rng,
    pub(crate) actor: usize,
    /// No mappings (the server will be killed under it), more fsync, and each operation one change.
    pub(crate) lossy: bool,
}

impl Maker {
    pub(crate) fn new(seed: u64, actor: usize) -> Maker {
        let mut rng = Rng::new(seed.wrapping_mul(64) + actor as u64 + 1);
        rng.next();
        Maker {
            rng,
            actor,
            lossy: false,
        }
    }

    fn name(&mut self) -> String {
        match self.rng.below(150) {
            0 => format!("{}{}", "n".repeat(254), self.actor),
            1 => format!("{}{}", "n".repeat(255), self.actor),
            _ => format!("{}{}", self.rng.pick(NAMES), self.actor),
        }
    }

    fn own(&mut self, depths: &[u64]) -> String {
        let depth = self.rng.one(depths);
        let names: Vec<String> = (0..depth).map(|_| self.name()).collect();
        names.join("/")
    }

    /// A path: most often one that was there at the last look.
    fn path(&mut self, known: &[String]) -> String {
        if !known.is_empty() && self.rng.below(3) != 0 {
            return known[self.rng.below(known.len() as u64) as usize].clone();
        }
        let own = self.own(&[1, 1, 2, 2, 2, 3, 3]);
        match self.rng.below(4) {
            0 => format!("shared/{own}"),
            1 => format!("shared/low/{own}"),
            _ => own,
        }
    }

    /// Offsets that like block edges.
    fn offset(&mut self) -> u64 {
        let r = &mut self.rng;
        match r.below(6) {
            0 => 0,
            1 => r.below(10) * 4096,
            2 => (r.below(9) + 1) * 4096 - 1 - r.below(3),
            3 => r.below(200),
            _ => r.below(40_000),
        }
    }

    fn length(&mut self) -> usize {
        let r = &mut self.rng;
        (match r.below(4) {
            0 => r.below(16) + 1,
            1 => 4096 * (r.below(4) + 1),
            _ => r.below(12_000) + 1,
        }) as usize
    }

    fn mode(&mut self) -> u32 {
        self.rng.one(&[
            0o644, 0o755, 0o600, 0o4755, 0o2755, 0o2644, 0o777, 0o6711, 0, 0o1777, 0o770, 0o2775,
        ])
    }

    /// Never near the present: a time there means "when it happened".
    fn when(&mut self) -> When {
        match self.rng.below(6) {
            0 => When::Now,
            1 => When::Omit,
            _ => {
                let sec = self.rng.below(0x3_7fff_ffff + (1 << 31)) as i64 - (1 << 31);
                let far = if (1_600_000_000..2_000_000_000).contains(&sec) {
                    sec - 1_000_000_000
                } else {
                    sec
                };
                When::At(far, self.rng.below(1_000_000_000) as i64)
            }
        }
    }

    fn xattr(&mut self) -> String {
        let names = [
            "user.a",
            "user.a",
            "user.bb",
            "user.rless",
            "trusted.x",
            "security.capability",
            "system.posix_acl_access",
            "system.posix_acl_default",
            "nothing.x",
        ];
        self.rng.one(&names).to_owned()
    }

    fn set_xattr(&mut self, path: String) -> Op {
        let name = self.xattr();
        let value = match name.as_str() {
            "security.capability" => capability(&mut self.rng),
            n if n.starts_with("system.") => acl(&mut self.rng),
            _ => vec![b'x'; self.rng.below(60) as usize],
        };
        let flags = self.rng.one(&[0, 0, 0, 0, 1, 2]);
        Op::SetXattr(path, name, value, flags)
    }

    /// The next operation; `known` are the actor's paths that were there at the last look.
    pub(crate) fn make(&mut self, known: &[String]) -> Op {
        let mode = self.mode();
        let path = self.path(known);
        let byte = self.rng.below(255) as u8 + 1;
        match self.rng.below(78) {
            0..=4 => Op::Mkdir(path, mode),
            5..=6 => Op::Rmdir(path),
            7..=12 => Op::Create(path, mode, self.rng.below(3) == 0, self.rng.below(5) == 0),
            13..=17 => Op::Write(path, self.offset(), self.length(), byte),
            18..=19 => Op::Append(path, self.length(), byte),
            20..=22 => Op::Truncate(path, self.offset()),
            23..=26 => Op::Unlink(path),
            27..=32 => Op::Rename(
                path,
                self.path(known),
                self.rng.one(&[0, 0, 0, 0, 1, 2, 2, 4, 5]),
            ),
            33..=35 => Op::Link(path, self.path(known)),
            36..=37 => Op::Symlink(self.target(known), path),
            38 => Op::Mknod(path, mode | self.rng.one(&[0o10_000, 0o20_000, 0o140_000])),
            39..=40 => Op::Chmod(path, mode),
            41..=42 => Op::Chown(path, self.id(), self.id()),
            43 => Op::Utimes(path, self.when(), self.when()),
            44..=46 => match self.rng.below(6) {
                0..=2 => self.set_xattr(path),
                3 => Op::RemoveXattr(path, self.xattr()),
                _ => Op::GetXattr(path, self.xattr()),
            },
            47..=48 => Op::Fallocate(
                path,
                self.rng.one(&[0, 1, 3, 3, 0x10, 0x11]),
                self.offset(),
                self.length() as u64,
            ),
            // Not one change but several, of a length that the kernel picks.
            49 if self.lossy => Op::Write(path, self.offset(), self.length(), byte),
            49 => Op::CopyRange(
                path,
                self.path(known),
                self.offset(),
                self.offset(),
                self.length(),
            ),
            50 => Op::Access(path, self.rng.below(8) as u32),
            51..=53 => Op::Look(path),
            54 => match self.rng.below(4) {
                0 => Op::List(self.rng.pick(&SHARED).to_owned()),
                _ => Op::List(path),
            },
            55 => Op::Sync(path),
            56..=58 if self.lossy => Op::Sync(path),
            56..=57 => Op::MapWrite(path, self.offset(), self.length(), byte),
            58 => Op::MapPrivate(path, self.offset(), self.length(), byte),
            _ => self.make_held(path, mode, byte),
        }
    }

    fn make_held(&mut self, path: String, mode: u32, byte: u8) -> Op {
        let slot = self.rng.below(SLOTS as u64) as usize;
        match self.rng.below(22) {
            0..=2 => Op::Hold(slot, path),
            // The caller does the other half as an operation of its own: a kill may come between.
            3 if self.lossy => Op::HoldMade(slot, path, mode),
            3 => Op::HoldNew(slot, path, mode),
            4 => Op::HoldUnnamed(slot, path, mode),
            5 => Op::LinkHeld(slot, path),
            6..=8 => Op::HeldWrite(slot, self.offset(), self.length(), byte),
            9 => Op::HeldAppend(slot, self.length(), byte),
            10 => Op::HeldTruncate(slot, self.offset()),
            11 => Op::HeldChmod(slot, mode),
            12 => Op::HeldFallocate(
                slot,
                self.rng.one(&[0, 1, 3, 3, 0x10, 0x11]),
                self.offset(),
                self.length() as u64,
            ),
            13..=14 => Op::HeldLook(slot),
            15 => Op::HeldSync(slot),
            16..=20 if self.lossy => Op::HeldSync(slot),
            16..=17 => Op::HeldMap(slot),
            18..=19 => Op::HeldMapWrite(
                slot,
                self.offset(),
                self.length(),
                byte,
                self.rng.below(2) == 0,
            ),
            20 => Op::HeldMapRead(slot),
            _ => Op::Drop(slot),
        }
    }

    /// What a symbolic link says: relative to where it is, ending in an own name.
    fn target(&mut self, known: &[String]) -> String {
        match self.rng.below(3) {
            0 => self.path(known),
            _ => self.own(&[1, 1, 2]),
        }
    }

    /// 0 to 3, 1000, 1001; `u32::MAX` leaves an id as it is.
    fn id(&mut self) -> u32 {
        self.rng.one(&[0, 1, 2, 3, 1000, 1001, u32::MAX])
    }
}

/// A file capability of version 2, or garbage of about its size.
fn capability(r: &mut Rng) -> Vec<u8> {
    let mut value = vec![0u8; 20];
    value[3] = 2;
    value[4] = r.below(256) as u8;
    if r.below(4) == 0 {
        value.truncate(1 + r.below(19) as usize);
    }
    value
}

/// An access control list as the kernel takes it; some are wrong.
fn acl(r: &mut Rng) -> Vec<u8> {
    let mut value = 2u32.to_le_bytes().to_vec();
    let mut entry = |tag: u16, perm: u64, id: u32| {
        value.extend_from_slice(&tag.to_le_bytes());
        value.extend_from_slice(&(perm as u16).to_le_bytes());
        value.extend_from_slice(&id.to_le_bytes());
    };
    entry(1, r.below(8), u32::MAX);
    let named = r.below(3) != 0;
    if named {
        entry(2, r.below(8), r.one(&[0, 1, 1000]));
    }
    entry(4, r.below(8), u32::MAX);
    if named && r.below(2) == 0 {
        entry(8, r.below(8), r.one(&[0, 1, 1000]));
    }
    if named || r.below(3) == 0 {
        entry(0x10, r.below(8), u32::MAX);
    }
    if r.below(12) != 0 {
        entry(0x20, r.below(8), u32::MAX);
    }
    value
}
