//! The command line: one file a command, arguments and output only.
//!
//! The definition is clap's; help, man pages and completions come from it (`generate.rs`).
//! [`main`] runs before any thread exists and keeps it so: a command that forks a supervisor must
//! be able to. An error is reported once, here, and its exit code is chosen here:
//!
//! | code | when |
//! |---|---|
//! | the container's | `run` in the foreground |
//! | 125 | rless itself failed, or the command line is wrong |
//! | 126, 127 | the container's command cannot be executed, was not found |
//! | 1 | commands on objects: no such object |
//! | 2 | commands on objects: the object is in use |
//!
//! A new command: a file with an `Args` struct and `pub(crate) fn run(args: Args) -> Result<u8>`,
//! a variant in `Command`, a line in `dispatch` and in `fields`.

pub mod format;
pub mod human;

mod attach;
mod commit;
mod container;
mod cp;
mod create;
mod diff;
mod events;
mod exec;
mod export;
mod generate;
mod healthcheck;
mod image;
mod images;
mod info;
mod inspect;
mod lifecycle;
mod logs;
mod mount_cow;
mod port;
mod progress;
mod ps;
mod pull;
mod rm;
mod rmi;
mod run;
mod select;
mod snapshot;
mod start;
mod stats;
mod stop;
mod top;
mod update;
mod version;
mod volume;

use self::mount_cow::Helper;
use crate::container::supervisor::session;
use crate::container::volumes;
use crate::error::{self, Fault, Kind, Result, usage};
use crate::trace;
use clap::builder::BoolishValueParser;
use clap::error::ErrorKind;
use clap::{ArgAction, Args as _, FromArgMatches, Parser, Subcommand};
use std::ffi::OsString;
use std::io::IsTerminal;
use std::path::Path;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};

/// Runs OCI containers as an ordinary user: no daemon, no root, no foreign-owned files.
#[derive(Debug, Parser)]
pub struct Cli {
    #[command(flatten)]
    general: General,
    #[command(subcommand)]
    command: Command,
}

/// What may stand before the command.
#[derive(Debug, clap::Args)]
struct General {
    /// Print the version
    #[arg(short = 'v', short_alias = 'V', long, action = ArgAction::Version)]
    version: Option<bool>,
    /// Tell errors only (error, fatal, panic) or warnings, too (warn, info, debug, trace)
    #[arg(
        long,
        value_name = "LEVEL",
        default_value = "warn",
        hide_default_value = true
    )]
    log_level: Level,
    /// For docker's scripts: there is nothing more to tell
    #[arg(short = 'D', long, hide = true)]
    debug: bool,
}

/// `--log-level`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
#[value(rename_all = "lower")]
enum Level {
    Trace,
    Debug,
    Info,
    #[value(alias = "warning")]
    Warn,
    Error,
    Fatal,
    Panic,
}

/// Warnings are not told.
static QUIET: AtomicBool = AtomicBool::new(false);

#[derive(Debug, Subcommand)]
enum Command {
    MountCow(mount_cow::Args),
    Image(image::Args),
    Images(images::Args),
    Pull(pull::Args),
    Rmi(rmi::Args),
    Run(Box<run::Args>),
    Ps(ps::Args),
    Rm(rm::Args),
    Snapshot(snapshot::Args),
    Restore(snapshot::Restore),
    Stop(stop::Args),
    Start(start::Args),
    Create(Box<create::Args>),
    Kill(lifecycle::Kill),
    Pause(lifecycle::Pause),
    Unpause(lifecycle::Unpause),
    Rename(lifecycle::Rename),
    Restart(lifecycle::Restart),
    Wait(lifecycle::Wait),
    Update(Box<update::Args>),
    Container(container::Args),
    Volume(volume::Args),
    Commit(commit::Args),
    Cp(cp::Args),
    Diff(diff::Args),
    Events(events::Args),
    Exec(exec::Args),
    Export(export::Args),
    Healthcheck(healthcheck::Args),
    Logs(logs::Args),
    Attach(attach::Args),
    Inspect(inspect::Args),
    Port(port::Args),
    Stats(stats::Args),
    Info(info::Args),
    Top(top::Args),
    Version(version::Args),
    #[command(hide = true)]
    Generate(generate::Args),
}

