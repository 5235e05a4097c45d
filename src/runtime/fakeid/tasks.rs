//! Which task has which emulated credentials, and how children come by them.
//!
//! The kernel copies credentials at clone(2), which the emulation does not see. It is exact all
//! the same where it can be, by three rules over the process tree that `/proc` shows:
//!
//! 1. A task that is seen for the first time has the credentials of its thread group's leader,
//!    else of its parent, else (its parent has never been seen either) of that one's parent, up to
//!    the container's init, or a process that joined and was announced.
//! 2. Before a task's credentials change, every child and thread it has now is given the old ones.
//! 3. Before a task exits (`exit_group` is watched too) its children are given its credentials: they are about to
//!    be handed to the container's init, and would be taken for root's.
//!
//! What is left is a child orphaned by a signal before it ever asked for an id. A task is known by pid
//! and start time, so that a reused pid inherits nothing.

use std::collections::HashMap;
use std::sync::Arc;

use super::creds::Creds;

/// A process or thread id in the emulation's own pid namespace.
pub(crate) type Tid = i32;

/// What the table has to know about the tree of tasks; `/proc` outside tests.
pub(crate) trait Tree {
    /// Start time (clock ticks since boot), thread-group id and parent; `None` if the task is gone.
    fn look(&self, tid: Tid) -> Option<Look>;
    /// The children and the other threads of the task's thread group.
    fn below(&self, tid: Tid) -> Vec<Tid>;
}

/// One task as the tree shows it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Look {
    /// Field 22 of proc_pid_stat(5).
    pub(crate) start: u64,
    /// Thread-group id.
    pub(crate) tgid: Tid,
    /// Parent's thread-group id.
    pub(crate) parent: Tid,
}

/// Entries beyond which dead tasks are swept out.
const SWEEP_AT: usize = 512;

/// The table of known tasks.
#[derive(Debug)]
pub(crate) struct Tasks {
    known: HashMap<Tid, (u64, Arc<Creds>)>,
    /// The container's init and what it started with.
    first: (Tid, Arc<Creds>),
    sweep_at: usize,
}

impl Tasks {
    /// A table in which all tasks descend from `init`, which starts with `creds`.
    pub(crate) fn new(init: Tid, creds: Creds) -> Tasks {
        Tasks {
            known: HashMap::new(),
            first: (init, Arc::new(creds)),
            sweep_at: SWEEP_AT,
        }
    }

    /// The credentials of `tid`.
    pub(crate) fn of(&mut self, tree: &dyn Tree, tid: Tid) -> Arc<Creds> {
        let mut chain = Vec::new();
        let mut at = tid;
        // Longer than any real tree is deep; ends even if /proc changes underneath.
        let found = loop {
            let Some(look) = tree.look(at) else {
                break self.first.1.clone();
            };
            if let Some((start, creds)) = self.known.get(&at)
                && *start == look.start
            {
                break creds.clone();
            }
            chain.push((at, look.start));
            if look.tgid != at {
                at = look.tgid;
            } else if at == self.first.0 || look.parent <= 0 || chain.len() > 4096 {
                break self.first.1.clone();
            } else {
                at = look.parent;
            }
        };
        for (tid, start) in chain {
            self.known.insert(tid, (start, found.clone()));
        }
        found
    }

    /// Gives `tid` new credentials; whatever descends from it keeps the old ones.
    pub(crate) fn set(&mut self, tree: &dyn Tree, tid: Tid, creds: Creds) {
        self.settle_children(tree, tid);
        if let Some(look) = tree.look(tid) {
            self.known.insert(tid, (look.start, Arc::new(creds)));
        }
        self.sweep(tree);
    }

    /// A process that joined the container: it is nobody's child in it.
    pub(crate) fn enter(&mut self, tree: &dyn Tree, tid: Tid, creds: Creds) {
        if let Some(look) = tree.look(tid) {
            self.known.insert(tid, (look.start, Arc::new(creds)));
        }
        self.sweep(tree);
    }

    /// To be called before `tid` goes: its children stop depending on it.
    pub(crate) fn leaving(&mut self, tree: &dyn Tree, tid: Tid) {
        let inherited = *self.of(tree, tid) == *self.first.1;
        if !inherited {
            self.settle_children(tree, tid);
        }
        self.known.remove(&tid);
    }

