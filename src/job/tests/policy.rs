//! How often machines are replaced, and when one on demand is left for a spot machine.

use super::*;

#[tokio::test(start_paused = true)]
async fn a_run_that_gets_on_is_restarted_as_often_as_it_is_interrupted() {
    let mut fates = vec![Fate::IsTaken; 12];
    fates.push(Fate::Trains);
    let mut scene = Scene::new(&fates, &[]);
    scene.max_restarts = 1;
    let trained = scene.train().await.ok().unwrap();
    assert_eq!(trained.restarts, 12);
    assert_eq!(trained.done.losses.repeated, Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn a_run_that_gets_nowhere_ends() {
    let mut scene = Scene::new(&[Fate::IsReclaimed; 9], &[]);
    scene.max_restarts = 4;
    let error = scene.train().await.err().unwrap();
    let shown = error.render();
    let expected =
        "the machine was lost, after 4 restarts in a row without a newer checkpoint: no spot capacity";
    assert!(shown.starts_with(expected), "{shown}");
    assert_eq!(scene.fake.world.lock().unwrap().servers.len(), 5);
    // Two that end without a newer checkpoint, and one with it, again and again.
    let row = [Fate::IsReclaimed, Fate::IsReclaimed, Fate::IsTaken];
    let mut fates = row.repeat(4);
    fates.push(Fate::Trains);
    let mut scene = Scene::new(&fates, &[]);
    scene.max_restarts = 3;
    assert_eq!(scene.train().await.ok().unwrap().restarts, 12);
}

#[tokio::test(start_paused = true)]
async fn max_runtime_ends_a_run_that_gets_on() {
    let scene = Scene::new(&[Fate::IsTaken; 40], &[]);
    let error = scene.train().await.err().unwrap();
    // Ten minutes of training, half a minute at a time.
    assert!(
        error.render().starts_with("the machine was lost, and MAX_RUNTIME is used up"),
        "{}",
        error.render()
    );
    assert!((18..24).contains(&scene.fake.world.lock().unwrap().servers.len()));
}

#[tokio::test(start_paused = true)]
async fn a_machine_that_is_taken_while_it_boots_is_replaced_and_free() {
    let fates = [Fate::IsTakenAtBoot, Fate::IsTakenAtBoot, Fate::IsTakenAtBoot, Fate::Trains];
    let scene = Scene::new(&fates, &[]);
    let trained = scene.train().await.ok().unwrap();
    assert_eq!(trained.restarts, 0, "no training was begun again");
    let done = scene.fake.done();
    let launches: Vec<&String> = done.iter().filter(|done| done.starts_with("launch")).collect();
    assert_eq!(launches[3], "launch 3 not [\"t0\", \"t1\", \"t2\"]");
    // What its provider takes within the hour is free, unless we end it: that comes last.
    assert!(
        done.iter().position(|done| done == "terminate 0") > done.iter().position(|done| done == "commit 3")
    );
    // A dollar a minute, for the one that trained.
    assert!((0.9..1.3).contains(&trained.cost.unwrap().total()), "{:?}", trained.cost);

    for (max_restarts, launched) in [(0, 2), (2, 3)] {
        let mut scene = Scene::new(&[Fate::IsTakenAtBoot; 9], &[]);
        scene.max_restarts = max_restarts;
        let shown = scene.train().await.err().unwrap().render();
        assert!(shown.contains("was taken away while it booted: no spot capacity"), "{shown}");
        assert_eq!(scene.fake.world.lock().unwrap().servers.len(), launched, "{max_restarts}");
    }
}

fn going_back(fates: &[Fate], failing: &[&'static str]) -> Scene {
    Scene { returns_to_spot: true, ..Scene::new(fates, failing) }
}

#[tokio::test(start_paused = true)]
async fn a_machine_on_demand_is_left_for_spot_after_a_checkpoint() {
    let scene = going_back(&[Fate::OnDemand, Fate::Trains], &[]);
    let start = Instant::now();
    let trained = scene.train().await.ok().unwrap();
    assert_eq!(
        scene.fake.done(),
        [
            "launch 0 not []",
            "unpack 0",
            "commit 0",
            "launch 1 spot now",
            // Nobody takes it away: it costs until it is ended.
            "terminate 0",
            "unpack 1",
            "commit 1",
            "unpack 1",
            "terminate 0",
            "terminate 1",
            "clean",
        ]
    );
    assert!(scene.resumed(1), "it goes on from the last checkpoint");
    // A hundred seconds to the first checkpoint, and the minute of the second machine.
    assert!((160..190).contains(&start.elapsed().as_secs()), "{:?}", start.elapsed());
    assert_eq!((trained.restarts, trained.done.losses.repeated), (0, Duration::ZERO));
}

#[tokio::test(start_paused = true)]
async fn spot_is_looked_for_again_and_a_machine_that_does_not_come_up_changes_nothing() {
    let scene = going_back(&[Fate::OnDemand, Fate::NeverBoots, Fate::Trains], &["spot now"]);
    let trained = scene.train().await.ok().unwrap();
    let done = scene.fake.done();
    let looks = done.iter().filter(|done| done.ends_with("spot now")).count();
    assert_eq!(looks, 3, "{done:?}");
    assert!(scene.resumed(2) && trained.restarts == 0);
    assert!(scene.fake.find(&RunId::new(&[])).await.unwrap().is_empty(), "{done:?}");
}

#[tokio::test(start_paused = true)]
async fn a_machine_on_demand_is_kept_where_it_is_no_stopgap() {
    let scene = Scene::new(&[Fate::OnDemand, Fate::Trains], &[]);
    assert!(scene.train().await.is_ok());
    assert_eq!(scene.fake.world.lock().unwrap().servers.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_training_that_ends_meanwhile_leaves_no_machine() {
    let scene = going_back(&[Fate::OnDemand, Fate::BootsSlowly], &[]);
    let trained = scene.train().await.ok().unwrap();
    assert_eq!(trained.machine.id, "m0");
    let done = scene.fake.done();
    assert!(
        done.contains(&"launch 1 spot now".to_owned()) && done.contains(&"terminate 1".to_owned()),
        "{done:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn no_spot_machine_is_rented_for_a_run_that_cost_what_it_may() {
    let mut scene = going_back(&[Fate::OnDemand, Fate::Trains], &[]);
    scene.max_cost = Some(1.0);
    let error = scene.train().await.err().unwrap();
    assert!(
        error.render().starts_with("the run was ended because it reached MAX_COST"),
        "{}",
        error.render()
    );
    assert_eq!(scene.fake.world.lock().unwrap().servers.len(), 1);
}