fn dispatch(command: Command) -> Result<u8> {
    match command {
        Command::MountCow(args) => mount_cow::run(args),
        Command::Image(args) => image::run(&args),
        Command::Images(args) => images::run(&args),
        Command::Pull(args) => pull::run(&args),
        Command::Rmi(args) => rmi::run(&args),
        Command::Run(args) => run::run(*args),
        Command::Ps(args) => ps::run(&args),
        Command::Rm(args) => rm::run(&args),
        Command::Snapshot(args) => snapshot::run(&args),
        Command::Restore(args) => snapshot::restore(&args),
        Command::Stop(args) => stop::run(&args),
        Command::Start(args) => start::run(&args),
        Command::Create(args) => create::run(*args),
        Command::Kill(args) => lifecycle::kill(&args),
        Command::Pause(args) => lifecycle::pause(&args),
        Command::Unpause(args) => lifecycle::unpause(&args),
        Command::Rename(args) => lifecycle::rename(&args),
        Command::Restart(args) => lifecycle::restart(&args),
        Command::Wait(args) => lifecycle::wait(&args),
        Command::Update(args) => update::run(&args),
        Command::Container(args) => container::run(args),
        Command::Volume(args) => volume::run(&args),
        Command::Commit(args) => commit::run(args),
        Command::Cp(args) => cp::run(&args),
        Command::Diff(args) => diff::run(&args),
        Command::Events(args) => events::run(&args),
        Command::Exec(args) => exec::run(args),
        Command::Export(args) => export::run(&args),
        Command::Healthcheck(args) => healthcheck::run(&args),
        Command::Logs(args) => logs::run(&args),
        Command::Attach(args) => attach::run(&args),
        Command::Inspect(args) => inspect::run(&args),
        Command::Port(args) => port::run(&args),
        Command::Stats(args) => stats::run(&args),
        Command::Info(args) => info::run(&args),
        Command::Top(args) => top::run(args),
        Command::Version(args) => version::run(&args),
        Command::Generate(args) => generate::run(&args),
    }
}

/// The arguments of the command `name`; `None` when there is no such command.
fn fields(name: &str) -> Option<fn(clap::Command) -> clap::Command> {
    Some(match name {
        "mount-cow" => mount_cow::Args::augment_args,
        "image" => image::Args::augment_args,
        "images" => images::Args::augment_args,
        "pull" => pull::Args::augment_args,
        "rmi" => rmi::Args::augment_args,
        "run" => run::Args::augment_args,
        "ps" => ps::Args::augment_args,
        "rm" => rm::Args::augment_args,
        "snapshot" => snapshot::Args::augment_args,
        "restore" => snapshot::Restore::augment_args,
        "stop" => stop::Args::augment_args,
        "start" => start::Args::augment_args,
        "create" => create::Args::augment_args,
        "kill" => lifecycle::Kill::augment_args,
        "pause" => lifecycle::Pause::augment_args,
        "unpause" => lifecycle::Unpause::augment_args,
        "rename" => lifecycle::Rename::augment_args,
        "restart" => lifecycle::Restart::augment_args,
        "wait" => lifecycle::Wait::augment_args,
        "update" => update::Args::augment_args,
        "container" => container::Args::augment_args,
        "volume" => volume::Args::augment_args,
        "commit" => commit::Args::augment_args,
        "cp" => cp::Args::augment_args,
        "diff" => diff::Args::augment_args,
        "events" => events::Args::augment_args,
        "exec" => exec::Args::augment_args,
        "export" => export::Args::augment_args,
        "healthcheck" => healthcheck::Args::augment_args,
        "logs" => logs::Args::augment_args,
        "attach" => attach::Args::augment_args,
        "inspect" => inspect::Args::augment_args,
        "port" => port::Args::augment_args,
        "stats" => stats::Args::augment_args,
        "info" => info::Args::augment_args,
        "top" => top::Args::augment_args,
        "version" => version::Args::augment_args,
        "generate" => generate::Args::augment_args,
        _ => return None,
    })
}

