//! Verifying the bytes of an index, once, at open: afterwards no accessor meets a surprise.

use super::{
    DIRENT, Error, HEADER, INODE, Index, MAGIC, NONE, PACK, PAGE, PATH_MAX, PackId, VERSION,
    Xattrs, kind_of, name_allowed, target_allowed, type_allowed, u32_in, u64_in, xattr_allowed,
};
use crate::sys::mmap::Map;

type Check<T = ()> = Result<T, Error>;

fn corrupt<T>(what: &'static str) -> Check<T> {
    Err(Error::Corrupt(what))
}

fn ensure(holds: bool, what: &'static str) -> Check {
    if holds { Ok(()) } else { corrupt(what) }
}

/// Makes an index of bytes, or says why they are none.
pub(super) fn index(map: Map) -> Check<Index> {
    let header: &[u8; HEADER] = match map.first_chunk() {
        Some(header) if header.starts_with(MAGIC) => header,
        _ => return Err(Error::Magic("an index")),
    };
    let version = u32_in(header, 8);
    if version != VERSION {
        return Err(Error::Version(version));
    }
    ensure(u64_in(header, 16) == map.len() as u64, "length")?;
    let (body, crc) = map
        .split_last_chunk::<4>()
        .ok_or(Error::Corrupt("length"))?;
    ensure(
        crc32fast::hash(body) == u32::from_le_bytes(*crc),
        "checksum",
    )?;
    ensure(u32_in(header, 44) == 0, "reserved field")?;

    // All fields are below 2^32 or checked against the length, so nothing here overflows.
    let len = map.len() as u64;
    let inodes_at = HEADER as u64;
    let packs_at = inodes_at + u64::from(u32_in(header, 12)) * INODE as u64;
    let dirents_at = packs_at + u64::from(u32_in(header, 40)) * PACK as u64;
    let xattr_table_at = dirents_at + u64::from(u32_in(header, 32)) * DIRENT as u64;
    let xattrs_at = xattr_table_at + (u64::from(u32_in(header, 36)) + 1) * 4;
    let (xattrs_len, strings_len) = (u64_in(header, 48), u64_in(header, 56));
    ensure(xattrs_len <= len && strings_len <= len, "section length")?;
    let strings_at = xattrs_at + xattrs_len;
    let strings_end = strings_at + strings_len;
    ensure(strings_end + 4 == len, "section length")?;
    let place = |at: u64| usize::try_from(at).map_err(|_| Error::Corrupt("length"));

    let packs_bytes = &map[place(packs_at)?..place(dirents_at)?];
    let (packs, pack_lens) = packs_bytes
        .as_chunks::<PACK>()
        .0
        .iter()
        .map(|r| {
            let mut id = [0; 32];
            id.copy_from_slice(&r[..32]);
            (PackId(id), u64_in(r, 32))
        })
        .unzip();
    let index = Index {
        inodes: u32_in(header, 12),
        dirents_at: place(dirents_at)?,
        dirents: u32_in(header, 32),
        xattr_table_at: place(xattr_table_at)?,
        xattr_sets: u32_in(header, 36),
        xattrs_at: place(xattrs_at)?,
        strings_at: place(strings_at)?,
        strings_end: place(strings_end)?,
        total_size: u64_in(header, 24),
        packs,
        pack_lens,
        map,
    };
    xattrs(&index)?;
    inodes(&index)?;
    tree(&index)?;
    Ok(index)
}

fn xattrs(index: &Index) -> Check {
    let table = &index.map[index.xattr_table_at..index.xattrs_at];
    let all = &index.map[index.xattrs_at..index.strings_at];
    let mut from = 0;
    for (i, offset) in table.as_chunks::<4>().0.iter().enumerate() {
        let to = u32_in(offset, 0) as usize;
        if i == 0 {
            ensure(to == 0, "attribute offsets")?;
            continue;
        }
        ensure(from < to && to <= all.len(), "attribute offsets")?;
        let mut set = Xattrs(&all[from..to]);
        let mut last: &[u8] = b"";
        for (name, value) in set.by_ref() {
            ensure(xattr_allowed(name, value) && last < name, "attribute")?;
            last = name;
        }
        ensure(set.0.is_empty(), "attribute")?;
        from = to;
    }
    ensure(from == all.len(), "attribute offsets")
}

