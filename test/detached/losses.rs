//! Detached runs whose machines and pipes die, or say nothing.

use super::{come_back, files, gate, has_file, run_id, scene, state_of, store, wait_for};
use crate::support::{Scene, agents, exists, say};
use std::time::Duration;

#[test]
fn a_machine_that_dies_is_replaced_and_the_training_goes_on_from_the_stores_checkpoint() {
    let mut scene = scene();
    std::fs::write(gate(&scene), "").unwrap();
    let run = run_id(&scene.run().expect(0));
    wait_for(|| state_of(&scene).is_some_and(|state| !state.contains("\"stored_checkpoint\":null")));
    let supervisors = agents(scene.scratch().to_str().unwrap(), "supervise");
    rustix::process::kill_process(supervisors[0], rustix::process::Signal::KILL).unwrap();
    come_back(&mut scene, &run, 8);
    let replaced = scene.run().expect(0);
    assert!(
        replaced.log.contains("restored checkpoint") && replaced.last_line().contains("goes on without"),
        "{}\n{}",
        replaced.log,
        replaced.out
    );
    std::fs::remove_file(gate(&scene)).unwrap();
    wait_for(|| has_file(&scene, "/exit.json"));
    come_back(&mut scene, &run, 9);
    let done = scene.run().expect(0);
    assert_eq!(done.last_line(), "✔ done; see https://bitbucket.org/acme/forest/pull-requests/1");
    assert!(!done.out.contains("│ round 1\n") && done.out.contains("│ round 4\n"), "{}", done.out);
    assert_eq!(scene.remote.file(&scene.branch(), "model/m.bin").unwrap(), b"4\n");
    let comment = &scene.bitbucket.comments()[0].body;
    assert!(comment.contains("The machine was lost and replaced once"), "{comment}");
    assert!(exists(scene.clone()));
}

/// Pipes and machines killed at random instants, until the run is published: `TRAINSPOT_DETACHED_KILLS` runs.
#[test]
fn a_run_survives_the_death_of_its_pipes_and_machines() {
    let runs: u32 = std::env::var("TRAINSPOT_DETACHED_KILLS").map_or(1, |runs| runs.parse().unwrap());
    let (mut pipes, mut machines) = (0, 0);
    for number in 0..runs {
        let mut scene = scene();
        scene.set("ORPHAN_GRACE", "6s");
        let kill = |scene: &Scene, most_ms: u64| {
            let mut child = scene.start();
            std::thread::sleep(Duration::from_millis(fastrand::u64(..most_ms)));
            child.kill().unwrap();
            child.wait().unwrap();
        };
        kill(&scene, 800);
        pipes += 1;
        // Nobody knows whether the run was begun.
        let begun = files(&store(&scene))
            .iter()
            .find_map(|file| Some(file.strip_suffix("/pipe/request.json")?.rsplit('/').next()?.to_owned()));
        let run = begun.unwrap_or_else(|| run_id(&scene.run().expect(0)));
        for visit in 8.. {
            assert!(visit < 30, "run {number} does not end: {:#?}", files(&store(&scene)));
            come_back(&mut scene, &run, visit);
            match visit {
                8 | 11 => {
                    kill(&scene, 3000);
                    pipes += 1;
                }
                9 => {
                    for supervisor in agents(scene.scratch().to_str().unwrap(), "supervise") {
                        rustix::process::kill_process(supervisor, rustix::process::Signal::KILL).ok();
                        machines += 1;
                    }
                }
                _ => {
                    let came = scene.run().expect(0);
                    if came.last_line().contains("pull-requests/1") {
                        break;
                    }
                    std::thread::sleep(Duration::from_secs(1));
                }
            }
        }
        assert_eq!(scene.remote.file(&scene.branch(), "model/m.bin").unwrap(), b"4\n");
        assert_eq!((scene.subjects(&scene.branch()).len(), scene.bitbucket.pull_requests().len()), (1, 1));
        wait_for(|| agents(scene.scratch().to_str().unwrap(), "supervise").is_empty());
    }
    say(&format!("detached: {runs} runs, {pipes} pipes and {machines} machines killed, each published once"));
}

/// A machine that is there and says nothing is ended, and what it left in the store is not forgotten.
#[test]
fn a_machine_that_hangs_is_replaced_and_its_checkpoint_counts() {
    let mut scene = scene();
    std::fs::write(gate(&scene), "").unwrap();
    let run = run_id(&scene.run().expect(0));
    wait_for(|| state_of(&scene).is_some_and(|state| !state.contains("\"stored_checkpoint\":null")));
    let supervisors = agents(scene.scratch().to_str().unwrap(), "supervise");
    rustix::process::kill_process(supervisors[0], rustix::process::Signal::STOP).unwrap();
    // As if it had said nothing for long.
    let state = files(&store(&scene)).into_iter().find(|file| file.ends_with("/state.json")).unwrap();
    let state = std::fs::File::options().write(true).open(store(&scene).join(state)).unwrap();
    state.set_modified(std::time::SystemTime::now() - Duration::from_mins(10)).unwrap();
    come_back(&mut scene, &run, 8);
    let replaced = scene.run().expect(0);
    assert!(replaced.log.contains("restored checkpoint"), "{}", replaced.log);
    std::fs::remove_file(gate(&scene)).unwrap();
    wait_for(|| has_file(&scene, "/exit.json"));
    come_back(&mut scene, &run, 9);
    let done = scene.run().expect(0);
    assert!(!done.out.contains("│ round 1\n") && done.out.contains("│ round 4\n"), "{}", done.out);
    assert_eq!(scene.remote.file(&scene.branch(), "model/m.bin").unwrap(), b"4\n");
    assert_eq!(agents(scene.scratch().to_str().unwrap(), "supervise"), []);
    scene.assert_nothing_left();
}