    fn settle_children(&mut self, tree: &dyn Tree, tid: Tid) {
        let _settled = self.of(tree, tid);
        let mut open = tree.below(tid);
        let mut steps = 0usize;
        while let Some(child) = open.pop() {
            steps += 1;
            if steps > 65_536 {
                break;
            }
            let Some(look) = tree.look(child) else {
                continue;
            };
            let settled = self
                .known
                .get(&child)
                .is_some_and(|(start, _)| *start == look.start);
            if !settled {
                self.of(tree, child);
                if look.tgid == child {
                    open.extend(tree.below(child));
                }
            }
        }
    }

    fn sweep(&mut self, tree: &dyn Tree) {
        if self.known.len() < self.sweep_at {
            return;
        }
        self.known
            .retain(|tid, (start, _)| tree.look(*tid).is_some_and(|l| l.start == *start));
        self.sweep_at = SWEEP_AT.max(self.known.len() * 2);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::RefCell;

    #[derive(Default)]
    struct Fake(RefCell<HashMap<Tid, Look>>);

    impl Fake {
        fn add(&self, tid: Tid, tgid: Tid, parent: Tid) {
            let start = u64::try_from(self.0.borrow().len()).unwrap() + 100;
            self.0.borrow_mut().insert(
                tid,
                Look {
                    start,
                    tgid,
                    parent,
                },
            );
        }
        fn reparent(&self, tid: Tid, parent: Tid) {
            self.0.borrow_mut().get_mut(&tid).unwrap().parent = parent;
        }
    }

    impl Tree for Fake {
        fn look(&self, tid: Tid) -> Option<Look> {
            self.0.borrow().get(&tid).copied()
        }
        fn below(&self, tid: Tid) -> Vec<Tid> {
            self.0
                .borrow()
                .iter()
                .filter(|(t, l)| **t != tid && (l.tgid == tid || l.parent == tid))
                .map(|(t, _)| *t)
                .collect()
        }
    }

    fn tree() -> (Fake, Tasks) {
        let f = Fake::default();
        f.add(10, 10, 1);
        (f, Tasks::new(10, Creds::new(0, 0, vec![0])))
    }

    #[test]
    fn children_and_threads_inherit() {
        let (f, mut t) = tree();
        f.add(11, 11, 10);
        t.set(&f, 11, Creds::new(33, 33, vec![]));
        f.add(12, 12, 11);
        f.add(13, 12, 11);
        assert_eq!(t.of(&f, 13).uid.real, 33);
        assert_eq!(t.of(&f, 10).uid.real, 0);
    }

    #[test]
    fn a_child_keeps_what_its_parent_had_at_the_fork() {
        let (f, mut t) = tree();
        f.add(11, 11, 10);
        f.add(12, 12, 11);
        f.add(13, 13, 12);
        t.set(&f, 11, Creds::new(33, 33, vec![]));
        assert_eq!(t.of(&f, 13).uid.real, 0);
        f.add(14, 14, 11);
        assert_eq!(t.of(&f, 14).uid.real, 33);
    }

    #[test]
    fn an_orphan_keeps_its_dead_parents_credentials() {
        let (f, mut t) = tree();
        f.add(11, 11, 10);
        t.set(&f, 11, Creds::new(33, 33, vec![]));
        f.add(12, 12, 11);
        t.leaving(&f, 11);
        f.0.borrow_mut().remove(&11);
        f.reparent(12, 10);
        assert_eq!(t.of(&f, 12).uid.real, 33);
    }

    #[test]
    fn what_joined_is_what_it_says_and_so_are_its_children() {
        let (f, mut t) = tree();
        f.add(20, 20, 2);
        t.enter(&f, 20, Creds::new(33, 33, vec![]));
        f.add(21, 21, 20);
        assert_eq!(t.of(&f, 21).uid.real, 33);
        assert_eq!(t.of(&f, 10).uid.real, 0);
    }

    #[test]
    fn a_reused_pid_inherits_nothing() {
        let (f, mut t) = tree();
        f.add(11, 11, 10);
        t.set(&f, 11, Creds::new(33, 33, vec![]));
        f.0.borrow_mut().remove(&11);
        f.add(90, 90, 10);
        f.add(11, 11, 10);
        assert_eq!(t.of(&f, 11).uid.real, 0);
    }
}
