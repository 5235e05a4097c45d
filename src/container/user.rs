//! Who the container's command runs as: the forms of `--user`, and the image's account files.
//!
//! Forms: `name`, `uid`, `name:group`, `uid:gid`, `uid:group`, `name:gid`. A form that is a number
//! is that number even when an account of that name exists, and a number that is no id (2³¹ and up)
//! is refused even when an account of that name exists: other engines wrapped it around to 0.
//! Account files are the image's and thus hostile: their text is bounded by the caller and a
//! malformed line is skipped. Everything here is a pure function over text.

use crate::error::{Fault, Kind, Result, usage};

/// Highest id that may be asked for. Linux has 32 bits, but tools use the sign bit.
const MAX_ID: u64 = i32::MAX as u64;

/// What a container's process runs as.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// User id inside.
    pub uid: u32,
    /// Primary group inside.
    pub gid: u32,
    /// Supplementary groups, the primary one among them, ascending, without repeats.
    pub groups: Vec<u32>,
    /// Home directory of the account, `/` when there is none.
    pub home: String,
    /// Name of the account, if it has one.
    pub name: Option<String>,
}

/// A line of passwd(5).
#[derive(Debug, Clone, PartialEq, Eq)]
struct Account<'a> {
    name: &'a str,
    uid: u32,
    gid: u32,
    home: &'a str,
}

/// A line of group(5).
#[derive(Debug, Clone, PartialEq, Eq)]
struct Group<'a> {
    name: &'a str,
    gid: u32,
    members: Vec<&'a str>,
}

/// Resolves `--user` (or the image's `User`; empty means root) and `--group-add` against the
/// image's `/etc/passwd` and `/etc/group`.
///
/// # Errors
/// An unknown name, an id out of range, a malformed form.
pub fn resolve(form: &str, add: &[String], passwd: &str, group: &str) -> Result<User> {
    let accounts: Vec<Account> = passwd.lines().filter_map(account).collect();
    let groups: Vec<Group> = group.lines().filter_map(group_line).collect();
    let (who, with) = match form.split_once(':') {
        Some((_, "")) => return Err(usage(format!("user {form:?}: the group is empty")).into()),
        Some((who, with)) => (who, Some(with)),
        None => (form, None),
    };
    let (uid, account) = match (who, id(who)?) {
        ("", _) => (0, accounts.iter().find(|a| a.uid == 0)),
        (_, Some(uid)) => (uid, accounts.iter().find(|a| a.uid == uid)),
        (name, None) => {
            let found = accounts.iter().find(|a| a.name == name);
            let found = found.ok_or_else(|| unknown("user", name, "passwd"))?;
            (found.uid, Some(found))
        }
    };
    let gid = match with {
        Some(form) => gid_of(form, &groups)?,
        None => account.map_or(0, |a| a.gid),
    };
    let mut all = vec![gid];
    // A group given by hand replaces the account's groups, as docker and podman have it.
    if let (None, Some(account)) = (with, account) {
        let member = groups.iter().filter(|g| g.members.contains(&account.name));
        all.extend(member.map(|g| g.gid));
    }
    for form in add {
        all.push(gid_of(form, &groups)?);
    }
    all.sort_unstable();
    all.dedup();
    let home = account.map_or("/", |a| a.home);
    Ok(User {
        uid,
        gid,
        groups: all,
        home: if home.is_empty() { "/" } else { home }.to_owned(),
        name: account.map(|a| a.name.to_owned()),
    })
}

/// Home directory of the account of this id, `/` when there is none.
#[must_use]
pub fn home(passwd: &str, uid: u32) -> String {
    let mut accounts = passwd.lines().filter_map(account);
    let found = accounts.find(|a| a.uid == uid).map_or("/", |a| a.home);
    if found.is_empty() { "/" } else { found }.to_owned()
}

fn gid_of(form: &str, groups: &[Group]) -> Result<u32> {
    if let Some(gid) = id(form)? {
        return Ok(gid);
    }
    let found = groups.iter().find(|g| g.name == form);
    Ok(found.ok_or_else(|| unknown("group", form, "group"))?.gid)
}

