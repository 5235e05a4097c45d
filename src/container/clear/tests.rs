use super::super::record::{Containers, Record, Reserved};
use super::super::{swept, volumes};
use crate::store::Store;
use std::fs;

struct World {
    _dir: tempfile::TempDir,
    containers: Containers,
}

impl World {
    fn new() -> World {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open_at(&dir.path().join("data"), &dir.path().join("run")).unwrap();
        World {
            containers: Containers::of(&store),
            _dir: dir,
        }
    }

    /// A container that has ended, with two anonymous volumes.
    fn ended(&self, name: &str) -> (Record, [String; 2]) {
        let Reserved {
            id, place, name, ..
        } = self.containers.reserve(Some(name)).unwrap();
        let made = [self.volume_of(&id), self.volume_of(&id)];
        let record = serde_json::json!({
            "version": 1, "id": id, "name": name, "image": "i", "image_id": null, "command": [],
            "created": "2026-01-01T00:00:00Z", "state": "exited", "auto_remove": false,
            "anonymous_volumes": made, "volumes": made, "host": crate::container::host::id(),
        });
        let record: Record = serde_json::from_value(record).unwrap();
        place.write(&record).unwrap();
        fs::remove_dir_all(place.live).unwrap();
        (record, made)
    }

    fn volume_of(&self, id: &str) -> String {
        let volume = volumes::anonymous(Some(id)).unwrap();
        volumes::ensure(&self.containers.volumes, &volume).unwrap();
        volume.name
    }

    fn names(&self) -> Vec<String> {
        let records = self.containers.list().unwrap();
        records.into_iter().map(|r| r.name).collect()
    }

    fn volumes(&self) -> usize {
        volumes::names(&self.containers.volumes).unwrap().len()
    }

    fn assert_empty(&self) {
        assert_eq!(self.names(), [""; 0]);
        assert_eq!(self.containers.taken(), [""; 0]);
        for dir in [".gone", ".new"] {
            for root in [&self.containers.root, &self.containers.volumes] {
                let mut left = fs::read_dir(root.join(dir)).unwrap().flatten();
                assert!(left.all(|e| e.file_name() == ".lock"));
            }
        }
        assert_eq!(fs::read_dir(&self.containers.live).unwrap().count(), 0);
    }
}

#[test]
fn volumes_go_or_stay_as_asked() {
    for go in [true, false] {
        let world = World::new();
        let (record, _) = world.ended("a");
        world.containers.erase(&record, go).unwrap();
        assert_eq!(world.volumes(), if go { 0 } else { 2 });
        world.assert_empty();
    }
}

#[test]
fn killed_after_the_rename_kept_volumes_stay_and_the_name_is_free() {
    for go in [true, false] {
        let world = World::new();
        let c = &world.containers;
        let (record, made) = world.ended("a");
        if !go {
            for volume in &made {
                volumes::set_owner(&c.volumes, volume, None).unwrap();
            }
        }
        assert!(swept::vanish(&c.root, &record.id, &record.id).unwrap());
        // The name is taken over before anything is swept.
        let (second, _) = world.ended("a");
        assert_eq!(world.names(), ["a"]);
        assert_eq!(world.volumes(), if go { 2 } else { 4 });
        assert_eq!(c.find("a").unwrap().id, second.id);
        c.erase(&second, true).unwrap();
        world.assert_empty();
    }
}

#[test]
fn rm_with_volumes_after_one_without_that_was_killed_removes_them() {
    let world = World::new();
    let (record, made) = world.ended("a");
    volumes::set_owner(&world.containers.volumes, &made[0], None).unwrap();
    world.containers.erase(&record, true).unwrap();
    assert_eq!(world.volumes(), 0);
}

#[test]
fn a_volume_that_another_container_uses_stays() {
    let world = World::new();
    let (first, made) = world.ended("a");
    let (mut second, _) = world.ended("b");
    second.volumes.push(made[0].clone());
    let place = world.containers.place(&second.id);
    place.write(&second).unwrap();
    world.containers.erase(&first, true).unwrap();
    assert_eq!(world.volumes(), 3);
}

