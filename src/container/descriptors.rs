//! Descriptors of the caller that a container's command gets, from 3 on: `--preserve-fds`, `--preserve-fd`, and socket activation.
//!
//! Socket activation is sd_listen_fds(3)'s: who starts a container with `LISTEN_FDS` in its environment has its command started so, with
//! `LISTEN_FDS`, `LISTEN_FDNAMES` and the `LISTEN_PID` that the command has in there. As the protocol wants it the descriptors
//! are nobody's to use when `LISTEN_PID` names another process than this one: a variable that a shell has inherited
//! passes nothing on (podman does not look).
//!
//! They are taken before anything is made, so that one that is not there is told where the command was typed, and kept by the
//! supervisor for as long as a restart policy may need them again; what a health check or `restart` starts once more without a
//! policy goes without them, as nobody else could see their end meanwhile. Nothing else that is open reaches a container.

use std::fs::File;
use std::os::fd::OwnedFd;

use anyhow::Context;
use oci_spec::runtime::Spec;

use crate::error::{Fault, Kind, Result, usage};
use crate::sys::file::{duplicate_from, standing};

/// Most that are passed on by number: a mistyped number is not worth a table of a million.
const MOST: i32 = 1024;

/// What `run` was told to pass on.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Asked {
    /// `--preserve-fds`: so many from 3 on.
    pub count: u16,
    /// `--preserve-fd`: these, under their own numbers.
    pub numbers: Vec<i32>,
}

/// Copies of the caller's, by their number less 3; `None`: not passed on.
#[derive(Debug, Default)]
pub struct Descriptors {
    fds: Vec<Option<OwnedFd>>,
    /// `LISTEN_FDS` and `LISTEN_FDNAMES`, as the caller has them.
    listen: Option<(i32, Option<String>)>,
}

impl Descriptors {
    /// Takes those that were asked for.
    ///
    /// # Errors
    /// One is not open, or not to be passed on.
    pub fn of(asked: &Asked) -> Result<Descriptors> {
        let mut wanted = asked.numbers.clone();
        wanted.extend(3..3 + i32::from(asked.count));
        let flag = match asked.count {
            0 => "preserve-fd",
            _ => "preserve-fds",
        };
        let mut all = Descriptors::default();
        wanted.into_iter().try_for_each(|n| all.add(n, flag))?;
        Ok(all)
    }

    /// Those, and what a service manager has passed to this process.
    ///
    /// # Errors
    /// As [`Descriptors::of`].
    pub fn take(asked: &Asked) -> Result<Descriptors> {
        let mut all = Descriptors::of(asked)?;
        let var = |name: &str| std::env::var(name).ok();
        let (count, pid) = (var("LISTEN_FDS"), var("LISTEN_PID"));
        let listen = activation(count.as_deref(), pid.as_deref(), std::process::id())?;
        (3..3 + listen.unwrap_or(0)).try_for_each(|n| all.add(n, "LISTEN_FDS"))?;
        all.listen = listen.map(|n| (n, var("LISTEN_FDNAMES")));
        Ok(all)
    }

    fn add(&mut self, number: i32, why: &str) -> Result<()> {
        let missing = || {
            usage(format!(
                "file descriptor {number} is not available - the {why} option requires that file descriptors must be passed"
            ))
        };
        let at = usize::try_from(number - 3).ok().filter(|_| number < MOST);
        let (at, fd) = at.zip(standing(number)).ok_or_else(missing)?;
        if self.fds.len() <= at {
            self.fds.resize_with(at + 1, || None);
        }
        self.fds[at] = Some(duplicate_from(fd, 3).context("keeping a descriptor")?);
        Ok(())
    }

    /// Copies, from number 3 on; what is between them is /dev/null.
    ///
    /// # Errors
    /// No descriptor left.
    pub fn copies(&self) -> Result<Vec<OwnedFd>> {
        let copies = self.fds.iter().map(|fd| match fd {
            Some(fd) => fd.try_clone(),
            None => File::open("/dev/null").map(Into::into),
        });
        let copies: std::io::Result<Vec<_>> = copies.collect();
        copies.context("copying the caller's descriptors")
    }