fn root() -> clap::Command {
    clap::Command::new("rless")
        .version(env!("CARGO_PKG_VERSION"))
        .disable_version_flag(true)
        .disable_help_subcommand(true)
        .max_term_width(100)
        .subcommand_required(true)
        .arg_required_else_help(true)
}

/// The whole definition, as help and manual show it.
pub(crate) fn definition() -> clap::Command {
    Cli::augment_args(root())
}

/// The definition by which the line `words` is read. When it begins with a command, it is that command's alone: the
/// page faults of building all of them are a tenth of the processor time of a start.
fn definition_for(words: &[OsString]) -> clap::Command {
    let name = words.get(1).and_then(|w| w.to_str()).unwrap_or_default();
    with_values(match fields(name) {
        Some(fields) => {
            General::augment_args(root()).subcommand(fields(clap::Command::new(name.to_owned())))
        }
        None => definition(),
    })
}

/// Every switch also takes `=true` and `=false`, as docker's and podman's do.
fn with_values(command: clap::Command) -> clap::Command {
    let switch = |arg: clap::Arg| {
        if !matches!(arg.get_action(), ArgAction::SetTrue) {
            return arg;
        }
        arg.action(ArgAction::Set)
            .num_args(0..=1)
            .require_equals(true)
            .default_value("false")
            .default_missing_value("true")
            .value_parser(BoolishValueParser::new())
            .hide_default_value(true)
            .hide_possible_values(true)
            .value_name("BOOL")
    };
    // A flag given twice counts as given last, as it does there.
    let command = command.args_override_self(true).mut_args(switch);
    command.mut_subcommands(with_values)
}

/// Picks the role, parses the command line, runs the command and returns the exit code.
pub fn main() -> ExitCode {
    trace::mark("main");
    let mut words = std::env::args_os();
    let role = words.next().unwrap_or_default();
    if role == session::ROLE {
        return exit(session::role());
    }
    if role == volumes::ROLE {
        let path = words.next().unwrap_or_default();
        return exit(volumes::delete_role(Path::new(&path)).map(|()| 0));
    }
    let words: Vec<_> = std::env::args_os().collect();
    let words = match mount_cow::helper(&words) {
        Helper::No => words,
        Helper::Line(line) => line,
        Helper::Fake => return ExitCode::SUCCESS,
        Helper::Refused(e) => return exit(Err(e)),
    };
    let words = helped(words);
    let matches = definition_for(&words).try_get_matches_from(&words);
    let cli = match matches.and_then(|mut m| Cli::from_arg_matches_mut(&mut m)) {
        Ok(cli) => cli,
        Err(e) => return usage_exit(&e, &words),
    };
    let quiet = matches!(
        cli.general.log_level,
        Level::Error | Level::Fatal | Level::Panic
    );
    QUIET.store(quiet && !cli.general.debug, Ordering::Relaxed);
    if log::set_logger(&Warnings).is_ok() {
        log::set_max_level(log::LevelFilter::Warn);
    }
    trace::mark("parsed");
    let result = dispatch(cli.command);
    start::revive();
    exit(result)
}

/// `rless help COMMAND` is `rless COMMAND --help`.
fn helped(mut words: Vec<OsString>) -> Vec<OsString> {
    if words.get(1).is_some_and(|w| w == "help") {
        words.remove(1);
        words.retain(|w| w != "--help" && w != "-h");
        words.push("--help".into());
    }
    words
}

fn exit(result: Result<u8>) -> ExitCode {
    ExitCode::from(result.unwrap_or_else(|e| {
        complain(&e);
        error::kind(&e).exit_code()
    }))
}

