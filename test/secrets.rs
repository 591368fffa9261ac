//! Secrets of the pipe and of a training: searched for wherever a training, a reader of the log, or a reader
//! of the repository could find them.

use crate::forms::{assert_without, forms};
use crate::support::{Access, Run, Scene, say};
use fake_bitbucket::ACCESS_TOKEN;
use std::collections::BTreeMap;
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use trainspot::config::variables::VARIABLE_TABLE;

/// What a training can try: it reads what the kernel shows of each process of its user's, and each file of
/// the machine's folder.
const LOOK: &str = r#"cd "$WHERE"
    look() { cat "$1" >> "$2" 2>> refused; }
    for process in /proc/[0-9]*; do
        grep -q "^Uid:[[:space:]]*$(id -u)[[:space:]]" $process/status 2>> refused || continue
        look $process/cmdline arguments
        test $process = /proc/$$ || look $process/environ environments
        for file in $process/fd/*; do test -h "$file" && echo "$file $(readlink "$file")" >> files; done
    done
    above=$PPID
    while test "$above" -gt 1; do
        echo "$above" "$(tr '\0' ' ' < /proc/$above/cmdline)" >> above
        for what in environ mem fd/0 maps; do
            (exec < /proc/$above/$what) 2>> refused && echo "$above $what" >> open
        done
        above=$(sed -n 's/^PPid:[[:space:]]*//p' /proc/$above/status)
    done
    (exec < /proc/$$/environ) && (exec < /proc/$$/mem) && echo own >> own
    find "$MACHINE" -type f -exec cat {} + >> disk
    ulimit -c > core"#;

/// A scene whose training looks around, and the folder to which it writes what it saw.
fn looking(scene: &mut Scene, then: &str) -> std::path::PathBuf {
    let place = scene.scratch().join("seen");
    std::fs::create_dir(&place).unwrap();
    scene.set("TRAIN_COMMAND", &format!("set +e\n( {LOOK} )\n{then}\nmkdir -p model; echo 1 > model/m.bin"));
    scene.set("TRAIN_ENV_COUNT", "3").set("TRAIN_ENV_0", &format!("WHERE={}", place.display()));
    scene.set("TRAIN_ENV_1", &format!("MACHINE={}", scene.scratch().display()));
    scene.set("TRAIN_ENV_2", "WANDB_API_KEY").set("WANDB_API_KEY", "Zq7pLk29mWcXy4vB-of-the-training");
    scene.set("OUTPUTS", "model/m.bin");
    place
}

fn read(place: &Path, name: &str) -> String {
    String::from_utf8_lossy(&std::fs::read(place.join(name)).unwrap_or_default()).into_owned()
}

#[test]
fn no_process_above_a_training_shows_it_its_memory() {
    let mut scene = Scene::new(Access::Token, &[("train.sh", "echo\n")]);
    let place = looking(&mut scene, "");
    Run::from(scene.as_somebody().output().unwrap()).expect(0);
    let above = read(&place, "above");
    assert!(above.contains(" agent supervise "), "the supervisor is above the training: {above}");
    let pipe = above.lines().any(|line| line.trim_end().ends_with("trainspot") && !line.contains("agent"));
    assert!(pipe, "and so is the pipe: {above}");
    let own: Vec<&str> = above.lines().filter(|line| line.contains("trainspot")).collect();
    let pids: Vec<&str> = own.iter().filter_map(|line| line.split(' ').next()).collect();
    let open = read(&place, "open");
    let found: Vec<&str> =
        open.lines().filter(|line| pids.iter().any(|pid| line.split(' ').next() == Some(pid))).collect();
    assert!(found.is_empty(), "{found:?} of {own:#?}");
    assert!(!read(&place, "environments").contains(ACCESS_TOKEN));
    // The training itself is as it always was: it can be traced, and its limits are those of the step.
    assert_eq!(read(&place, "own"), "own\n");
    let limit = Command::new("sh").args(["-c", "ulimit -c"]).output().unwrap();
    assert_eq!(read(&place, "core").as_bytes(), limit.stdout);
}

