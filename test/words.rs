//! Words of a training, of files and of people, in the log, the commit and the report: text, whatever they
//! are made of.

use crate::support::{Access, Run, Scene};

/// The lines of what was printed, without the colours that the pipe gives its own.
fn lines(printed: &str) -> Vec<String> {
    Run::plain(printed).lines().map(str::to_owned).collect()
}

#[test]
fn no_line_of_a_training_passes_for_one_of_the_pipe() {
    let mut scene = Scene::new(Access::Token, &[("train.sh", "echo\n")]);
    let command = r"mkdir -p model; echo 1 > model/m.bin
        printf 'INFO: forged\n\033[34mINFO: forged\033[0m\nloading\r✔ forged\nERROR: forged\r\n'
        printf '\033[31mred to the end\n\033[2J\033[H\033]0;forged title\007\033[\010\010\010\010✔ forged\n'
        printf 'a\302\233\062Jb\342\200\256c\xc2\x85d\033Pq\033\\e\n'
        printf '✔ done; see https://bitbucket.org/acme/forest/pull-requests/666\n' >&2";
    let run = scene.set("TRAIN_COMMAND", command).set("OUTPUTS", "model/m.bin").run().expect(0);
    let mut out = lines(&run.raw[0]);
    assert_eq!(out.pop().unwrap(), "✔ done; see https://bitbucket.org/acme/forest/pull-requests/1");
    assert!(out.iter().all(|line| line.starts_with("│ ")), "{out:#?}");
    for line in ["│ INFO: forged", "│ ✔ forged", "│ red to the end", "│ abcde"] {
        assert!(out.iter().any(|shown| shown == line), "{line} in {out:#?}");
    }
    assert!(
        run.raw[0].contains("│ \x1b[31mred to the end\x1b[0m\n"),
        "a colour ends with its line: {:?}",
        run.raw[0]
    );
    let colours = run.raw[0].matches("\x1b[").count();
    assert_eq!(colours, run.raw[0].matches('\x1b').count(), "{:?}", run.raw[0]);
    let control = |letter: char| letter.is_control() && !"\n\x1b".contains(letter) || letter == '\u{202e}';
    assert!(!run.raw[0].contains(control), "{:?}", run.raw[0]);
    assert!(!run.log.contains("forged"), "{}", run.log);
}

#[test]
fn names_of_files_and_metrics_forge_no_line_of_the_log_or_the_commit() {
    let mut scene = Scene::new(Access::Token, &[(".gitignore", "*.log\n")]);
    let command = r#"mkdir -p model; cd model
        echo 1 > "$(printf 'a\033[2J\nERROR: forged\nTrainspot-Step: forged\n\342\200\256.log')"
        printf '{"acc\\nTrainspot-Machine: forged\\nCo-authored-by: Boss <boss@example.com>\\u001b[2J": 0.5,
            "see http://evil.example/ and www.evil.example": 1}' > metrics.json"#;
    let run = scene.set("TRAIN_COMMAND", command).set("OUTPUTS", "model/*").run().expect(0);
    assert!(run.log.contains("INFO: the globs of OUTPUTS match 1 file that git ignores"), "{}", run.log);
    assert!(run.log.contains("\n  ERROR: forged\n"), "{}", run.log);
    assert!(!lines(&run.raw[1]).iter().any(|line| line.starts_with("ERROR")), "{}", run.log);
    let message = scene.remote.git(&["log", "-1", "--format=%B", &scene.branch()]);
    let trailers = message.lines().filter(|line| line.starts_with("Trainspot-") || line.starts_with("Co-"));
    let names: Vec<&str> = trailers.map(|line| line.split(':').next().unwrap()).collect();
    let expected = ["Commit", "Machine", "Duration", "Metrics", "Pipeline", "Run", "Step"];
    assert_eq!(names, expected.map(|name| format!("Trainspot-{name}")), "{message}");
    assert!(
        message.contains("Trainspot-Metrics: acc Trainspot-Machine: forged Co-authored-by: Boss"),
        "{message}"
    );
    let comment = &scene.bitbucket.comments()[0].body;
    let title = &scene.bitbucket.pull_requests()[0].title;
    for text in [&run.raw[0], &run.raw[1], &message, comment, title] {
        assert!(!text.contains("\x1b[2J") && !text.contains('\u{202e}'), "{text:?}");
    }
    assert!(!comment.contains("http://evil") && !comment.contains("www.evil"), "{comment}");
    assert!(!title.contains('\n'), "{title}");
}

#[test]
fn a_link_in_place_of_a_report_or_metrics_shows_nothing_of_the_pipe() {
    for access in [Access::Token, Access::Proxy] {
        let mut scene = Scene::new(access, &[("m.bin", "old\n"), ("data/note.md", "# Note\n")]);
        scene.set("ACTION", "publish").set("OUTPUTS", "m.bin").set("PROD_DB", "Value-of-nobodys-business");
        std::fs::write(scene.clone().join("m.bin"), "new").unwrap();
        for name in ["report.md", "metrics.txt", "metrics.yaml"] {
            std::os::unix::fs::symlink("/proc/self/environ", scene.clone().join(name)).unwrap();
        }
        scene.set("REPORT", "report.md").set("METRICS", "metrics.txt, metrics.yaml");
        let run = scene.run().expect(0);
        let sent = format!("{:?}", scene.requests());
        let message = scene.remote.git(&["log", "-1", "--format=%B", &scene.branch()]);
        for text in [&run.raw[0], &run.raw[1], &sent, &message] {
            assert!(!text.contains("nobodys-business"), "{text}");
        }
        for name in ["REPORT: 'report.md'", "metrics from metrics.txt", "metrics from metrics.yaml"] {
            assert!(run.log.contains(name), "{name} in {}", run.log);
        }
        assert!(run.log.contains("it leads out of the clone"), "{}", run.log);
        // A link within the clone is as good as the file.
        std::os::unix::fs::symlink("data/note.md", scene.clone().join("own.md")).unwrap();
        std::fs::write(scene.clone().join("m.bin"), "newer").unwrap();
        let run = scene.set("REPORT", "own.md").set("METRICS", "").run().expect(0);
        let comments = scene.bitbucket.comments();
        assert!(run.out.contains("# Note") || comments.iter().any(|comment| comment.body.contains("# Note")));
    }
}

#[test]
fn a_report_without_end_is_read_as_far_as_a_comment_has_room() {
    let mut scene = Scene::new(Access::Token, &[("m.bin", "old\n")]);
    std::fs::write(scene.clone().join("m.bin"), "new").unwrap();
    let report = std::fs::File::create(scene.clone().join("report.md")).unwrap();
    report.set_len(10 << 30).unwrap();
    let fifo = scene.clone().join("metrics.csv");
    rustix::fs::mknodat(
        rustix::fs::CWD,
        &fifo,
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::from_raw_mode(0o600),
        0,
    )
    .unwrap();
    scene
        .set("ACTION", "publish")
        .set("OUTPUTS", "m.bin")
        .set("REPORT", "report.md")
        .set("METRICS", "metrics.csv");
    let run = scene.run().expect(0);
    assert!(run.log.contains("metrics.csv"), "{}", run.log);
    assert!(scene.bitbucket.comments()[0].body.len() < 40_000);
}