/// Help and version are no errors; a wrong command line is 125, as docker's and podman's.
fn usage_exit(e: &clap::Error, words: &[OsString]) -> ExitCode {
    if e.kind() == ErrorKind::InvalidUtf8 {
        return exit(Err(not_text(words).into()));
    }
    // Help as it is in the manual, without the values that every switch takes besides.
    let plain = definition().try_get_matches_from(words);
    match plain.err().filter(|p| !e.use_stderr() && !p.use_stderr()) {
        Some(help) => drop(help.print()),
        None if e.use_stderr() => warn(usage_text(e).trim_end()),
        None => drop(e.print()),
    }
    if e.use_stderr() {
        ExitCode::from(Kind::Usage.exit_code())
    } else {
        ExitCode::SUCCESS
    }
}

/// Which argument is not UTF-8.
fn not_text(words: &[OsString]) -> Fault {
    let bad = words.iter().skip(1).find(|w| w.to_str().is_none());
    let shown = bad.map(|w| w.as_encoded_bytes().escape_ascii().to_string());
    usage(format!(
        "the argument \"{}\" is not UTF-8",
        shown.unwrap_or_default()
    ))
    .hint("only the two paths of `rless cp` may be any bytes")
}

/// clap's text, beginning as all our errors do.
fn usage_text(e: &clap::Error) -> String {
    let text = e.render();
    let text = match std::io::stderr().is_terminal() {
        true => text.ansi().to_string(),
        false => text.to_string(),
    };
    match e.kind() {
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => text,
        _ => text.replacen("error:", error::PREFIX.trim_end(), 1),
    }
}

/// Prints an error with its causes and hints on standard error.
pub fn complain(e: &anyhow::Error) {
    warn(&error::report(e));
}

/// Prints a line on standard error, whole or not at all.
pub fn warn(line: &str) {
    use std::io::Write;
    let _ = std::io::stderr().write_all(format!("{line}\n").as_bytes());
}

/// As [`warn`], for what is no error: `--log-level=error` leaves it out.
pub fn notice(line: &str) {
    if !QUIET.load(Ordering::Relaxed) {
        warn(line);
    }
}

/// What the layers below warn of goes to standard error; a supervisor's is nobody's. Other crates' warnings do not.
struct Warnings;

impl log::Log for Warnings {
    fn enabled(&self, about: &log::Metadata<'_>) -> bool {
        about.target().starts_with("rless")
    }

    fn log(&self, record: &log::Record<'_>) {
        if self.enabled(record.metadata()) {
            let text = error::visible(&record.args().to_string(), &['\n', '\t']);
            notice(&format!("Warning: {text}"));
        }
    }

    fn flush(&self) {}
}

/// Does `act` on every name, reports each failure, goes on, and returns the exit code that
/// commands on objects have: 0, 1 for a missing object, 2 for one in use, else 125.
pub fn each<'a>(
    names: impl IntoIterator<Item = &'a str>,
    mut act: impl FnMut(&str) -> Result<()>,
) -> u8 {
    let mut code = 0;
    for name in names {
        if let Err(e) = act(name) {
            complain(&e);
            code = object_exit_code(error::kind(&e));
        }
    }
    code
}