fn inodes(index: &Index) -> Check {
    let mut total = 0_u64;
    let records = &index.map[HEADER..HEADER + index.inodes as usize * INODE];
    for r in records.as_chunks::<INODE>().0 {
        let mode = u32_in(r, 0);
        if mode == 0 {
            ensure(r.iter().all(|b| *b == 0), "unused inode")?;
            continue;
        }
        ensure(type_allowed(mode), "mode")?;
        for at in [56, 60, 64] {
            ensure(u32_in(r, at) < 1_000_000_000, "time")?;
        }
        let set = u32_in(r, 68);
        ensure(set == NONE || set < index.xattr_sets, "attribute set")?;
        let (size, a, b) = (u64_in(r, 24), u64_in(r, 72), u32_in(r, 80));
        match mode & libc::S_IFMT {
            libc::S_IFREG => {
                total = total.checked_add(size).ok_or(Error::Corrupt("size"))?;
                content(index, size, a, b)?;
            }
            libc::S_IFLNK => {
                ensure(
                    u64::from(b) == size && size <= PATH_MAX as u64,
                    "link target",
                )?;
                let target = index.string(a, size).ok_or(Error::Corrupt("link target"))?;
                ensure(target_allowed(target), "link target")?;
            }
            libc::S_IFDIR => {
                let end = a.checked_add(b.into());
                ensure(
                    end.is_some_and(|end| end <= index.dirents.into()),
                    "directory",
                )?;
            }
            _ => {}
        }
    }
    ensure(total == index.total_size, "total size")
}

/// Content of a regular file lies within its pack.
fn content(index: &Index, size: u64, offset: u64, pack: u32) -> Check {
    if pack == NONE {
        return ensure(i64::try_from(size).is_ok() && offset == 0, "content");
    }
    let len = index.pack_len(pack).ok_or(Error::Corrupt("content"))?;
    let end = offset.checked_add(size);
    ensure(size > 0 && offset.is_multiple_of(PAGE), "content")?;
    ensure(
        end.is_some_and(|end| end <= len && len.is_multiple_of(PAGE)),
        "content",
    )
}

/// Names, link counts, parents: that the whole is one tree.
fn tree(index: &Index) -> Check {
    let count = index.inodes as usize;
    let dir = |ino: u64| -> Option<u64> {
        let r = index.record(ino)?;
        (u32_in(r, 0) & libc::S_IFMT == libc::S_IFDIR).then(|| u32_in(r, 84).into())
    };
    ensure(dir(Index::ROOT) == Some(Index::ROOT), "root")?;
    // Names of each inode (for a directory: of itself and of its subdirectories).
    let mut links = vec![0_u32; count];
    let mut seen = 0_u64;
    for ino in 1..=index.inode_count() {
        if dir(ino).is_none() {
            continue;
        }
        let mut last: &[u8] = b"";
        let entries = index.entries(ino);
        // Checked before they are walked: directories that overlap must not cost their product.
        seen += entries.len() as u64;
        ensure(seen <= index.dirents.into(), "directory")?;
        for i in 0..entries.count {
            let entry = entries.at(i).ok_or(Error::Corrupt("name"))?;
            ensure(name_allowed(entry.name) && last < entry.name, "name")?;
            last = entry.name;
            let record = index.record(entry.ino).ok_or(Error::Corrupt("entry"))?;
            ensure(entry.kind == kind_of(u32_in(record, 0)), "type of entry")?;
            ensure(entry.kind != libc::DT_UNKNOWN, "type of entry")?;
            let slot = usize::try_from(entry.ino - 1)
                .ok()
                .and_then(|i| links.get_mut(i));
            let slot = slot.ok_or(Error::Corrupt("entry"))?;
            *slot = slot.saturating_add(1);
            if entry.kind == libc::DT_DIR {
                // A second name of a directory is caught by its own count below.
                ensure(
                    entry.ino != Index::ROOT && dir(entry.ino) == Some(ino),
                    "parent",
                )?;
            }
        }
    }
    // Directories cannot share entries: their ranges together are the section.
    ensure(seen == u64::from(index.dirents), "directory")?;
    let mut subdirs = vec![0_u32; count];
    for ino in 1..=index.inode_count() {
        if let Some(parent) = dir(ino).filter(|_| ino != Index::ROOT) {
            let slot = usize::try_from(parent)
                .ok()
                .and_then(|p| subdirs.get_mut(p.wrapping_sub(1)));
            *slot.ok_or(Error::Corrupt("parent"))? += 1;
        }
    }
    for (i, (links, subdirs)) in links.iter().zip(&subdirs).enumerate() {
        let Some(record) = index.record(i as u64 + 1) else {
            return corrupt("entry");
        };
        let nlink = u32_in(record, 4);
        let agrees = match u32_in(record, 0) & libc::S_IFMT {
            0 => *links == 0,
            libc::S_IFDIR => *links == u32::from(i > 0) && subdirs.checked_add(2) == Some(nlink),
            _ => *links > 0 && *links == nlink,
        };
        ensure(agrees, "link count")?;
    }
    rooted(index, count, dir)
}

/// Every directory's parents lead to the root.
fn rooted(index: &Index, count: usize, dir: impl Fn(u64) -> Option<u64>) -> Check {
    let mut known = vec![false; count + 1];
    let mut path = Vec::new();
    for ino in 1..=index.inode_count() {
        let mut at = ino;
        while at != Index::ROOT && !known.get(at as usize).copied().unwrap_or(true) {
            let Some(parent) = dir(at) else { break };
            path.push(at);
            ensure(path.len() <= count, "directories in a circle")?;
            at = parent;
        }
        for ino in path.drain(..) {
            if let Some(known) = known.get_mut(ino as usize) {
                *known = true;
            }
        }
    }
    Ok(())
}