    /// Copies for one run of the container, and `spec` with what its command is told of them. `init`: the command is the first child of a process of ours.
    ///
    /// # Errors
    /// No descriptor left.
    pub fn hand_out(&self, spec: &mut Spec, init: bool) -> Result<Vec<OwnedFd>> {
        if let (Some((count, names)), Some(process)) = (&self.listen, spec.process_mut()) {
            let mut env = process.env().clone().unwrap_or_default();
            env.retain(|e| !e.starts_with("LISTEN_"));
            env.push(format!("LISTEN_FDS={count}"));
            env.push(format!("LISTEN_PID={}", if init { 2 } else { 1 }));
            env.extend(names.iter().map(|n| format!("LISTEN_FDNAMES={n}")));
            process.set_env(Some(env));
        }
        self.copies()
    }
}

/// What the flags `--preserve-fds` and `--preserve-fd` say.
///
/// # Errors
/// Both, or a standard stream.
pub fn asked(count: u16, numbers: Vec<i32>) -> Result<Asked> {
    if count > 0 && !numbers.is_empty() {
        return Err(usage("cannot specify both --preserve-fds and --preserve-fd").into());
    }
    if let Some(bad) = numbers.iter().find(|n| **n < 3) {
        let text = format!("cannot preserve FD {bad}: invalid argument");
        let fault = Fault::new(Kind::NotExecutable, text); // podman's code
        return Err(fault
            .hint("--log-driver passthrough gives a container the caller's standard streams")
            .into());
    }
    Ok(Asked { count, numbers })
}

/// How many descriptors a service manager has passed to this process.
fn activation(count: Option<&str>, pid: Option<&str>, own: u32) -> Result<Option<i32>> {
    let Some(text) = count.filter(|text| !text.is_empty()) else {
        return Ok(None);
    };
    if pid.is_some_and(|pid| pid.parse() != Ok(own)) {
        return Ok(None);
    }
    match text.parse::<i32>() {
        Ok(0) => Ok(None),
        Ok(n) if (1..MOST).contains(&n) => Ok(Some(n)),
        _ => {
            let text = format!("converting LISTEN_FDS={text}: it is not a number of descriptors");
            Err(Fault::new(Kind::NotExecutable, text).into()) // podman's code
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descriptors_are_for_the_process_that_is_named() {
        let of = |count, pid| activation(count, pid, 7).unwrap();
        assert_eq!(of(Some("2"), Some("7")), Some(2));
        assert_eq!(of(Some("2"), None), Some(2));
        for (count, pid) in [
            (None, Some("7")),
            (Some("2"), Some("8")),
            (Some("2"), Some("")),
            (Some("x"), Some("8")),
            (Some("0"), None),
            (Some(""), None),
        ] {
            assert_eq!(of(count, pid), None, "{count:?} {pid:?}");
        }
        for bad in ["x", "-1", "100000000"] {
            assert!(activation(Some(bad), None, 7).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_command_is_told_its_own_number() {
        let passed = Descriptors {
            fds: vec![],
            listen: Some((1, Some("web".to_owned()))),
        };
        for (init, pid) in [(false, "LISTEN_PID=1"), (true, "LISTEN_PID=2")] {
            let mut spec = Spec::default();
            passed.hand_out(&mut spec, init).unwrap();
            let env = spec.process().as_ref().unwrap().env().clone().unwrap();
            let told: Vec<_> = env.iter().filter(|e| e.starts_with("LISTEN_")).collect();
            assert_eq!(told, ["LISTEN_FDS=1", pid, "LISTEN_FDNAMES=web"]);
        }
    }

    #[test]
    fn one_that_is_not_open_is_refused() {
        let asked = Asked {
            count: 0,
            numbers: vec![MOST - 1],
        };
        assert!(Descriptors::take(&asked).is_err());
        assert!(super::asked(0, vec![2]).is_err() && super::asked(1, vec![3]).is_err());
        assert!(super::asked(0, vec![3, 9]).is_ok() && super::asked(2, vec![]).is_ok());
    }
}
