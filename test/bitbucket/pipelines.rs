//! Pipelines: started once, watched, stopped, and their logs followed.

use super::{client, client_with};
use fake_bitbucket::{BareRepository, FakeBitbucket, Fault, Options, StepDefinition, Variable};
use std::time::Duration;
use trainspot_bitbucket::{
    Client, Credential, DueRun, NewPipelineRun, PipelineOutcome, PipelineProgress, PipelineTarget,
    PipelineVariable, status_of,
};

const PIPELINES: &str = "/pipelines";
const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

fn run(id: &str) -> NewPipelineRun {
    let variable =
        |key: &str, value: &str, secured| PipelineVariable { key: key.into(), value: value.into(), secured };
    NewPipelineRun {
        pipeline: "train it".into(),
        target: PipelineTarget::Branch { name: "main".into(), commit: Some(COMMIT.into()) },
        variables: vec![variable("EPOCHS", "10", false), variable("TOKEN", "s3cret", true)],
        id: id.into(),
    }
}

/// A fake whose repository has the pipeline `train it`: a step of Bitbucket's own, and one for a runner.
fn defined() -> FakeBitbucket {
    let fake = FakeBitbucket::start();
    let train = StepDefinition::new("Train", &["self.hosted", "linux.shell", "gpu.train"], &["true"]);
    fake.define_pipeline("train it", &[StepDefinition::new("Prepare", &[], &[]), train]);
    fake
}

async fn progress(client: &Client, uuid: &str) -> (PipelineProgress, Vec<PipelineProgress>) {
    let steps = client.steps(uuid).await.unwrap();
    (client.pipeline(uuid).await.unwrap().progress, steps.into_iter().map(|step| step.progress).collect())
}

#[tokio::test]
async fn a_pipeline_is_run_with_its_variables_and_watched_to_its_end() {
    let fake = defined();
    let runner = fake.add_runner("r", &["self.hosted", "linux.shell", "gpu.train", "big"], false);
    fake.set_runner(&runner, "ONLINE");
    let client = client(&fake);
    let pipeline = client.run_pipeline(&run("id-1")).await.unwrap();
    assert_eq!((pipeline.number, &pipeline.progress), (1, &PipelineProgress::Pending));
    assert_eq!(pipeline.url, "https://bitbucket.org/acme/forest/pipelines/results/1");
    let [known] = &*fake.pipelines() else { panic!("one pipeline") };
    assert_eq!(
        (&*known.pattern, &*known.branch, known.commit.as_deref()),
        ("train it", "main", Some(COMMIT))
    );
    let variable =
        |key: &str, value: &str, secured| Variable { key: key.into(), value: value.into(), secured };
    let expected = [
        variable("EPOCHS", "10", false),
        variable("TOKEN", "s3cret", true),
        variable("TRAINSPOT_RUN_ID", "id-1", false),
    ];
    assert_eq!(known.variables, expected);
    let states = progress(&client, &pipeline.uuid).await;
    assert_eq!(
        states,
        (PipelineProgress::Running, vec![PipelineProgress::Running, PipelineProgress::Pending])
    );
    let ids: Vec<String> = fake.steps().into_iter().map(|step| step.id).collect();
    fake.end_step(&ids[0], "SUCCESSFUL");
    let over = PipelineProgress::Over(PipelineOutcome::Successful);
    let states = progress(&client, &pipeline.uuid).await;
    assert_eq!(states, (PipelineProgress::Running, vec![over.clone(), PipelineProgress::Pending]));
    fake.end_step(&ids[1], "SUCCESSFUL");
    assert_eq!(progress(&client, &pipeline.uuid).await, (over.clone(), vec![over.clone(), over]));
    let names: Vec<_> =
        client.steps(&pipeline.uuid).await.unwrap().into_iter().map(|step| step.name).collect();
    assert_eq!(names, ["Prepare", "Train"]);
}