#[test]
fn a_pipe_that_crashes_leaves_no_core() {
    let mut scene = Scene::new(Access::Token, &[("train.sh", "echo\n")]);
    scene.set("TRAIN_COMMAND", "echo ready; sleep 600").set("OUTPUTS", "m.bin");
    let pipe = scene.command();
    let variables = pipe.get_envs().filter_map(|(name, value)| Some((name, value?)));
    let mut limited = Command::new("/bin/sh");
    limited.args(["-c", "ulimit -c unlimited; exec \"$0\"", env!("CARGO_BIN_EXE_trainspot")]);
    limited
        .env_clear()
        .envs(variables)
        .current_dir(scene.clone())
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    let mut pipe = limited.spawn().unwrap();
    let mut out = std::io::BufReader::new(pipe.stdout.take().unwrap());
    let mut line = String::new();
    while !line.ends_with("ready\n") {
        assert!(std::io::BufRead::read_line(&mut out, &mut line).unwrap() > 0, "it ended: {line}");
    }
    let pid = rustix::process::Pid::from_child(&pipe);
    rustix::process::kill_process(pid, rustix::process::Signal::ABORT).unwrap();
    let status = pipe.wait().unwrap();
    assert_eq!((status.signal(), status.core_dumped()), (Some(6), false));
    let home = walkdir::WalkDir::new(scene.scratch()).max_depth(1).into_iter().flatten();
    let home = home.map(|item| item.path().join("run")).find(|run| run.is_dir()).unwrap();
    // Its machine ends with it, as it has nobody to train for.
    let home = trainspot_agent::Home::new(home.parent().unwrap().to_owned());
    while trainspot_agent::end_all(&home) {
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
}

/// Where `/proc` hides what a user may not trace, as on the hosts of many universities, a closed agent would
/// be hidden from its pipe.
#[test]
fn a_machine_is_found_where_the_system_hides_processes() {
    let mut scene = Scene::new(Access::Token, &[("train.sh", "echo\n")]);
    let user = scene.somebody;
    let hidden = format!(
        "mount -t proc -o hidepid=2 proc /proc && exec setpriv --reuid {user} --regid {user} --clear-groups \"$0\""
    );
    let there = Command::new("unshare").args(["--mount", "sh", "-c", &hidden, "true"]).output();
    if !there.is_ok_and(|output| output.status.success()) {
        return skip::skip("a /proc of its own cannot be mounted here");
    }
    scene.set("TRAIN_COMMAND", "echo 1 > m.bin").set("OUTPUTS", "m.bin").set("PUBLISH", "none");
    let somebody = scene.as_somebody();
    let variables = somebody.get_envs().filter_map(|(name, value)| Some((name, value?)));
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c", &hidden]).arg(somebody.get_program());
    command.env_clear().envs(variables).current_dir(scene.clone());
    Run::from(command.output().unwrap()).expect(0);
}

/// Every variable that is secret by the table or by its name, each with a value of its own.
fn planted() -> BTreeMap<String, String> {
    let of_the_table = VARIABLE_TABLE.iter().filter(|variable| variable.secret).map(|variable| variable.name);
    let others = [
        "PIPELINES_JWT_TOKEN",
        "BITBUCKET_STEP_OIDC_TOKEN",
        "AWS_SESSION_TOKEN",
        "AZURE_STORAGE_CONNECTION_STRING",
        "GDRIVE_CREDENTIALS_DATA",
        "GOOGLE_APPLICATION_CREDENTIALS",
        "OSS_ACCESS_KEY_SECRET",
        "SSH_PRIVATE_KEY",
        "PROD_DB_PASSWORD",
    ];
    let names = of_the_table.chain(others);
    names
        .zip(10..)
        .map(|(name, number)| (name.to_owned(), format!("p1aNted/{number}+Va1ue={number}-Xy7Q")))
        .collect()
}

#[test]
fn no_secret_is_anywhere_but_where_it_belongs() {
    let mut scene = Scene::new(Access::Token, &[("train.sh", "echo\n")]);
    // The training shows its own secret in every way in which a shell can.
    let show = r##"printf %s "$WANDB_API_KEY" > key; cat key; echo
        base64 key; base64 -w 16 key; (printf 'x-token-auth:'; cat key) | base64 -w 20; base64 -w 64 key
        od -An -v -tx1 key | tr -d ' \n'; echo; od -An -v -tx1 key | tr -d ' \n' | tr a-f A-F; echo
        od -An -v -tx1 key | tr -d ' \n' | fold -w 30; fold -w 16 key; echo
        printf '{"key": "%s"}\n' "$WANDB_API_KEY"; rm key
        echo "# note $WANDB_API_KEY" > report.md; printf '{"accuracy": "%s"}' "$WANDB_API_KEY" > metrics.json"##;
    let place = looking(&mut scene, show);
    scene
        .set("REPORT", "report.md")
        .set("METRICS", "metrics.json")
        .set("OUTPUTS", "model/m.bin, report.md, metrics.json");
    let mut secrets = planted();
    // Two would be no configuration: the address goes with a token of its own.
    secrets.remove("ATLASSIAN_API_TOKEN");
    secrets.insert("BITBUCKET_ACCESS_TOKEN".to_owned(), ACCESS_TOKEN.to_owned());
    for (name, value) in &secrets {
        scene.set(name, value);
    }
    scene.set("DEBUG", "true");
    scene.set("OUTPUTS", "model/m.bin");
    let run = Run::from(scene.as_somebody().output().unwrap()).expect(0);
    // What is the pipe's own is nowhere; what is the training's is with the training alone.
    for name in ["arguments", "environments", "disk", "files"] {
        assert_without(&read(&place, name), &secrets, name);
    }
    let own = BTreeMap::from([("WANDB_API_KEY".to_owned(), "Zq7pLk29mWcXy4vB-of-the-training".to_owned())]);
    assert_without(&read(&place, "arguments"), &own, "arguments");
    let all: BTreeMap<_, _> =
        secrets.iter().chain(&own).map(|(name, value)| (name.clone(), value.clone())).collect();
    let mut requests = scene.requests();
    for request in &mut requests {
        request.authorization = None;
    }
    let message = scene.remote.git(&["log", "-p", "--all", "-3"]);
    let places = [
        ("standard output", run.raw[0].clone()),
        ("standard error", run.raw[1].clone()),
        ("what Bitbucket was sent", format!("{requests:?}")),
        ("the comment", scene.bitbucket.comments()[0].body.clone()),
        ("the commit", message),
    ];
    for (name, text) in &places {
        assert_without(text, &all, name);
    }
    // That the search would have found them.
    assert!(
        read(&place, "environments").contains("WHERE=") && read(&place, "arguments").contains("trainspot")
    );
    let clues = ["key", "$WANDB_API_KEY", "\"key\": \"$WANDB_API_KEY\""];
    assert!(clues.iter().all(|clue| run.out.contains(clue)), "{}", run.out);
    assert!(run.out.matches("$WANDB_API_KEY").count() >= 10, "{}", run.out);
    say(&format!(
        "{} secrets in {} forms, in {} places",
        all.len(),
        forms(ACCESS_TOKEN).len(),
        places.len() + 4
    ));
}

#[test]
fn a_secret_in_the_wrong_variable_is_not_shown() {
    let token = "ATCTT3xFfGN0Zq7pLk29mWcXy4vB";
    for (name, value) in [
        ("PUBLISH", token),
        ("ACTION", token),
        ("MAX_RUNTIME", token),
        ("CLOUD", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY01"),
        // It is like no token, but it is what another variable has.
        ("PUBLISH", ACCESS_TOKEN),
        ("GIT_USER_EMAIL", "secret of the training"),
    ] {
        let mut scene = Scene::new(Access::Token, &[("train.sh", "echo\n")]);
        scene.set("TRAIN_COMMAND", "true").set("OUTPUTS", "m.bin");
        scene.set("TRAIN_ENV", "A=b\nMY_PASSWORD=secret of the training");
        let run = scene.set(name, value).run().expect(2);
        assert!(run.out.contains(&format!("\n  {name} '")), "{}", run.out);
        assert!(!run.raw.concat().contains(value), "{name}: {}", run.out);
    }
}
