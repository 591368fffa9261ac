//! Attacks that somebody would think of, each over a whole run.

use crate::plan::{Attack, Plan};
use crate::run::{Hostile, Outcome};
use crate::support::{exists, say};

pub(crate) const TESTS: [(&str, fn()); 11] = [
    ("outputs_that_were_not_asked_for_do_not_arrive", outputs_that_were_not_asked_for_do_not_arrive),
    ("pointers_among_the_outputs_are_refused", pointers_among_the_outputs_are_refused),
    ("a_checkpoint_of_other_files_is_not_rescued", a_checkpoint_of_other_files_is_not_rescued),
    (
        "a_checkpoint_that_the_training_forged_is_not_rescued",
        a_checkpoint_that_the_training_forged_is_not_rescued,
    ),
    ("a_rescue_replaces_nothing_that_was_not_asked_for", a_rescue_replaces_nothing_that_was_not_asked_for),
    ("an_endless_state_ends_the_run", an_endless_state_ends_the_run),
    ("an_endless_answer_about_dvc_ends_the_run", an_endless_answer_about_dvc_ends_the_run),
    ("a_list_without_end_takes_no_memory", a_list_without_end_takes_no_memory),
    ("a_stream_that_inflates_takes_no_memory", a_stream_that_inflates_takes_no_memory),
    ("shouting_and_a_log_without_end_take_no_memory", shouting_and_a_log_without_end_take_no_memory),
    ("a_machine_that_falls_silent_is_given_up", a_machine_that_falls_silent_is_given_up),
];
const FOR_EVER: usize = 1 << 30;
const FLOOD_BYTES: u64 = 600 << 20;

fn plan(verb: &str, attack: Attack) -> Plan {
    Plan { verb: verb.to_owned(), calls: (1, FOR_EVER), attack }
}

fn extended(verb: &str, files: &[&str]) -> Plan {
    let files = files.iter().map(|path| ((*path).to_owned(), "evil\n".to_owned())).collect();
    plan(verb, Attack::Extended(files))
}

fn tell(when: &str, outcome: &Outcome) {
    let last = outcome.said.lines().rfind(|line| line.starts_with('✖') || line.starts_with('✔'));
    say(&format!("{when}: code {}, {} KiB: {}", outcome.code, outcome.peak_kib, last.unwrap_or_default()));
}

/// Runs it, and fails unless the attack took place, and the run ended with this code and these words.
fn expect(when: &str, hostile: &Hostile, code: i32, words: &str) -> Outcome {
    let outcome = hostile.run(when);
    tell(when, &outcome);
    assert!(!outcome.done.is_empty(), "{when}: the attack did not take place\n{}", outcome.said);
    assert_eq!(outcome.code, code, "{when}: {}", outcome.said);
    assert!(outcome.said.contains(words), "{when}: {}", outcome.said);
    outcome
}

fn outputs_that_were_not_asked_for_do_not_arrive() {
    for path in ["deploy.sh", "bitbucket-pipelines.yml", "model/m.bin.sh", "new.sh", "../evil"] {
        let hostile = Hostile::new(&extended("pack", &[path]), 0);
        expect(path, &hostile, 4, &format!("refused to write '{path}'"));
        assert!(!exists(hostile.scene.clone().join("model/m.bin")), "{path}: part of it was taken");
    }
}

fn pointers_among_the_outputs_are_refused() {
    for path in ["model/m.bin.dvc", ".dvc/config", ".gitignore", "dvc.lock"] {
        let hostile = Hostile::new(&extended("pack", &[path]), 0);
        expect(path, &hostile, 4, &format!("refused to write '{path}': the machine was not asked for it"));
    }
}

fn a_checkpoint_of_other_files_is_not_rescued() {
    let hostile = Hostile::new(&extended("pack-checkpoint", &["deploy.sh"]), 3);
    expect("deploy.sh", &hostile, 4, "refused to write 'deploy.sh': the machine was not asked for it");
    assert!(!exists(hostile.scene.clone().join("state")), "part of it was taken");
}

