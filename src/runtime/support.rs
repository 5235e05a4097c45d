//! What a spec may ask for that this runtime does not do: an error, never silently left out.
//!
//! `linux.resources` is the cgroup module's, `linux.uidMappings` the plan's ([`super::Plan::mapping`]).

use oci_spec::runtime::{Process, Spec};

use super::rootfs::linux;
use crate::error::{Result, usage};

/// Refuses what is not supported.
pub(super) fn check(spec: &Spec, process: &Process) -> Result<()> {
    let hooks = spec.hooks().as_ref().is_some_and(|h| {
        #[allow(deprecated)]
        let lists = [
            h.prestart(),
            h.create_runtime(),
            h.create_container(),
            h.start_container(),
            h.poststart(),
            h.poststop(),
        ];
        lists.into_iter().flatten().any(|list| !list.is_empty())
    });
    let idmapped = spec
        .mounts()
        .iter()
        .flatten()
        .any(|m| m.uid_mappings().is_some() || m.gid_mappings().is_some());
    let asked = [
        ("hooks", hooks),
        ("mounts with id mappings", idmapped),
        ("process.scheduler", process.scheduler().is_some()),
        ("process.ioPriority", process.io_priority().is_some()),
        (
            "process.execCPUAffinity",
            process.exec_cpu_affinity().is_some(),
        ),
        (
            "linux.intelRdt",
            linux(spec, |l| l.intel_rdt().as_ref()).is_some(),
        ),
        (
            "linux.personality",
            linux(spec, |l| l.personality().as_ref()).is_some(),
        ),
        (
            "linux.timeOffsets",
            linux(spec, |l| l.time_offsets().as_ref()).is_some(),
        ),
        (
            "linux.memoryPolicy",
            linux(spec, |l| l.memory_policy().as_ref()).is_some(),
        ),
    ];
    for (name, given) in asked {
        if given {
            return Err(usage(format!("the runtime spec's `{name}` is not supported")).into());
        }
    }
    Ok(())
}
