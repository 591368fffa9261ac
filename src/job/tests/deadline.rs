//! A run that ends before Pipelines kills its step.

use super::*;

/// From the call that never is answered to one that is slow.
const SLOW: [Duration; 4] =
    [Duration::MAX, Duration::from_hours(1), Duration::from_mins(2), Duration::from_secs(20)];
/// More than any run of these takes that has a deadline, and that would hang without one.
const HANGS: Duration = Duration::from_hours(2);

/// A run of which each step of the ending takes so long, and when it was over.
async fn slowly(fate: Fate, max_time: Duration, ending_takes: Duration) -> (Scene, Error, Duration) {
    let mut scene = Scene::new(&[fate], &[]);
    scene.max_time = Some(max_time);
    scene.fake.world.lock().unwrap().ending_takes = ending_takes;
    let start = Instant::now();
    let ended = tokio::time::timeout(HANGS, scene.train()).await;
    let error = ended.unwrap_or_else(|_| panic!("{fate:?} hangs where a call takes {ending_takes:?}"));
    (scene, error.err().unwrap(), start.elapsed())
}

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

#[tokio::test(start_paused = true)]
async fn the_run_ends_before_its_step_however_slow_the_provider_is() {
    for ending_takes in SLOW {
        // Work that ends when it is told to, and work that has to be given up in the last moments.
        for (fate, max_time) in
            [(Fate::GoesOn, Duration::from_mins(20)), (Fate::Trains, Duration::from_secs(40))]
        {
            let (scene, error, took) = slowly(fate, max_time, ending_takes).await;
            assert!(took < max_time, "{fate:?}, {ending_takes:?} a call: {took:?}");
            assert!(
                error.render().starts_with("the run ended itself because Pipelines"),
                "{}",
                error.render()
            );
            assert_eq!(scene.folder.path().join("clone/epoch").exists(), fate == Fate::GoesOn);
            let (ended, told) = ("terminate 0".to_owned(), "end 0".to_owned());
            let done = scene.fake.done();
            assert!(done.contains(&ended) || done.contains(&told), "{ending_takes:?} a call: {done:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_training_that_has_ended_leaves_time_to_publish_however_slow_the_provider_is() {
    let max_time = Duration::from_mins(3);
    let (scene, error, took) = slowly(Fate::Trains, max_time, Duration::MAX).await;
    // The training takes one minute, the machine's end half of what is left after it, the removal half of the
    // rest.
    assert!(took + Duration::from_secs(20) < max_time, "{took:?}");
    assert_eq!(
        error.render(),
        "the removal of what the machines shared is not confirmed, and Pipelines is about to kill the step\n\
         Still there: perhaps the machine m0; it ends itself within 10m\n\
         Next: look whether anything is left: ACTION: sweep removes it once the step is over"
    );
    assert_eq!(scene.fake.done().last().unwrap(), "end 0", "the machine is told to end itself");
}

/// Also where no deadline is known: the step may be killed at any time.
#[tokio::test(start_paused = true)]
async fn what_was_saved_is_in_the_clone_before_the_provider_is_asked_for_anything() {
    for (fate, max_restarts) in [(Fate::IsTaken, 0), (Fate::GoesOn, 3)] {
        let mut scene = Scene::new(&[fate], &[]);
        (scene.max_restarts, scene.max_cost) = (max_restarts, Some(5.0));
        scene.fake.world.lock().unwrap().ending_takes = Duration::MAX;
        assert!(tokio::time::timeout(HANGS, scene.train()).await.is_err(), "nothing bounds it");
        assert!(scene.folder.path().join("clone/epoch").exists(), "{fate:?}");
    }
}