/// `Some(id)` for a number in range, `None` for a name.
fn id(form: &str) -> Result<Option<u32>> {
    let number = form.strip_prefix(['+', '-']).unwrap_or(form);
    if number.is_empty() || !number.bytes().all(|b| b.is_ascii_digit()) {
        return Ok(None);
    }
    // A number too long for u64 is out of range just the same.
    let value = number.parse::<u64>().ok().filter(|n| *n <= MAX_ID);
    match (value, form == number) {
        (Some(n), true) => Ok(Some(u32::try_from(n)?)),
        _ => Err(usage(format!("id {form} is outside 0–{MAX_ID}")).into()),
    }
}

fn unknown(what: &str, name: &str, file: &str) -> Fault {
    Fault::new(
        Kind::NotExecutable, // podman's code
        format!("unable to find {what} {name}: no matching entries in {file} file"),
    )
    .hint(format!(
        "the image's /etc/{file} is what is searched; a number needs no entry"
    ))
}

fn account(line: &str) -> Option<Account<'_>> {
    let mut fields = line.split(':');
    let name = fields.next().filter(|n| !n.is_empty())?;
    let (uid, gid) = (fields.nth(1)?, fields.next()?);
    Some(Account {
        name,
        uid: plain_id(uid)?,
        gid: plain_id(gid)?,
        home: fields.nth(1).filter(|h| h.starts_with('/')).unwrap_or("/"),
    })
}

fn group_line(line: &str) -> Option<Group<'_>> {
    let mut fields = line.split(':');
    let name = fields.next().filter(|n| !n.is_empty())?;
    let gid = plain_id(fields.nth(1)?)?;
    let members = fields.next().unwrap_or("").split(',');
    Some(Group {
        name,
        gid,
        members: members.map(str::trim).filter(|m| !m.is_empty()).collect(),
    })
}

fn plain_id(text: &str) -> Option<u32> {
    id(text).ok().flatten()
}

