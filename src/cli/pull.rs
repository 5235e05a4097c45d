//! `rless pull`.

use std::path::PathBuf;

use super::{complain, format, progress};
use crate::container::image;
use crate::error::Result;
use crate::store::{PullOptions, PullPolicy, Store};

/// Bring images from a registry, a layout or an archive into the store.
///
/// IMAGE is [HOST/]NAME[:TAG][@DIGEST], oci:DIR[:TAG], oci-archive:FILE[:TAG] or docker-archive:FILE[:NAME].
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// What to pull
    #[arg(required = true, value_name = "IMAGE")]
    images: Vec<String>,
    /// Print the image's id only
    #[arg(short, long)]
    quiet: bool,
    #[command(flatten)]
    from: From,
    /// When to ask the registry: always, missing, never, newer
    #[arg(long, value_name = "POLICY", default_value = "always")]
    policy: String,
}

/// Where from and which: the flags that `pull`, `run` and `create` share.
#[derive(Debug, Clone, Default, clap::Args)]
pub(crate) struct From {
    /// Choose the image for OS/ARCH[/VARIANT] instead of this machine's
    #[arg(long, value_name = "OS/ARCH")]
    platform: Option<String>,
    /// Choose the image for this architecture
    #[arg(long, value_name = "ARCH", conflicts_with = "platform")]
    arch: Option<String>,
    /// Choose the image for this operating system
    #[arg(long, value_name = "OS", conflicts_with = "platform")]
    os: Option<String>,
    /// Choose the image for this variant of the architecture
    #[arg(long, value_name = "VARIANT", conflicts_with = "platform")]
    variant: Option<String>,
    /// Require https and a valid certificate (--tls-verify=false: do not)
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    tls_verify: Option<bool>,
    /// Read credentials from this file only
    #[arg(long, value_name = "FILE")]
    authfile: Option<PathBuf>,
    /// Log in with these credentials
    #[arg(long, value_name = "USER[:PASSWORD]")]
    creds: Option<String>,
}

impl From {
    /// As one word; what was not said is this machine's.
    fn platform(&self) -> Option<String> {
        if [&self.arch, &self.os, &self.variant]
            .iter()
            .all(|p| p.is_none())
        {
            return self.platform.clone();
        }
        let os = self.os.as_deref().unwrap_or("linux");
        let arch = self.arch.as_deref().unwrap_or(super::version::go_arch());
        let variant = self.variant.iter().flat_map(|v| ["/", v]);
        Some(format!("{os}/{arch}") + &variant.collect::<String>())
    }

    /// As the store wants them.
    pub(crate) fn options(&self, policy: PullPolicy) -> PullOptions {
        PullOptions {
            platform: self.platform(),
            tls_verify: self.tls_verify,
            policy,
            authfile: self.authfile.clone(),
            creds: self.creds.clone(),
        }
    }
}

pub(crate) fn run(args: &Args) -> Result<u8> {
    let options = args.from.options(args.policy.parse()?);
    let store = Store::open()?;
    let progress = progress::for_stderr(args.quiet);
    let mut code = 0;
    for name in &args.images {
        match image::pull(&store, name, &options, progress.as_ref()) {
            Ok(image) => format::print(&format!("{}\n", image.id))?,
            Err(e) => {
                complain(&e);
                code = crate::error::kind(&e).exit_code();
            }
        }
    }
    Ok(code)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_platform_may_come_in_parts() {
        let of = |arch: Option<&str>, os: Option<&str>, variant: Option<&str>| {
            let from = From {
                arch: arch.map(str::to_owned),
                os: os.map(str::to_owned),
                variant: variant.map(str::to_owned),
                ..From::default()
            };
            from.platform()
        };
        assert_eq!(of(None, None, None), None);
        assert_eq!(of(Some("arm"), None, Some("v7")).unwrap(), "linux/arm/v7");
        let own = format!("linux/{}", super::super::version::go_arch());
        assert_eq!(of(None, Some("linux"), None).unwrap(), own);
    }
}
