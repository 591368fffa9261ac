//! A run that ends before Pipelines kills its step.

use super::*;

#[tokio::test(start_paused = true)]
async fn the_run_ends_with_a_checkpoint_before_pipelines_kills_the_step() {
    let mut scene = Scene::new(&[Fate::GoesOn], &[]);
    scene.max_time = Some(Duration::from_mins(20));
    let start = Instant::now();
    let error = scene.train().await.err().unwrap();
    // Four minutes before.
    assert!((960..980).contains(&start.elapsed().as_secs()), "{:?}", start.elapsed());
    assert!(error.render().starts_with("the run ended itself because Pipelines"), "{}", error.render());
    assert_eq!(error.exit_kind(), Kind::Training);
    assert!(scene.folder.path().join("clone/epoch").exists());
    assert_eq!(scene.fake.done().last().unwrap(), "clean");
}

#[tokio::test(start_paused = true)]
async fn work_that_does_not_end_before_the_step_is_given_up() {
    let mut scene = Scene::new(&[Fate::Trains], &[]);
    scene.max_time = Some(Duration::from_secs(40));
    let start = Instant::now();
    let error = scene.train().await.err().unwrap();
    assert!((36..40).contains(&start.elapsed().as_secs()), "{:?}", start.elapsed());
    assert!(scene.fake.world.lock().unwrap().servers[0].leaving.is_some(), "it was told to end");
    assert!(error.render().contains("its max-time is 40s"), "{}", error.render());
    assert_eq!(scene.fake.done().last().unwrap(), "clean");
}

#[tokio::test(start_paused = true)]
async fn a_machine_is_lost_for_good_when_the_step_is_nearly_over() {
    let mut scene = Scene::new(&[Fate::IsReclaimed, Fate::Trains], &[]);
    scene.max_time = Some(Duration::from_secs(12));
    let error = scene.train().await.err().unwrap();
    assert!(error.render().contains("its max-time is 12s"), "{}", error.render());
    assert_eq!(scene.fake.world.lock().unwrap().servers.len(), 1, "no machine that could do nothing");
}
