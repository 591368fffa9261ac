//! A machine's own word does not make it free, and does not keep it beyond `MAX_COST`. Each costs a dollar a
//! minute.

use super::*;

fn total(finished: &FinishedJob<Trained<()>>) -> f64 {
    finished.cost.unwrap().total()
}

#[tokio::test(start_paused = true)]
async fn a_machine_that_only_says_that_it_is_taken_is_paid_for() {
    let scene = Scene::new(&[Fate::LiesOfItsEnd, Fate::Trains], &[]);
    let trained = scene.train().await.ok().unwrap();
    assert_eq!(trained.restarts, 1);
    // A minute and a half, of which the next one trains for a minute: the run's end ends both.
    assert!((2.7..3.1).contains(&total(&trained)), "{:?}", trained.cost);
}

#[tokio::test(start_paused = true)]
async fn a_machine_that_is_not_taken_is_ended_while_the_next_one_works() {
    let scene = Scene::new(&[Fate::LiesOfItsEnd, Fate::OnDemand], &[]);
    let trained = scene.train().await.ok().unwrap();
    // Half a minute of training and three of waiting; and ten of the machine that trains to the end, after
    // its boot.
    assert!((13.7..14.5).contains(&total(&trained)), "{:?}", trained.cost);
    // The run's end makes sure.
    let ends = scene.fake.done().iter().filter(|done| *done == "terminate 0").count();
    assert_eq!(ends, 2, "{:?}", scene.fake.done());
}

#[tokio::test(start_paused = true)]
async fn machines_that_say_that_they_are_taken_over_and_over_reach_max_cost() {
    let mut scene = Scene::new(&[Fate::LiesOfItsEnd; 40], &[]);
    scene.max_cost = Some(5.0);
    let shown = scene.train().await.err().unwrap().render();
    assert!(shown.starts_with("the run was ended because it reached MAX_COST: about $"), "{shown}");
    let launched = scene.fake.world.lock().unwrap().servers.len();
    assert!((3..8).contains(&launched), "{launched}");
    assert!(scene.fake.find(&RunId::new(&[])).await.unwrap().is_empty());
}

#[tokio::test(start_paused = true)]
async fn machines_that_are_taken_do_not_reach_max_cost() {
    let mut fates = vec![Fate::IsTaken; 12];
    fates.push(Fate::Trains);
    let mut scene = Scene::new(&fates, &[]);
    // Three at a time may not be known to be free yet.
    scene.max_cost = Some(3.0);
    let trained = scene.train().await.ok().unwrap();
    assert!((0.9..1.5).contains(&total(&trained)), "{:?}", trained.cost);
}

#[tokio::test(start_paused = true)]
async fn work_that_does_not_end_at_max_cost_is_ended_with_its_machine() {
    let never = async || std::future::pending::<Result<()>>().await;
    for fate in [Fate::HeedsNothing, Fate::Trains] {
        let mut scene = Scene::new(&[fate], &[]);
        (scene.max_cost, scene.max_runtime) = (Some(5.0), Duration::from_hours(3));
        let start = Instant::now();
        let error = scene.run(never).await.err().unwrap();
        // Five minutes until the limit, and half an hour for the training to end and its outputs to arrive.
        assert!((2095..2130).contains(&start.elapsed().as_secs()), "{:?}", start.elapsed());
        let shown = error.render();
        assert!(shown.starts_with("the run was ended because it reached MAX_COST: about $35."), "{shown}");
        assert!(shown.contains("the work did not end within 30m of that"), "{shown}");
        assert_eq!(error.exit_kind(), Kind::Training);
        let done = scene.fake.done();
        assert_eq!(done[done.len() - 2..], ["terminate 0", "clean"], "{done:?}");
    }
}
