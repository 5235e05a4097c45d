//! Flags of `run` and `create` that scripts use less often.

use std::path::PathBuf;

use clap::ArgAction;

use crate::container::env::Setting;
use crate::container::request::{AccountLines, ImageVolume, Request, Streams};
use crate::error::{Result, usage};

#[derive(Debug, clap::Args)]
pub(super) struct More {
    /// Attach to standard input, output or error only: stdin, stdout, stderr
    #[arg(short, long, value_name = "STREAM", value_delimiter = ',')]
    attach: Vec<String>,
    /// Set a variable whose value may name the image's: PATH=${PATH}:/more
    #[arg(long, value_name = "NAME=VALUE")]
    env_merge: Vec<String>,
    /// Leave out a variable of the image
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    unsetenv: Vec<String>,
    /// Leave out the image's variables and the usual ones
    #[arg(long)]
    unsetenv_all: bool,
    /// Pass http_proxy, https_proxy, ftp_proxy and no_proxy of the caller
    #[arg(long, num_args = 0..=1, require_equals = true, default_value = "true", default_missing_value = "true", hide_possible_values = true, action = ArgAction::Set)]
    http_proxy: bool,
    /// Publish every exposed port on a free port of the host
    #[arg(short = 'P', long)]
    publish_all: bool,
    /// What the image's volumes become: anonymous (bind is the same), tmpfs, ignore
    #[arg(
        long,
        value_name = "KIND",
        default_value = "anonymous",
        hide_default_value = true
    )]
    image_volume: String,
    /// File mode mask of the command, octal
    #[arg(long, value_name = "MASK")]
    umask: Option<String>,
    /// Time zone as the host has it, as Europe/Berlin, or local
    #[arg(long, value_name = "ZONE")]
    tz: Option<String>,
    /// Write the PID of its first process to a file at every start
    #[arg(long, value_name = "FILE")]
    pidfile: Option<PathBuf>,
    /// Seconds after which it is killed; 0 never
    #[arg(
        long,
        value_name = "SECONDS",
        default_value_t = 0,
        hide_default_value = true
    )]
    timeout: u64,
    /// No /etc/hostname of ours
    #[arg(long)]
    no_hostname: bool,
    /// Lines in /etc/passwd and /etc/group for a user that the image does not know
    #[arg(long, num_args = 0..=1, require_equals = true, default_value = "true", default_missing_value = "true", hide_possible_values = true, action = ArgAction::Set)]
    passwd: bool,
    /// The line in /etc/passwd, with $USERNAME, $UID, $GID, $NAME and $HOME in it
    #[arg(long, value_name = "LINE")]
    passwd_entry: Option<String>,
    /// The line in /etc/group, with $GID in it
    #[arg(long, value_name = "LINE")]
    group_entry: Option<String>,
    /// How readily the kernel kills it when memory is short, -1000 to 1000
    #[arg(long, value_name = "NUMBER", allow_hyphen_values = true)]
    oom_score_adj: Option<i32>,
    /// Prepare the container for systemd: true and false leave it as it is
    #[arg(long, value_name = "true|false", num_args = 0..=1, require_equals = true, default_value = "true", default_missing_value = "true", hide_default_value = true)]
    systemd: String,
    /// Control group namespace: private
    #[arg(
        long,
        value_name = "MODE",
        default_value = "private",
        hide_default_value = true
    )]
    cgroupns: String,
    /// For docker's scripts: signatures are a matter of policy.json, which is not looked at
    #[arg(long, hide = true)]
    disable_content_trust: bool,
}