/// The agent is the real one: what it sends, the training made.
fn a_checkpoint_that_the_training_forged_is_not_rescued() {
    let entry = r#"{"path":"deploy.sh","kind":{"file":{"bytes":5,"executable":true}}}"#;
    let hash = blake3::hash(b"evil\n").to_hex();
    let no_hash = format!(r#"{{"entries":[{entry}],"hashes":[]}}"#);
    let twice = format!(r#"{{"entries":[{entry},{entry}],"hashes":["{hash}","{hash}"]}}"#);
    let proved = format!(r#"{{"entries":[{entry}],"hashes":["{hash}"]}}"#);
    for (manifest, why) in [
        (no_hash, "its manifest has 1 entries, but 0 hashes"),
        (twice, "its manifest names 'deploy.sh' twice"),
        (proved, "refused to write 'deploy.sh': the machine was not asked for it"),
    ] {
        let mut hostile = Hostile::new(&plan("none", Attack::Hangs), 3);
        let forge = format!(
            "mkdir -p ../checkpoints/99/files; echo evil > ../checkpoints/99/files/deploy.sh; \
             printf '%s' '{manifest}' > ../checkpoints/99/manifest.json; sleep 8; exit 3"
        );
        hostile.scene.set("TRAIN_COMMAND", &forge);
        let outcome = hostile.run(why);
        tell(why, &outcome);
        assert!(outcome.code == 4 && outcome.said.contains(why), "{why}: {}", outcome.said);
    }
}

fn a_rescue_replaces_nothing_that_was_not_asked_for() {
    for push in [false, true] {
        let files = ["deploy.sh", "bitbucket-pipelines.yml", ".envrc", ".dvc/config.local", "dvc.yaml"];
        let mut hostile = Hostile::new(&extended("rescue", &files), 0).with_dvc();
        // A remote in which nothing can be written.
        std::fs::write(hostile.scene.folder.path().join("store"), "a file, no folder").unwrap();
        if push {
            hostile.scene.set("DVC_PUSH", "true");
        }
        let (code, words) = if push {
            (5, "Still there: 1 file that DVC was to keep")
        } else {
            (5, "refused to write 'deploy.sh'")
        };
        expect(&format!("push {push}"), &hostile, code, words);
        assert_eq!(exists(hostile.scene.clone().join("data/d.bin")), push);
    }
}

fn an_endless_state_ends_the_run() {
    let endless =
        [Attack::Floods("x".to_owned(), FLOOD_BYTES), Attack::Floods("{\"status\":".to_owned(), FLOOD_BYTES)];
    for attack in endless {
        // Not the first call: there is a machine by then.
        let hostile = Hostile::new(&Plan { calls: (4, FOR_EVER), ..plan("ask", attack) }, 0);
        expect("state", &hostile, 3, "the machine's answer is longer than 1.00 MiB");
    }
}

fn an_endless_answer_about_dvc_ends_the_run() {
    for text in ["\n", "{\"changes\":[],\"warnings\":[\"\",", "[[[["] {
        let hostile = Hostile::new(&plan("dvc", Attack::Floods(text.to_owned(), FLOOD_BYTES)), 0).with_dvc();
        expect("dvc", &hostile, 1, "the machine's answer is longer than 4.00 MiB");
    }
}

fn a_list_without_end_takes_no_memory() {
    let link = r#"{"path":"a","kind":{"link":{"target":"b"}}}"#;
    let bytes = format!(r#"{{"path":[{}1],"kind":{{"link":{{"target":"b"}}}}}}"#, "7,".repeat(2000));
    let word = format!(r#"{{"path":"a","kind":"{}"}}"#, "A".repeat(15 << 20));
    for (item, count) in [
        (link, 300_000),
        (link, 1_400_000),
        ("[[[[[[[[", 1_000_000),
        (&bytes, 4000),
        (&bytes, 16_000),
        (&word, 0),
    ] {
        let hostile = Hostile::new(&plan("pack", Attack::Lists(item.to_owned(), count)), 0);
        expect(&format!("{count} of {item:.20}"), &hostile, 4, "");
    }
}

fn a_stream_that_inflates_takes_no_memory() {
    for verb in ["pack", "pack-checkpoint"] {
        let hostile = Hostile::new(&plan(verb, Attack::Inflates), if verb == "pack" { 0 } else { 3 });
        let outcome =
            expect(verb, &hostile, if verb == "pack" { 1 } else { 4 }, "the stream of files ended early");
        assert!(outcome.said.contains("requires too much memory"), "{}", outcome.said);
    }
}

fn shouting_and_a_log_without_end_take_no_memory() {
    for verb in ["ask", "pack", "pack-checkpoint"] {
        let hostile = Hostile::new(&plan(verb, Attack::Shouts(20 << 20)), 0);
        expect(&format!("shouting {verb}"), &hostile, 0, "done; see");
    }
    let line = "ERROR: forged ".repeat(20) + "\n";
    for (text, mib) in [("x", 100), ("\x1b[", 100), ("\r", 20), (line.as_str(), 30)] {
        let flood = Attack::Floods(text.to_owned(), mib << 20);
        let hostile = Hostile::new(&Plan { calls: (1, 1), ..plan("follow", flood) }, 0);
        expect(&format!("a log of {:?}", &text[..1]), &hostile, 0, "done; see");
    }
}

fn a_machine_that_falls_silent_is_given_up() {
    let hostile = Hostile::new(&Plan { calls: (4, FOR_EVER), ..plan("ask", Attack::Hangs) }, 0);
    // Either side gives the other up: the supervisor hears nothing, either.
    expect("silence", &hostile, 3, "the machine was lost");
}