#[test]
fn half_made_containers_go_with_their_volumes() {
    let world = World::new();
    let c = &world.containers;
    let reserved = c.reserve(Some("a")).unwrap();
    world.volume_of(&reserved.id);
    assert_eq!(world.names(), [""; 0]);
    assert!(reserved.place.dir.exists(), "its maker is alive");
    assert!(c.reserve(Some("a")).is_err());
    drop(reserved.lock);
    world.assert_empty();
    assert_eq!(world.volumes(), 0);
}

#[test]
fn a_lost_name_is_given_back_to_whoever_asks() {
    let world = World::new();
    // No beginning of an ID.
    let (record, _) = world.ended("lost");
    let link = world.containers.names().join("lost");
    for ask in [
        |w: &World| w.containers.find("lost").unwrap().id,
        |w: &World| w.containers.list().unwrap().remove(0).id,
    ] {
        fs::remove_file(&link).unwrap();
        assert_eq!(ask(&world), record.id);
        assert_eq!(fs::read_link(&link).unwrap().to_str(), Some(&*record.id));
    }
}

#[test]
fn a_lost_name_that_another_container_has_is_replaced() {
    let world = World::new();
    let (first, _) = world.ended("a");
    fs::remove_file(world.containers.names().join("a")).unwrap();
    let (second, _) = world.ended("a");
    let listed = world.containers.list().unwrap();
    let name = |id: &str| listed.iter().find(|r| r.id == id).unwrap().name.clone();
    assert_eq!(name(&second.id), "a");
    assert_ne!(name(&first.id), "a");
    let found = world.containers.find(&name(&first.id)).unwrap();
    assert_eq!((found.id, found.name), (first.id.clone(), name(&first.id)));
}

#[test]
fn what_a_supervisor_left_after_its_last_record_is_cleared() {
    let world = World::new();
    let (record, _) = world.ended("a");
    let live = world.containers.place(&record.id).live;
    fs::create_dir_all(live.join("attach")).unwrap();
    world.containers.heal_live();
    assert!(!live.exists());
    assert_eq!(world.names(), ["a"]);
}

#[test]
fn a_volume_that_a_container_in_the_making_uses_stays() {
    let world = World::new();
    let c = &world.containers;
    let (record, made) = world.ended("a");
    let volume = volumes::find(&c.volumes, &made[0]).unwrap();
    let held = volumes::hold(&c.volumes, &volume).unwrap();
    assert!(c.erase(&record, true).is_err(), "it is told");
    assert_eq!(world.volumes(), 1);
    // Its record is there now.
    let (mut second, _) = world.ended("b");
    second.volumes.push(made[0].clone());
    c.place(&second.id).write(&second).unwrap();
    drop(held);
    c.sweep();
    assert_eq!(world.volumes(), 3);
    assert_eq!(volumes::owner(&c.volumes, &made[0]), None);
    assert_eq!(world.names(), ["b"]);
}

#[test]
fn a_volume_stays_while_a_record_cannot_be_read() {
    let world = World::new();
    let c = &world.containers;
    let (first, _) = world.ended("a");
    let (second, _) = world.ended("b");
    fs::write(c.place(&second.id).record(), "{").unwrap();
    let e = c.users("v").unwrap_err();
    assert_eq!(crate::error::kind(&e), crate::error::Kind::Conflict);
    assert!(crate::error::report(&e).contains(&format!("rless rm -f {}", second.id)));
    c.erase(&first, true).unwrap();
    assert_eq!(world.volumes(), 4);
}

#[test]
fn what_fails_on_the_way_is_tried_again() {
    let world = World::new();
    let c = &world.containers;
    let (record, made) = world.ended("a");
    // A volume that cannot be claimed.
    let about = c.volumes.join(&made[1]).join("volume.json");
    fs::remove_file(&about).unwrap();
    fs::create_dir(&about).unwrap();
    assert!(c.erase(&record, true).is_err());
    assert_eq!(world.volumes(), 1);
    fs::remove_dir(&about).unwrap();
    c.sweep();
    world.assert_empty();
    assert_eq!(world.volumes(), 0);
}

