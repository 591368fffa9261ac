//! The fake by itself, for scripts: prints where it is as lines that a shell can read, and runs until its
//! standard input closes.

use fake_bitbucket::{ACCESS_TOKEN, BareRepository, FakeBitbucket, Options};
use std::io::{Read as _, Write as _};
use std::path::PathBuf;

const USAGE: &str = "\
usage: fake-bitbucket --repo PATH.git [--workspace NAME] [--slug NAME] [--commits N] [--clone DIRECTORY]
  --repo     the bare repository to serve; made, with N commits (default 60), if it is not there
  --clone    also clone its branch main into DIRECTORY, as a Pipelines step does
";

fn main() -> std::io::Result<()> {
    let (mut options, mut commits, mut clone) = (Options::default(), 60, None);
    let mut arguments = std::env::args().skip(1);
    while let Some(name) = arguments.next() {
        let value = arguments.next();
        match (&*name, value) {
            ("--repo", Some(path)) => options.repository = Some(path.into()),
            ("--workspace", Some(name)) => options.workspace = name,
            ("--slug", Some(name)) => options.slug = name,
            ("--commits", Some(number)) => commits = number.parse().map_err(std::io::Error::other)?,
            ("--clone", Some(path)) => clone = Some(PathBuf::from(path)),
            _ => return std::io::stderr().write_all(USAGE.as_bytes()),
        }
    }
    if let Some(path) = options.repository.as_deref().filter(|path| !path.exists()) {
        let _ = BareRepository::create(path, commits);
    }
    let fake = FakeBitbucket::start_with(options);
    if let Some(directory) = clone {
        fake.clone_as_pipelines("main", &directory);
    }
    let mut output = std::io::stdout();
    writeln!(output, "BITBUCKET_WORKSPACE={}", fake.workspace())?;
    writeln!(output, "BITBUCKET_REPO_SLUG={}", fake.slug())?;
    writeln!(output, "BITBUCKET_GIT_HTTP_ORIGIN={}", fake.http_origin())?;
    writeln!(output, "FAKE_API_URL={}", fake.api_url())?;
    writeln!(output, "FAKE_GIT_URL={}", fake.git_url())?;
    writeln!(output, "FAKE_PROXY_URL={}", fake.proxy_url())?;
    writeln!(output, "FAKE_ACCESS_TOKEN={ACCESS_TOKEN}")?;
    output.flush()?;
    std::io::stdin().read_to_end(&mut Vec::new())?;
    Ok(())
}
