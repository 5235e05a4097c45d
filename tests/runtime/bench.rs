//! `runtime bench`: how long a start takes, for whoever changes it. No test.

use std::time::{Duration, Instant};

use nix::sys::wait::waitpid;
use rless::runtime::{self, Plan};

use crate::world::{World, config, plan};

/// Prints medians of `true` on the busybox root.
pub(crate) fn run(world: &World) {
    let output = tempfile::tempfile().unwrap();
    let cache = world.dir.path().join("cache");
    let mut times: [Vec<Duration>; 4] = Default::default();
    for _ in 0..200 {
        let mut plan: Plan = plan(config(&["true"]), &world.root, &output);
        plan.seccomp_cache = Some(cache.clone());
        let start = Instant::now();
        let mut init = runtime::spawn(&plan).unwrap();
        times[0].push(start.elapsed());
        init.write_maps().unwrap();
        times[1].push(start.elapsed());
        init.begin().unwrap();
        init.wait_exec().unwrap();
        times[2].push(start.elapsed());
        waitpid(init.pid(), None).unwrap();
        times[3].push(start.elapsed());
    }
    for (name, list) in ["spawned", "mapped", "executed", "ended"]
        .iter()
        .zip(&mut times)
    {
        list.sort();
        println!(
            "{name:>9} after {:6.2} ms (p10 {:.2}, p90 {:.2})",
            ms(list[100]),
            ms(list[20]),
            ms(list[180])
        );
    }
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}