/// Exit code of commands on objects (`rm`, `rmi`, `volume rm`).
pub fn object_exit_code(kind: Kind) -> u8 {
    match kind {
        Kind::NoSuchObject => 1,
        Kind::Conflict => 2,
        other => other.exit_code(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn definition_is_consistent() {
        definition().debug_assert();
    }

    /// A command's own definition is its part of the whole.
    #[test]
    fn one_command_is_defined_as_among_all() {
        let shown = |mut command: clap::Command, name: &str| {
            command.build();
            let count = command.get_subcommands().count();
            let one = command.find_subcommand_mut(name).expect("the command");
            (one.render_long_help().to_string(), count)
        };
        for command in definition().get_subcommands() {
            let name = command.get_name();
            let alone = definition_for(&["rless".into(), name.into()]);
            let (all, count) = shown(with_values(definition()), name);
            assert!(count > 30);
            assert_eq!(shown(alone, name), (all, 1), "{name}");
        }
    }

    /// clap takes a short flag's letter from the field's name, not from the flag's.
    #[test]
    fn short_flags_are_letters_of_their_long_ones() {
        fn look(command: &clap::Command, odd: &mut Vec<String>) {
            for arg in command.get_arguments() {
                if let (Some(short), Some(long)) = (arg.get_short(), arg.get_long())
                    && !long.starts_with(short.to_ascii_lowercase())
                {
                    odd.push(format!("{} -{short} --{long}", command.get_name()));
                }
            }
            command.get_subcommands().for_each(|c| look(c, odd));
        }
        let mut odd = Vec::new();
        look(&definition(), &mut odd);
        // As podman has them.
        let meant = ["ps -n --last", "list -n --last"];
        odd.retain(|o| !meant.contains(&o.as_str()));
        assert!(odd.is_empty(), "{odd:?}");
        assert!(parse(&["inspect", "-t", "image", "x"]).is_ok());
        assert!(parse(&["inspect", "-k", "image", "x"]).is_err());
    }

    #[test]
    fn help_is_a_word_too() {
        let of = |line: &[&str]| helped(line.iter().map(Into::into).collect());
        assert_eq!(of(&["rless", "help"]), ["rless", "--help"]);
        assert_eq!(
            of(&["rless", "help", "volume", "create"]),
            ["rless", "volume", "create", "--help"]
        );
        assert_eq!(
            of(&["rless", "run", "x", "help"]),
            ["rless", "run", "x", "help"]
        );
        for (line, kind) in [
            (&["run", "--help"][..], ErrorKind::DisplayHelp),
            (&["nosuch", "--help"], ErrorKind::InvalidSubcommand),
            (&["-v"], ErrorKind::DisplayVersion),
            (&["-V"], ErrorKind::DisplayVersion),
            (&["--version"], ErrorKind::DisplayVersion),
        ] {
            assert_eq!(parse(line).expect_err("none").kind(), kind, "{line:?}");
        }
    }

    #[test]
    fn flags_before_the_command() {
        let cli = parse(&["--log-level=error", "--debug", "ps"]).expect("parsed");
        assert!(cli.general.log_level == Level::Error && cli.general.debug);
        assert!(parse(&["--log-level", "warning", "ps"]).is_ok());
        assert!(parse(&["--log-level=loud", "ps"]).is_err());
    }

    #[test]
    fn what_is_not_text_is_named() {
        use std::os::unix::ffi::OsStringExt;
        let odd = || OsString::from_vec(b"caf\xe9\x1b".to_vec());
        let words = |first: &str| vec!["rless".into(), first.into(), "x".into(), odd()];
        let parsed = definition_for(&words("run")).try_get_matches_from(words("run"));
        assert_eq!(parsed.expect_err("no text").kind(), ErrorKind::InvalidUtf8);
        assert_eq!(
            not_text(&words("run")).to_string(),
            "the argument \"caf\\xe9\\x1b\" is not UTF-8"
        );
        let parsed = definition_for(&words("cp")).try_get_matches_from(words("cp"));
        assert!(parsed.is_ok());
    }

    fn parse(line: &[&str]) -> Result<Cli, clap::Error> {
        let words = std::iter::once("rless").chain(line.iter().copied());
        let words: Vec<_> = words.map(OsString::from).collect();
        definition_for(&words)
            .try_get_matches_from(&words)
            .and_then(|mut m| Cli::from_arg_matches_mut(&mut m))
    }

    #[test]
    fn run_reads_command_lines_as_docker_does() {
        for line in [
            &["run", "-it", "--rm", "alpine", "sh"][..],
            &[
                "run",
                "-itd=false",
                "-e=A=1",
                "-eB=2",
                "-p8080:80",
                "--rm=false",
                "x",
            ],
            &["run", "x", "-i", "--nosuch", "--", "-x"],
            &[
                "run",
                "-v",
                "/a:/b",
                "--memory-swap=-1",
                "--memory-swap",
                "-1",
                "--",
                "x",
                "y",
            ],
        ] {
            assert!(parse(line).is_ok(), "{line:?}: {:?}", parse(line).err());
        }
        for line in [
            &["run"][..],
            &["run", "--nosuch", "x"],
            &["run", "--rm=maybe", "x"],
        ] {
            let e = parse(line).expect_err("refused");
            assert!(e.use_stderr(), "{line:?}");
        }
    }
}
