//! The agent: the real one, but for the calls that a test has planned.

use crate::mutation::{self, Bundle};
use crate::plan::{Attack, Plan, note};
use std::io::{Read as _, Write as _};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;

const REAL: &str = env!("CARGO_BIN_EXE_trainspot");

pub(crate) fn run(arguments: &[String], folder: &Path) -> ExitCode {
    let verb = arguments.get(1).map_or("", String::as_str);
    let plan = Plan::read(folder);
    let mut real = Command::new(REAL);
    real.args(arguments);
    if verb != "supervise" && plan.is_now(verb, folder) {
        return attack(&plan.attack, verb, real, folder);
    }
    // Returns only if it fails.
    let failed = real.exec();
    panic!("cannot start {REAL}: {failed}");
}

fn attack(attack: &Attack, verb: &str, real: Command, folder: &Path) -> ExitCode {
    let says = |what: &[u8]| {
        // Whoever has heard enough is gone.
        std::io::stdout().write_all(what).ok();
        ExitCode::SUCCESS
    };
    if let Attack::Mutated(seed) = attack {
        if mutation::is_idle(verb, *seed) {
            note(folder, "done", &format!("{verb}: nothing was done"));
            return ExitCode::SUCCESS;
        }
        let (answer, code) = answer_of(real);
        let spoken = mutation::mutate(verb, &answer, *seed);
        note(folder, "done", &format!("{verb}: {}", spoken.what));
        std::io::stderr().write_all(&spoken.words).ok();
        says(&spoken.answer);
        return spoken.code.map_or(code, ExitCode::from);
    }
    note(folder, "done", verb);
    match attack {
        Attack::Mutated(_) => unreachable!(),
        Attack::Extended(files) => {
            let mut bundle = Bundle::of(&answer_of(real).0).unwrap();
            for (path, text) in files {
                bundle.add(path, text.as_bytes());
            }
            says(&bundle.encode())
        }
        Attack::Says(text) => {
            drain();
            says(text.as_bytes())
        }
        Attack::Floods(text, bytes) => {
            // Whoever follows a log keeps standard input open.
            if verb == "follow" {
                flood(std::io::stdout(), text, *bytes);
                return ExitCode::SUCCESS;
            }
            drain();
            flood(std::io::stdout(), text, *bytes);
            hang()
        }
        Attack::Shouts(bytes) => {
            flood(std::io::stderr(), "ERROR: forged words\n", *bytes);
            let (answer, code) = answer_of(real);
            says(&answer);
            code
        }
        Attack::Lists(item, count) => {
            drain();
            says(&mutation::list(item, *count))
        }
        Attack::Inflates => {
            drain();
            says(&mutation::inflating())
        }
        Attack::Hangs => hang(),
    }
}

fn hang() -> ! {
    loop {
        std::thread::sleep(Duration::from_secs(1));
    }
}

fn drain() {
    std::io::copy(&mut std::io::stdin(), &mut std::io::sink()).ok();
}

fn flood(mut out: impl std::io::Write, text: &str, bytes: u64) {
    let piece = text.repeat((1 << 16) / text.len() + 1);
    let mut left = bytes;
    while left > 0 {
        if out.write_all(piece.as_bytes()).is_err() {
            return;
        }
        left = left.saturating_sub(piece.len() as u64);
    }
}

/// What the real agent answers, and how it ends.
fn answer_of(mut real: Command) -> (Vec<u8>, ExitCode) {
    let mut child = real.stdout(Stdio::piped()).spawn().unwrap();
    let mut answer = Vec::new();
    child.stdout.take().unwrap().read_to_end(&mut answer).unwrap();
    let code = child.wait().unwrap().code().unwrap_or(1);
    (answer, ExitCode::from(u8::try_from(code).unwrap_or(1)))
}