#[test]
fn a_bystander_leaves_a_removal_to_who_is_at_it() {
    let world = World::new();
    let c = &world.containers;
    let (record, _) = world.ended("a");
    let lock = c.lock(&record.id).unwrap().unwrap();
    assert!(swept::vanish(&c.root, &record.id, &record.id).unwrap());
    assert!(c.load(&record.id).unwrap().is_none());
    c.sweep();
    assert!(swept::gone(&c.root, &record.id).exists());
    assert_eq!(world.volumes(), 2);
    drop(lock);
    assert!(c.load(&record.id).unwrap().is_none());
    world.assert_empty();
    assert_eq!(world.volumes(), 0);
}

/// A container with its record damaged to `bytes`; `used`: its upper has changes.
fn damaged(world: &World, bytes: &[u8], used: bool) -> (Record, [String; 2]) {
    let (record, made) = world.ended("a");
    let place = world.containers.place(&record.id);
    let source = volumes::data(&world.containers.volumes, &made[0]);
    let spec = serde_json::json!({
        "ociVersion": "1.2.0", "process": {"cwd": "/", "args": ["sleep", "1"], "user": {"uid": 0, "gid": 0}},
        "mounts": [{"destination": "/v", "type": "bind", "source": source}],
    });
    fs::write(place.dir.join("config.json"), spec.to_string()).unwrap();
    fs::create_dir(place.upper()).unwrap();
    let length = if used { 4096 } else { 48 };
    fs::write(place.upper().join("journal"), vec![1; length]).unwrap();
    fs::write(place.record(), bytes).unwrap();
    (record, made)
}

#[test]
fn a_torn_record_is_put_together_from_what_is_whole() {
    for bytes in [&[][..], &[0; 500]] {
        let world = World::new();
        let (old, made) = damaged(&world, bytes, true);
        // Before anything is repaired it counts as a user.
        let users = world.containers.users(&made[0]).unwrap();
        assert_eq!(users.len(), 1);
        let record = world.containers.find("a").unwrap();
        assert_eq!((&record.id, &record.name), (&old.id, &old.name));
        assert_eq!(record.state, super::super::record::State::Exited);
        assert_eq!(record.exit_code, Some(255));
        assert_eq!(record.command, ["sleep", "1"]);
        assert_eq!(record.volumes, [made[0].clone()]);
        assert_eq!(record.anonymous_volumes, [made[0].clone()]);
        let place = world.containers.place(&old.id);
        let written = crate::store::files::read_json::<Record>(&place.record());
        assert_eq!(written.unwrap().unwrap().exit_code, Some(255));
        world.containers.erase(&record, true).unwrap();
        world.assert_empty();
    }
}

#[test]
fn a_torn_record_of_a_container_that_was_half_made_is_cleared() {
    let world = World::new();
    damaged(&world, &[], false);
    world.assert_empty();
    let (record, _) = damaged(&world, &[], true);
    fs::write(
        world.containers.place(&record.id).dir.join("config.json"),
        "",
    )
    .unwrap();
    world.assert_empty();
}

#[test]
fn a_damaged_record_is_told_of_and_removed_by_force_only() {
    for (go, name) in [(true, "a"), (false, "")] {
        let world = World::new();
        let c = &world.containers;
        let (record, _) = damaged(&world, b"{\"version\":1", true);
        let listing = c.listing().unwrap();
        assert!(listing.records.is_empty());
        let (id, e) = &listing.skipped[0];
        assert_eq!(id, &record.id);
        assert!(crate::error::report(e).contains(&format!("rless rm -f {id}")));
        assert!(c.find("a").is_err() && c.find(&id[..10]).is_err());
        let name = if name.is_empty() { &id[..10] } else { name };
        // Not one that somebody holds, nor one that can be read.
        let lock = c.lock(id).unwrap();
        assert!(!c.remove_unreadable(name, go).unwrap());
        drop(lock);
        let (other, _) = world.ended("b");
        assert!(!c.remove_unreadable("b", go).unwrap());
        c.erase(&other, true).unwrap();
        let before = world.volumes();
        assert!(c.remove_unreadable(name, go).unwrap());
        assert_eq!(world.volumes(), if go { before - 2 } else { before });
        world.assert_empty();
    }
}