/// Lines that make `user` known inside: podman adds its user to the account files when missing.
/// Returns the new texts of passwd and group, `None` for a file that needs no line.
#[must_use]
pub fn with_entries(
    user: &User,
    name: &str,
    cwd: &str,
    ours: &super::request::AccountLines,
    passwd: &str,
    group: &str,
) -> (Option<String>, Option<String>) {
    if !ours.lines {
        return (None, None);
    }
    let known = passwd
        .lines()
        .filter_map(account)
        .any(|a| a.uid == user.uid);
    let line = |text: &str, line: String| {
        let newline = if text.is_empty() || text.ends_with('\n') {
            ""
        } else {
            "\n"
        };
        format!("{text}{newline}{line}\n")
    };
    let passwd = (!known).then(|| {
        let (uid, gid) = (user.uid, user.gid);
        let home = if cwd.starts_with('/') && !cwd.contains([':', '\n']) {
            cwd
        } else {
            "/"
        };
        let entry = "$USERNAME:*:$UID:$GID:$NAME:$HOME:/bin/sh";
        let entry = ours.passwd.as_deref().unwrap_or(entry);
        let entry = entry
            .replace("$USERNAME", name)
            .replace("$NAME", "container user")
            .replace("$HOME", home)
            .replace("$UID", &uid.to_string())
            .replace("$GID", &gid.to_string());
        line(passwd, entry)
    });
    let known = group
        .lines()
        .filter_map(group_line)
        .any(|g| g.gid == user.gid);
    let group = (!known).then(|| {
        let gid = user.gid.to_string();
        let usual = format!("{gid}:x:{gid}:{name}");
        let entry = ours.group.as_ref().map(|e| e.replace("$GID", &gid));
        line(group, entry.unwrap_or(usual))
    });
    (passwd, group)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::container::request::AccountLines;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\n\
        bad line\n\
        app:x:1000:1001::/home/app:/bin/sh\n\
        2000:x:7:8::/odd:/bin/sh\n\
        4294967296:x:0:0::/:/bin/sh\n\
        huge:x:4294967295:0::/:/bin/sh\n\
        nohome:x:33:33:::\n";
    const GROUP: &str = "root:x:0:\nwheel:x:10:root,app\naudio:x:11:app\nstaff:x:50:\n";

    fn ids(form: &str) -> (u32, u32, Vec<u32>) {
        let u = resolve(form, &[], PASSWD, GROUP).unwrap();
        (u.uid, u.gid, u.groups)
    }

    #[test]
    fn forms_of_user() {
        assert_eq!(ids(""), (0, 0, vec![0, 10]));
        assert_eq!(ids("root"), (0, 0, vec![0, 10]));
        assert_eq!(ids("app"), (1000, 1001, vec![10, 11, 1001]));
        assert_eq!(ids("1000"), (1000, 1001, vec![10, 11, 1001]));
        assert_eq!(ids("app:staff"), (1000, 50, vec![50]));
        assert_eq!(ids("1000:2000"), (1000, 2000, vec![2000]));
        assert_eq!(ids("1:staff"), (1, 50, vec![50]));
        assert_eq!(ids("app:7"), (1000, 7, vec![7]));
    }

    #[test]
    fn a_number_is_never_looked_up_as_a_name() {
        assert_eq!(ids("2000"), (2000, 0, vec![0]));
        assert_eq!(ids("1"), (1, 0, vec![0]));
    }

    #[test]
    fn ids_that_wrap_are_refused_even_with_an_account_of_that_name() {
        for form in [
            "2147483648",
            "4294967295",
            "4294967296",
            "100000000000000000000",
            "-1",
            "+1",
            "0:4294967296",
            "0:-1",
        ] {
            assert!(resolve(form, &[], PASSWD, GROUP).is_err(), "{form}");
        }
        assert!(resolve("2147483647", &[], PASSWD, GROUP).is_ok());
    }

    #[test]
    fn an_account_with_an_impossible_id_is_skipped() {
        assert!(resolve("huge", &[], PASSWD, GROUP).is_err());
    }

    #[test]
    fn unknown_names_and_empty_groups_are_errors() {
        for form in ["nobody", "app:nogroup", "app:", ":staff2", "0x10"] {
            assert!(resolve(form, &[], PASSWD, GROUP).is_err(), "{form}");
        }
    }

    #[test]
    fn home_falls_back_to_the_root() {
        assert_eq!(
            resolve("app", &[], PASSWD, GROUP).unwrap().home,
            "/home/app"
        );
        assert_eq!(resolve("nohome", &[], PASSWD, GROUP).unwrap().home, "/");
        assert_eq!(resolve("4", &[], PASSWD, GROUP).unwrap().home, "/");
    }

    #[test]
    fn group_add_takes_names_and_numbers() {
        let add = ["staff".to_owned(), "99".to_owned()];
        let user = resolve("1000:5", &add, PASSWD, GROUP).unwrap();
        assert_eq!(user.groups, [5, 50, 99]);
    }

    #[test]
    fn unknown_user_gets_lines_and_a_known_one_none() {
        let user = resolve("1234:5678", &[], PASSWD, GROUP).unwrap();
        let mut ours = AccountLines::default();
        let passwd = "root:x:0:0::/:/bin/sh";
        let (p, g) = with_entries(&user, "1234", "/work", &ours, passwd, GROUP);
        assert!(
            p.unwrap()
                .ends_with("/bin/sh\n1234:*:1234:5678:container user:/work:/bin/sh\n")
        );
        assert!(g.unwrap().ends_with("5678:x:5678:1234\n"));
        let root = resolve("", &[], PASSWD, GROUP).unwrap();
        let none = (None, None);
        let of = |user, ours: &_| with_entries(user, "x", "/", ours, PASSWD, GROUP);
        assert_eq!(of(&root, &ours), none);
        ours.passwd = Some("me:x:$UID:$GID:$NAME of $USERNAME:$HOME:".to_owned());
        ours.group = Some("us:x:$GID:".to_owned());
        let (p, g) = of(&user, &ours);
        assert!(
            p.unwrap()
                .ends_with("\nme:x:1234:5678:container user of x:/:\n")
        );
        assert!(g.unwrap().ends_with("\nus:x:5678:\n"));
        assert_eq!(of(&root, &ours), none);
        ours.lines = false;
        assert_eq!(of(&user, &ours), none);
    }
}
