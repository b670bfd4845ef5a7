//! `snapshot` and `fork`: what they print, and that what they make works.

use crate::support::Home;

#[test]
fn a_snapshot_is_a_template_by_its_id_and_its_name() {
    let home = Home::own();
    let id = home.create(&["--name", "build"]);
    home.sandbox(&["exec", &id, "--", "sh", "-c", "echo kept > note"])
        .ok();
    let kept = home
        .sandbox(&["snapshot", "build", "--name", "built", "--json"])
        .json();
    assert_eq!(kept["name"], "built");
    assert_eq!(kept["processes"], false);
    let snapshot = kept["id"].as_str().unwrap();
    for template in ["built", snapshot] {
        let made = home.create(&["--template", template]);
        let note = home.sandbox(&["exec", &made, "--", "cat", "note"]);
        assert_eq!(note.ok(), "kept\n", "{template}");
    }
    let again = home.sandbox(&["snapshot", "build", "--name", "built"]);
    again.assert_refused("of this name exists");
    let listed = home.sandbox(&["templates", "--json"]).json();
    let listed = listed.as_array().unwrap().iter();
    let mut listed = listed.filter(|template| template["id"] == snapshot);
    let shown = listed.next().unwrap();
    assert_eq!(shown["names"][0], "built");
    assert_eq!(shown["origin"], "snapshot");
    assert_eq!(shown["in_use"], true);
    let details = home.sandbox(&["templates", "inspect", "built"]).ok();
    assert!(details.contains(&id), "{details}");
    home.sandbox(&["templates", "rm", "built"]).ok();
    let late = home.sandbox(&["create", "--template", snapshot]);
    late.assert_refused("no such template");
    let other = home.sandbox(&["snapshot", "build"]).ok();
    assert!(other.starts_with("snap-"), "{other}");
}

#[test]
fn forks_start_from_the_files_of_another_sandbox() {
    let home = Home::own();
    let id = home.create(&[]);
    home.sandbox(&["exec", &id, "--", "sh", "-c", "echo kept > note"])
        .ok();
    let ids = home.sandbox(&["fork", &id, "-n", "2"]).ok();
    assert_eq!(ids.lines().count(), 2, "{ids}");
    for fork in ids.lines() {
        let note = home.sandbox(&["exec", fork, "--", "cat", "note"]);
        assert_eq!(note.ok(), "kept\n");
    }
    let made = home
        .sandbox(&["fork", &id, "--json", "--memory", "64M", "--disk", "8M"])
        .json();
    assert_eq!(made[0]["limits"]["disk"], 8 << 20);
    assert_eq!(made[0]["limits"]["memory"], 64 << 20);
    assert_eq!(made[0]["ownership"], "detached");
    home.sandbox(&["kill", &id]).ok();
    home.sandbox(&["fork", &id]).assert_refused(&id);
    // They live on without it, and leave nothing when they end either.
    let limited = made[0]["id"].as_str().unwrap();
    for fork in ids.lines().chain([limited]) {
        home.sandbox(&["kill", fork]).ok();
        home.assert_nothing_left(fork);
    }
}