#[tokio::test]
async fn a_step_without_a_runner_fails_at_once_and_says_why() {
    let fake = defined();
    let elsewhere = fake.add_runner("r", &["self.hosted", "linux.shell", "cpu"], false);
    fake.set_runner(&elsewhere, "ONLINE");
    let client = client(&fake);
    let pipeline = client.run_pipeline(&run("id-1")).await.unwrap();
    fake.end_step(&fake.steps()[0].id, "SUCCESSFUL");
    let (whole, steps) = progress(&client, &pipeline.uuid).await;
    assert_eq!(whole, PipelineProgress::Over(PipelineOutcome::Error(String::new())));
    let PipelineProgress::Over(PipelineOutcome::Error(why)) = &steps[1] else { panic!("{steps:?}") };
    assert!(why.contains("gpu.train"), "{why}");
}

#[tokio::test]
async fn a_step_that_fails_ends_the_pipeline() {
    let fake = defined();
    let client = client(&fake);
    let pipeline = client.run_pipeline(&run("id-1")).await.unwrap();
    fake.end_step(&fake.steps()[0].id, "FAILED");
    let failed = PipelineProgress::Over(PipelineOutcome::Failed);
    let states = progress(&client, &pipeline.uuid).await;
    assert_eq!(states, (failed.clone(), vec![failed, PipelineProgress::Over(PipelineOutcome::NotRun)]));
}

#[tokio::test]
async fn a_lost_answer_does_not_start_a_second_pipeline() {
    let fake = defined();
    fake.next(Fault::on("POST", PIPELINES).drop_after_acting());
    fake.next(Fault::on("GET", PIPELINES).answer(502, "bad gateway"));
    let pipeline = client(&fake).run_pipeline(&run("id-1")).await.unwrap();
    assert_eq!((pipeline.number, fake.pipelines().len()), (1, 1));
    // A pipe that died and starts again finds it too; another run is another one.
    assert_eq!(client(&fake).run_pipeline(&run("id-1")).await.unwrap().number, 1);
    assert_eq!(client(&fake).run_pipeline(&run("id-2")).await.unwrap().number, 2);
    assert_eq!(client(&fake).run_pipeline(&run("id-1")).await.unwrap().number, 1);
}