impl More {
    /// Puts what was said into the request.
    pub(super) fn apply(self, request: &mut Request) -> Result<()> {
        let setting = |text: &String| match text.split_once('=') {
            Some(_) => Setting::parse(text),
            None => Err(usage(format!("--env-merge {text:?}: expected NAME=VALUE")).into()),
        };
        request.attach = streams(&self.attach)?;
        request.env_merge = self.env_merge.iter().map(setting).collect::<Result<_>>()?;
        request.unset_env = self.unsetenv;
        request.unset_env_all = self.unsetenv_all;
        request.http_proxy = self.http_proxy;
        request.publish_all = self.publish_all;
        request.image_volume = image_volume(&self.image_volume)?;
        request.umask = self.umask.as_deref().map(umask).transpose()?;
        request.tz = self.tz;
        request.pidfile = self.pidfile;
        request.timeout = Some(self.timeout).filter(|t| *t > 0);
        request.no_hostname = self.no_hostname;
        request.account = AccountLines {
            lines: self.passwd,
            passwd: self.passwd_entry.map(one_line).transpose()?,
            group: self.group_entry.map(one_line).transpose()?,
        };
        request.oom_score_adj = self.oom_score_adj.map(oom_score).transpose()?;
        match self.systemd.as_str() {
            "true" | "false" => {}
            mode => {
                return Err(usage(format!("--systemd={mode} is not there yet"))
                    .hint("--tmpfs /run --tmpfs /run/lock --stop-signal RTMIN+3 gives systemd most of what it wants")
                    .into());
            }
        }
        if self.cgroupns != "private" {
            return Err(
                usage(format!("--cgroupns {} is not there yet", self.cgroupns))
                    .hint("the control group namespace is always private")
                    .into(),
            );
        }
        Ok(())
    }
}

/// Standard input goes in with `-i` alone; `-a` chooses what is shown.
fn streams(list: &[String]) -> Result<Option<Streams>> {
    let mut streams = Streams {
        out: false,
        err: false,
    };
    for name in list {
        match name.to_ascii_lowercase().as_str() {
            "stdin" => {}
            "stdout" => streams.out = true,
            "stderr" => streams.err = true,
            _ => {
                return Err(usage(format!(
                    "invalid stream {name:?} for --attach - must be one of stdin, stdout, or stderr: invalid argument"
                ))
                .into());
            }
        }
    }
    Ok((!list.is_empty()).then_some(streams))
}

fn image_volume(text: &str) -> Result<ImageVolume> {
    match text {
        "anonymous" | "bind" => Ok(ImageVolume::Anonymous),
        "tmpfs" => Ok(ImageVolume::Tmpfs),
        "ignore" => Ok(ImageVolume::Ignore),
        other => Err(usage(format!(
            "invalid image volume mode {other:?} required value: anonymous, tmpfs, ignore"
        ))
        .into()),
    }
}

fn umask(text: &str) -> Result<u32> {
    let octal = (1..=4).contains(&text.len()) && text.bytes().all(|b| (b'0'..=b'7').contains(&b));
    match u32::from_str_radix(text, 8) {
        Ok(mask) if octal && mask <= 0o777 => Ok(mask),
        _ => Err(usage(format!("invalid umask string {text}: invalid argument")).into()),
    }
}

/// Two would be an account that nobody asked for.
fn one_line(text: String) -> Result<String> {
    if text.contains(['\n', '\0']) {
        return Err(usage(format!("{text:?} is not one line")).into());
    }
    Ok(text)
}

fn oom_score(score: i32) -> Result<i32> {
    if (-1000..=1000).contains(&score) {
        return Ok(score);
    }
    Err(usage(format!(
        "--oom-score-adj {score} is not between -1000 and 1000"
    ))
    .into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn umasks_are_octal() {
        assert_eq!(umask("0077").unwrap(), 0o077);
        assert_eq!(umask("2").unwrap(), 2);
        for bad in ["", "8", "00022", "-1", "+22", "x", "7777"] {
            assert!(umask(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn attach_chooses_what_is_shown() {
        let of = |list: &[&str]| {
            let list: Vec<String> = list.iter().map(|s| (*s).to_owned()).collect();
            streams(&list).map(|s| s.map(|s| (s.out, s.err)))
        };
        assert_eq!(of(&[]).unwrap(), None);
        assert_eq!(of(&["stdin"]).unwrap(), Some((false, false)));
        assert_eq!(of(&["STDERR", "stdin"]).unwrap(), Some((false, true)));
        assert!(of(&["out"]).is_err());
    }

    #[test]
    fn words_are_checked() {
        assert_eq!(image_volume("bind").unwrap(), ImageVolume::Anonymous);
        assert!(image_volume("host").is_err());
        assert!(oom_score(-1000).is_ok() && oom_score(1001).is_err());
    }
}
