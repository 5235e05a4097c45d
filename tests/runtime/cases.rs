//! What a container is like.

use crate::Case;
use crate::world::World;

pub(crate) const CASES: &[Case] = &[("true_ends_with_zero", true_ends_with_zero)];

fn true_ends_with_zero(world: &World) {
    let ran = world.run(&["true"], |_| {});
    assert_eq!((ran.code, ran.report.as_str()), (0, ""));
    let ran = world.sh("id; cat /proc/self/status | grep -E 'Cap|Seccomp|NoNew|Groups'; mount; ls -la /dev /proc/self/fd; echo $$; hostname; pwd");
    println!("{} {} {}", ran.code, ran.out, ran.report);
}