#[tokio::test]
async fn where_bitbucket_does_not_tell_which_run_is_ours_no_second_one_is_started() {
    let fake = defined();
    let page = r#"{"values":[{"type":"pipeline","uuid":"{x}","build_number":4}]}"#;
    fake.next(Fault::on("GET", PIPELINES).answer(200, r#"{"values":[]}"#));
    fake.next(Fault::on("POST", PIPELINES).drop_after_acting());
    fake.next(Fault::on("GET", PIPELINES).answer(200, page));
    let error = client(&fake).run_pipeline(&run("id-1")).await.unwrap_err().render();
    assert!(error.contains("#4, https://bitbucket.org/acme/forest/pipelines/results/4"), "{error}");
    assert_eq!(fake.count("POST", PIPELINES), 1);
}

#[tokio::test]
async fn a_pipeline_or_branch_that_is_not_there_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let repository = BareRepository::create(&folder.path().join("forest.git"), 1);
    let fake = FakeBitbucket::serving(&repository);
    let error = client(&fake).run_pipeline(&run("id")).await.unwrap_err();
    assert_eq!(status_of(&error), Some(400));
    let text = error.render();
    assert!(text.contains("run the custom pipeline train it on main") && text.contains("selector"), "{text}");
    assert!(!text.contains("s3cret"), "{text}");
    let nowhere = PipelineTarget::Branch { name: "nowhere".into(), commit: None };
    let elsewhere = NewPipelineRun { target: nowhere, ..run("id") };
    let error = client(&fake).run_pipeline(&elsewhere).await.unwrap_err().render();
    assert!(error.contains("last reference for branch nowhere"), "{error}");
    let unknown = NewPipelineRun { target: PipelineTarget::Commit(COMMIT.into()), ..run("id") };
    let error = client(&fake).run_pipeline(&unknown).await.unwrap_err().render();
    assert!(error.contains(&format!("on the commit {COMMIT} in acme/forest")), "{error}");
    assert!(error.contains(&format!("find the commit {COMMIT}")), "{error}");
}

#[tokio::test]
async fn a_run_is_woken_at_its_commit_with_and_without_its_branch() {
    let folder = tempfile::tempdir().unwrap();
    let repository = BareRepository::create(&folder.path().join("forest.git"), 1);
    let fake = FakeBitbucket::serving(&repository);
    fake.define_pipeline("train it", &[StepDefinition::new("Train", &[], &[])]);
    let commit = repository.commit("topic", "m", &[("a", b"b")]);
    let client = client(&fake);
    let run = DueRun { id: "run-1", pipeline: "train it", commit: &commit, branch: Some("topic") };
    client.wake_run(&run).await.unwrap();
    repository.git(&["update-ref", "-d", "refs/heads/topic"]);
    client.wake_run(&run).await.unwrap();
    let alone = client.wake_run(&DueRun { branch: None, ..run }).await.unwrap();
    let known = fake.pipelines();
    let targets: Vec<_> = known.iter().map(|known| (&*known.branch, known.commit.as_deref())).collect();
    let commit = Some(&*commit);
    assert_eq!(targets, [("topic", commit), ("", commit), ("", commit)]);
    let run = Variable { key: "TRAINSPOT_RUN".into(), value: "run-1".into(), secured: false };
    assert!(known.iter().all(|known| known.variables[0] == run), "{known:?}");
    assert_eq!(client.custom_pipeline_name(&alone.uuid).await.unwrap().as_deref(), Some("train it"));
}

#[tokio::test]
async fn a_pipeline_is_told_by_the_name_of_its_definition() {
    let fake = defined();
    let client = client(&fake);
    let pipeline = client.run_pipeline(&run("id-1")).await.unwrap();
    assert_eq!(client.custom_pipeline_name(&pipeline.uuid).await.unwrap().as_deref(), Some("train it"));
    let pushed = r#"{"uuid":"{x}","target":{"selector":{"type":"branches","pattern":"main"}}}"#;
    fake.next(Fault::on("GET", PIPELINES).answer(200, pushed));
    assert_eq!(client.custom_pipeline_name("{x}").await.unwrap(), None);
    let error = client.custom_pipeline_name("{nothing}").await.unwrap_err();
    assert_eq!(status_of(&error), Some(404));
}

#[tokio::test]
async fn a_pipeline_is_stopped_once() {
    let fake = defined();
    let client = client(&fake);
    let pipeline = client.run_pipeline(&run("id-1")).await.unwrap();
    fake.next(Fault::on("POST", "/stopPipeline").drop_after_acting());
    client.stop_pipeline(&pipeline.uuid).await.unwrap();
    assert_eq!(
        client.pipeline(&pipeline.uuid).await.unwrap().progress,
        PipelineProgress::Over(PipelineOutcome::Stopped)
    );
    client.stop_pipeline(&pipeline.uuid).await.unwrap();
    let error = client.stop_pipeline("{nothing}").await.unwrap_err();
    assert_eq!(status_of(&error), Some(404));
    fake.next(Fault::on("POST", "/stopPipeline").answer(403, r#"{"error":"no"}"#));
    let error = client.stop_pipeline(&pipeline.uuid).await.unwrap_err().render();
    assert!(error.contains("the scope pipeline:write"), "{error}");
}

/// A pipeline with one step that runs, and the ids of both.
async fn running(fake: &FakeBitbucket) -> (String, String) {
    fake.define_pipeline("train it", &[StepDefinition::new("Train", &[], &[])]);
    let pipeline = client(fake).run_pipeline(&run("id-1")).await.unwrap();
    (pipeline.uuid, fake.steps()[0].id.clone())
}

#[tokio::test]
async fn a_log_is_followed_to_where_it_is_moved() {
    let fake = FakeBitbucket::start();
    let client = client(&fake);
    let (pipeline, step) = running(&fake).await;
    let tail = async |offset| client.log_from(&pipeline, &step, offset).await.unwrap().bytes;
    assert_eq!(tail(0).await, b"", "there is none yet");
    fake.write_log(&step, b"epoch 1\n");
    assert_eq!(tail(0).await, b"epoch 1\n");
    assert_eq!(tail(8).await, b"", "there is no more yet");
    fake.write_log(&step, b"epoch 2\n");
    assert_eq!(tail(8).await, b"epoch 2\n");
    fake.write_log(&step, b"done\n");
    fake.end_step(&step, "SUCCESSFUL");
    // The storage refuses whoever brings the token along.
    assert_eq!(tail(16).await, b"done\n");
    assert_eq!(tail(21).await, b"");
    assert_eq!(tail(0).await, b"epoch 1\nepoch 2\ndone\n");
}

#[tokio::test]
async fn a_long_log_comes_in_pieces() {
    let fake = FakeBitbucket::start();
    let client = client(&fake);
    let (pipeline, step) = running(&fake).await;
    let log: Vec<u8> = (0..400_000_u32).flat_map(|number| format!("{number:07}\n").into_bytes()).collect();
    fake.write_log(&step, &log);
    let (mut read, mut pieces) = (Vec::new(), 0);
    loop {
        // One answer is lost on the way.
        if pieces == 1 {
            fake.next(Fault::on("GET", "/log").cut_answer_after(100_000));
        }
        let tail = client.log_from(&pipeline, &step, read.len() as u64).await.unwrap();
        read.extend_from_slice(&tail.bytes);
        pieces += 1;
        if !tail.more {
            break;
        }
    }
    assert!(read == log, "{} of {} bytes", read.len(), log.len());
    assert_eq!(pieces, 4, "3.2 MB in pieces of 1 MiB");
}

#[tokio::test]
async fn a_server_that_knows_no_ranges_is_understood() {
    let fake = FakeBitbucket::start();
    let client = client(&fake);
    let (pipeline, step) = running(&fake).await;
    fake.next(Fault::on("GET", "/log").answer(200, "epoch 1\nepoch 2\n"));
    assert_eq!(client.log_from(&pipeline, &step, 8).await.unwrap().bytes, b"epoch 2\n");
}

#[tokio::test]
async fn a_log_that_cannot_be_had_says_why() {
    let fake = FakeBitbucket::start();
    let (pipeline, step) = running(&fake).await;
    fake.write_log(&step, b"x");
    let wrong = client_with(&fake, Credential::AccessToken("wrong".into()));
    let error = wrong.log_from(&pipeline, &step, 0).await.unwrap_err();
    assert_eq!(status_of(&error), Some(401));
    fake.next(Fault::on("GET", "/log").answer(307, "").header("Location", "ftp://elsewhere.example/log"));
    let error = client(&fake).log_from(&pipeline, &step, 0).await.unwrap_err().render();
    assert!(error.contains("moved the log to no address"), "{error}");
    fake.next(Fault::on("GET", "/log").answer(503, "down").times(9));
    let error = client(&fake).log_from(&pipeline, &step, 0).await.unwrap_err();
    assert_eq!(status_of(&error), Some(503));
}

#[tokio::test]
async fn a_runner_that_falls_silent_loses_its_step() {
    let fake =
        FakeBitbucket::start_with(Options { silence: Duration::from_millis(200), ..Options::default() });
    let runner = fake.add_runner("r", &["self.hosted", "linux"], false);
    fake.set_runner(&runner, "ONLINE");
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(fake.runners()[0].status, "OFFLINE");
}
