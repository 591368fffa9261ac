//! The real DVC, in a process that answers questions.

use serde_json::{Value, json};
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use tempfile::TempDir;

/// A running DVC; it ends with its standard input.
pub(super) struct Oracle {
    process: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
    _home: TempDir,
}

impl Oracle {
    /// Starts one; the reason where there can be none.
    pub(super) fn start() -> Result<Self, String> {
        let bin = venv()?;
        let home = tempfile::tempdir().unwrap();
        let mut process = Command::new(format!("{bin}/python"))
            .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("test/dvc/oracle.py"))
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .envs(
                ["HOME", "DVC_SITE_CACHE_DIR", "DVC_GLOBAL_CONFIG_DIR", "DVC_SYSTEM_CONFIG_DIR"]
                    .map(|name| (name, home.path())),
            )
            .envs([("DVC_NO_ANALYTICS", "1"), ("GIT_AUTHOR_NAME", "a"), ("GIT_AUTHOR_EMAIL", "a@b.c")])
            .envs([("GIT_COMMITTER_NAME", "a"), ("GIT_COMMITTER_EMAIL", "a@b.c"), ("PYTHONUTF8", "1")])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|error| format!("Python does not start: {error}"))?;
        let (input, output) = (process.stdin.take().unwrap(), BufReader::new(process.stdout.take().unwrap()));
        Ok(Self { process, input, output, _home: home })
    }

    /// What a function of `oracle.py` returns, or its error.
    pub(super) fn ask(&mut self, what: &str, mut request: Value) -> Result<Value, String> {
        request["do"] = json!(what);
        writeln!(self.input, "{request}").unwrap();
        let mut line = String::new();
        self.output.read_line(&mut line).unwrap();
        let mut answer: Value =
            serde_json::from_str(&line).unwrap_or_else(|_| panic!("DVC ended at {request}"));
        match answer.get("error").and_then(Value::as_str) {
            Some(error) => Err(error.to_owned()),
            None => Ok(answer["value"].take()),
        }
    }
}

impl Drop for Oracle {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

pub(super) fn venv() -> Result<String, String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let made = Command::new(root.join("scripts/venv.sh"))
        .args(["dvc", "test/dvc/requirements.txt"])
        .current_dir(root)
        .output()
        .map_err(|error| format!("scripts/venv.sh: {error}"))?;
    if !made.status.success() {
        return Err(format!("no Python packages: {}", String::from_utf8_lossy(&made.stderr)));
    }
    Ok(String::from_utf8(made.stdout).unwrap().trim().to_owned())
}
