//! What can be wrong wherever the training runs.

use super::Case;

#[rustfmt::skip]
pub(super) const CASES: &[Case] = &[
    (&[("TRAIN_COMMAND", "")], &[
        "TRAIN_COMMAND is missing: The training's commands, run by the machine's shell in the repository's folder. The first that fails ends the training.",
    ]),
    (&[("OUTPUTS", "")], &[
        "OUTPUTS is missing: name the files to commit, or in DVC_OUTPUTS those that DVC is to keep",
    ]),
    (&[("TRAIN_COMMAND", ""), ("OUTPUTS", "")], &[
        "TRAIN_COMMAND is missing: The training's commands, run by the machine's shell in the repository's folder. The first that fails ends the training.",
        "OUTPUTS is missing: name the files to commit, or in DVC_OUTPUTS those that DVC is to keep",
    ]),
    (&[("TRAIN_COMMAND", "  ")], &[
        "TRAIN_COMMAND is missing: The training's commands, run by the machine's shell in the repository's folder. The first that fails ends the training.",
    ]),
    (&[("ACTION", "publish"), ("OUTPUTS", "")], &[
        "OUTPUTS is missing: name the files to commit, or in DVC_OUTPUTS those that DVC is to keep",
    ]),
    (&[("ACTION", "runn")], &[
        "ACTION 'runn' is not known; it can be 'train', 'publish', 'runner' or 'sweep'",
    ]),
    (&[("ACTION", "Train it")], &[
        "ACTION 'Train it' is not known; it can be 'train', 'publish', 'runner' or 'sweep'",
    ]),
    (&[("CLOUD", "aws-eu")], &[
        "CLOUD 'aws-eu' is not known; it can be 'aws' or 'local'",
    ]),
    (&[("DEBUG", "maybe")], &[
        "DEBUG 'maybe' is neither true nor false; write 'true' or 'false'",
    ]),
    (&[("SKIP_CI", "2")], &[
        "SKIP_CI '2' is neither true nor false; write 'true' or 'false'",
    ]),
    (&[("MAX_RUNTIME", "soon")], &[
        "MAX_RUNTIME 'soon' is not a duration; write it like 90s, 45m, 12h or 1h30m",
    ]),
    (&[("MAX_RUNTIME", "90")], &[
        "MAX_RUNTIME '90' has no unit; write it like 90s, 45m, 12h or 1h30m",
    ]),
    (&[("MAX_RUNTIME", "1.5")], &[
        "MAX_RUNTIME '1.5' has no unit; write it like 90s, 45m, 12h or 1h30m",
    ]),
    (&[("MAX_RUNTIME", "0s")], &[
        "MAX_RUNTIME '0s' is out of range; it can be from 1s to 30days",
    ]),
    (&[("MAX_RUNTIME", "-5m")], &[
        "MAX_RUNTIME '-5m' is not a duration; write it like 90s, 45m, 12h or 1h30m",
    ]),
    (&[("MAX_RUNTIME", "31d")], &[
        "MAX_RUNTIME '31d' is out of range; it can be from 1s to 30days",
    ]),
    (&[("MAX_RUNTIME", "12 hours and a bit")], &[
        "MAX_RUNTIME '12 hours and a bit' is not a duration; write it like 90s, 45m, 12h or 1h30m",
    ]),
    (&[("CHECKPOINT_INTERVAL", "10")], &[
        "CHECKPOINT_INTERVAL '10' has no unit; write it like 90s, 45m, 12h or 1h30m",
    ]),
    (&[("CHECKPOINT_INTERVAL", "2d")], &[
        "CHECKPOINT_INTERVAL '2d' is out of range; it can be from 1s to 1day",
    ]),
    (&[("ORPHAN_GRACE", "1s")], &[
        "ORPHAN_GRACE '1s' is out of range; it can be from 2s to 1day",
    ]),
    (&[("ORPHAN_GRACE", "forever")], &[
        "ORPHAN_GRACE 'forever' is not a duration; write it like 90s, 45m, 12h or 1h30m",
    ]),
    (&[("MAX_RESTARTS", "-1")], &[
        "MAX_RESTARTS '-1' is not a whole number from 0 to 100",
    ]),
    (&[("MAX_RESTARTS", "many")], &[
        "MAX_RESTARTS 'many' is not a whole number from 0 to 100",
    ]),
    (&[("MAX_RESTARTS", "101")], &[
        "MAX_RESTARTS '101' is not a whole number from 0 to 100",
    ]),
    (&[("OUTPUTS", "/model/a.bin")], &[
        "OUTPUTS '/model/a.bin' is an absolute path; give it relative to the repository's folder",
    ]),
    (&[("OUTPUTS", "../a.bin")], &[
        "OUTPUTS '../a.bin' leads out of the repository; leave out '..'",
    ]),
    (&[("OUTPUTS", "model/../../a.bin")], &[
        "OUTPUTS 'model/../../a.bin' leads out of the repository; leave out '..'",
    ]),
    (&[("OUTPUTS", ".git/config")], &[
        "OUTPUTS '.git/config' is inside git's own folder; choose another place",
    ]),
    (&[("OUTPUTS", "sub/.git/hooks/x")], &[
        "OUTPUTS 'sub/.git/hooks/x' is inside git's own folder; choose another place",
    ]),
    (&[("OUTPUTS", ".")], &[
        "OUTPUTS '.' is the whole repository; name files, or use a glob such as model/**",
    ]),
    (&[("OUTPUTS", "./")], &[
        "OUTPUTS './' is the whole repository; name files, or use a glob such as model/**",
    ]),
    (&[("OUTPUTS", "model/[a.bin")], &[
        "OUTPUTS 'model/[a.bin' is not a glob: unclosed character class; missing ']'",
    ]),
    (&[("OUTPUTS", "model/{a,b")], &[
        "OUTPUTS 'model/{a,b' is not a glob: unclosed alternate group; missing '}' (maybe escape '{' with '[{]'?)",
    ]),
    (&[("OUTPUTS", "[\"a.bin\"")], &[
        "OUTPUTS '[\"a.bin\"' is not a JSON list of texts: EOF while parsing a list at line 1 column 8",
    ]),
    (&[("OUTPUTS", "[\"a.bin\", 3]")], &[
        "OUTPUTS '[\"a.bin\", 3]' is not a JSON list of texts: invalid type: integer `3`, expected a string at line 1 column 11",
    ]),
    (&[("OUTPUTS", ""), ("OUTPUTS_COUNT", "two")], &[
        "OUTPUTS is a list, but OUTPUTS_COUNT is 'two', not the number of OUTPUTS_0, OUTPUTS_1, …",
    ]),
    (&[("OUTPUTS", ""), ("OUTPUTS_COUNT", "2"), ("OUTPUTS_0", "a")], &[
        "OUTPUTS is a list, but OUTPUTS_1 is missing and OUTPUTS_COUNT is '2'",
    ]),
    (&[("OUTPUTS", ""), ("OUTPUTS_COUNT", "-1")], &[
        "OUTPUTS is a list, but OUTPUTS_COUNT is '-1', not the number of OUTPUTS_0, OUTPUTS_1, …",
    ]),
    (&[("OUTPUTS", ""), ("OUTPUTS_COUNT", "999999")], &[
        "OUTPUTS is a list, but OUTPUTS_COUNT is '999999', not the number of OUTPUTS_0, OUTPUTS_1, …",
    ]),
    (&[("OUTPUTS", ""), ("OUTPUTS_COUNT", "1"), ("OUTPUTS_0", "")], &[
        "OUTPUTS is missing: name the files to commit, or in DVC_OUTPUTS those that DVC is to keep",
    ]),
    (&[("OUTPUTS", ""), ("OUTPUTS_COUNT", "2"), ("OUTPUTS_0", "ok.bin"), ("OUTPUTS_1", "/etc/passwd")], &[
        "OUTPUTS '/etc/passwd' is an absolute path; give it relative to the repository's folder",
    ]),
    (&[("OUTPUTS", "a.bin\n../b.bin")], &[
        "OUTPUTS '../b.bin' leads out of the repository; leave out '..'",
    ]),
    (&[("OUTPUTS", "a.bin, /b.bin")], &[
        "OUTPUTS '/b.bin' is an absolute path; give it relative to the repository's folder",
    ]),
    (&[("INCLUDE", "/data")], &[
        "INCLUDE '/data' is an absolute path; give it relative to the repository's folder",
    ]),
    (&[("INCLUDE", "../data")], &[
        "INCLUDE '../data' leads out of the repository; leave out '..'",
    ]),
    (&[("CHECKPOINTS", "/tmp/state")], &[
        "CHECKPOINTS '/tmp/state' is an absolute path; give it relative to the repository's folder",
    ]),
    (&[("CHECKPOINTS", "**/../x")], &[
        "CHECKPOINTS '**/../x' leads out of the repository; leave out '..'",
    ]),
    (&[("METRICS", "/metrics.json")], &[
        "METRICS '/metrics.json' is an absolute path; give it relative to the repository's folder",
    ]),
    (&[("REPORT", "../report.md")], &[
        "REPORT '../report.md' leads out of the repository; leave out '..'",
    ]),
    (&[("REPORT", "/report.md")], &[
        "REPORT '/report.md' is an absolute path; give it relative to the repository's folder",
    ]),
    (&[("REPORT_COUNT", "1"), ("REPORT_0", "a.md")], &[
        "REPORT is given as a list; it takes one value",
    ]),
    (&[("CLOUD_COUNT", "1"), ("CLOUD_0", "local")], &[
        "CLOUD is given as a list; it takes one value",
    ]),
    (&[("TRAIN_ENV", "EPOCHS")], &[
        "TRAIN_ENV names 'EPOCHS', which the pipe does not have; map it, as in EPOCHS: $EPOCHS, or write EPOCHS=value",
    ]),
    (&[("TRAIN_ENV", "9LIVES=1")], &[
        "TRAIN_ENV '9LIVES=…' is not a variable's name; write NAME or NAME=value",
    ]),
    (&[("TRAIN_ENV", "A-B=1")], &[
        "TRAIN_ENV 'A-B=…' is not a variable's name; write NAME or NAME=value",
    ]),
    (&[("TRAIN_ENV", "TRAINSPOT_RESUME=1")], &[
        "TRAIN_ENV 'TRAINSPOT_RESUME=…' is a name that trainspot sets itself; choose one without TRAINSPOT_",
    ]),
    (&[("TRAIN_ENV", "=1")], &[
        "TRAIN_ENV '=…' is not a variable's name; write NAME or NAME=value",
    ]),
    (&[("TRAIN_ENV", "EPOCHS=3\nTOKEN")], &[
        "TRAIN_ENV names 'TOKEN', which the pipe does not have; map it, as in TOKEN: $TOKEN, or write TOKEN=value",
    ]),
    (&[("TRAIN_ENV", "d41d8cd98f00b204e9800998ecf8427e")], &[
        "TRAIN_ENV has an item that is no variable of the pipe (not shown, because it may be the value of one); write NAME, not $NAME",
    ]),
    (&[("TRAIN_ENV", "API_KEY: s3cr3t")], &[
        "TRAIN_ENV '…' is not a variable's name; write NAME or NAME=value",
    ]),
    (&[("TRAIN_ENV", "c2VjcmV0LXZhbHVl/w==")], &[
        "TRAIN_ENV '…' is not a variable's name; write NAME or NAME=value",
    ]),
    (&[("TRAIN_ENV", "[\"API_KEY=s3cr3t\", 3]")], &[
        "TRAIN_ENV (not shown) is not a JSON list of texts",
    ]),
    (&[("GIT_USER_NAME", "ML Bot <ml@example.com>")], &[
        "GIT_USER_NAME 'ML Bot <ml@example.com>' has '<' or '>' in it; give the name alone, and the e-mail in GIT_USER_EMAIL",
    ]),
    (&[("GIT_USER_NAME", "'.'")], &[
        "GIT_USER_NAME ''.'' is not a name; write one with letters in it",
    ]),
    (&[("PUBLISH", "pullrequest")], &[
        "PUBLISH 'pullrequest' is not known; it can be 'pull-request', 'push' or 'none'",
    ]),
    (&[("PUBLISH", "merge")], &[
        "PUBLISH 'merge' is not known; it can be 'pull-request', 'push' or 'none'",
    ]),
    (&[("PUBLISH", "push"), ("BRANCH", "models")], &[
        "BRANCH is given together with PUBLISH 'push', which commits to the target branch; leave it out, or use TARGET_BRANCH",
    ]),
    (&[("BRANCH", "main"), ("TARGET_BRANCH", "main")], &[
        "BRANCH is the same as TARGET_BRANCH; a pull request needs two branches",
    ]),
    (&[("BRANCH", "my branch")], &[
        "BRANCH 'my branch' is not a branch's name that git allows",
    ]),
    (&[("BRANCH", "a..b")], &[
        "BRANCH 'a..b' is not a branch's name that git allows",
    ]),
    (&[("BRANCH", "-x")], &[
        "BRANCH '-x' is not a branch's name that git allows",
    ]),
    (&[("BRANCH", "x.lock")], &[
        "BRANCH 'x.lock' is not a branch's name that git allows",
    ]),
    (&[("BRANCH", "refs/heads/x")], &[
        "BRANCH 'refs/heads/x' is a reference; give the branch's name alone, without refs/heads/",
    ]),
    (&[("TARGET_BRANCH", "main~1")], &[
        "TARGET_BRANCH 'main~1' is not a branch's name that git allows",
    ]),
    (&[("TARGET_BRANCH", "/main")], &[
        "TARGET_BRANCH '/main' is not a branch's name that git allows",
    ]),
    (&[("TARGET_BRANCH", "feature/")], &[
        "TARGET_BRANCH 'feature/' is not a branch's name that git allows",
    ]),
    (&[("GIT_USER_EMAIL", "nobody")], &[
        "GIT_USER_EMAIL 'nobody' is not an e-mail address",
    ]),
    (&[("GIT_USER_EMAIL", "a b@c")], &[
        "GIT_USER_EMAIL 'a b@c' is not an e-mail address",
    ]),
    (&[("GIT_USER_NAME", "two\nlines")], &[
        "GIT_USER_NAME 'two\\nlines' has more than one line; give it in one",
    ]),
    (&[("COMMIT_MESSAGE", "first\nsecond")], &[
        "COMMIT_MESSAGE 'first\\nsecond' has more than one line; give it in one",
    ]),
    (&[("REPORT_NAME", "a\nb")], &[
        "REPORT_NAME 'a\\nb' has more than one line; give it in one",
    ]),
    (&[("BITBUCKET_API_URL", "api.bitbucket.org")], &[
        "BITBUCKET_API_URL 'api.bitbucket.org' is not a URL: relative URL without a base",
    ]),
    (&[("BITBUCKET_API_URL", "ftp://api.bitbucket.org")], &[
        "BITBUCKET_API_URL 'ftp://api.bitbucket.org' is not an http:// or https:// URL",
    ]),
    (&[("BITBUCKET_API_URL", "https://me:pw@api.bitbucket.org")], &[
        "BITBUCKET_API_URL '…@api.bitbucket.org' has a user or password in it; leave them out",
    ]),
    (&[("BITBUCKET_API_URL", "http://api.bitbucket.org/2.0"), ("BITBUCKET_ACCESS_TOKEN", "s3cr3tvalue")], &[
        "BITBUCKET_API_URL 'http://api.bitbucket.org/2.0' is not https: a token would cross the network for everybody to read",
    ]),
    // Pipelines names its own addresses so, which says nothing of where the API is.
    (&[("BITBUCKET_API_URL", "http://bitbucket.org/2.0"), ("BITBUCKET_ACCESS_TOKEN", "s3cr3tvalue"), ("BITBUCKET_GIT_HTTP_ORIGIN", "http://bitbucket.org/a/b")], &[
        "BITBUCKET_API_URL 'http://bitbucket.org/2.0' is not https: a token would cross the network for everybody to read",
    ]),
    (&[("BITBUCKET_API_URL", "http://127.0.0.1.evil.example/2.0"), ("ATLASSIAN_ACCOUNT_EMAIL", "me@example.com"), ("ATLASSIAN_API_TOKEN", "s3cr3tvalue")], &[
        "BITBUCKET_API_URL 'http://127.0.0.1.evil.example/2.0' is not https: a token would cross the network for everybody to read",
    ]),
    (&[("PIPELINES_PROXY", "host.docker.internal:29418")], &[
        "PIPELINES_PROXY 'host.docker.internal:29418' is not an http:// or https:// URL",
    ]),
    (&[("BITBUCKET_ACCESS_TOKEN", "abc def ghi")], &[
        "BITBUCKET_ACCESS_TOKEN (value not shown) has white space inside; was it pasted whole?",
    ]),
    (&[("BITBUCKET_ACCESS_TOKEN", "$TOKEN")], &[
        "BITBUCKET_ACCESS_TOKEN is the text '$TOKEN', not its value; is that variable defined for this repository?",
    ]),
    (&[("TRAIN_COMMAND", "$TRAIN_COMMAND")], &[
        "TRAIN_COMMAND is the text '$TRAIN_COMMAND', not its value; is that variable defined for this repository?",
    ]),
    // The default in pipe.yml, where nothing has expanded it: no value.
    (&[("ATLASSIAN_API_TOKEN", "${ATLASSIAN_API_TOKEN}"), ("ATLASSIAN_ACCOUNT_EMAIL", "me@example.com")], &[
        "ATLASSIAN_API_TOKEN is missing: ATLASSIAN_ACCOUNT_EMAIL is of use only with it",
    ]),
    (&[("RESUME", "true")], &["RESUME needs CHECKPOINTS, which names the files to go on from"]),
    (&[("STEP_MAX_TIME", "120")], &[
        "STEP_MAX_TIME '120' has no unit; write it like 90s, 45m, 12h or 1h30m",
    ]),
    (&[("STEP_MAX_TIME", "24h")], &[
        "STEP_MAX_TIME '24h' is out of range; it can be from 1m to 12h",
    ]),
    (&[("SIZE_LIMITS", "100MB")], &[
        "SIZE_LIMITS '100MB' is neither true nor false; write 'true' or 'false'",
    ]),
    (&[("OUTPUTS", "${OUTPUTS}")], &[
        "OUTPUTS is the text '${OUTPUTS}', not its value; is that variable defined for this repository?",
    ]),
    (&[("ATLASSIAN_API_TOKEN", "s3cr3tvalue")], &[
        "ATLASSIAN_ACCOUNT_EMAIL is missing: ATLASSIAN_API_TOKEN is of use only with it",
    ]),
    (&[("ATLASSIAN_ACCOUNT_EMAIL", "me@example.com")], &[
        "ATLASSIAN_API_TOKEN is missing: ATLASSIAN_ACCOUNT_EMAIL is of use only with it",
    ]),
    (&[("ATLASSIAN_ACCOUNT_EMAIL", "me"), ("ATLASSIAN_API_TOKEN", "s3cr3tvalue")], &[
        "ATLASSIAN_ACCOUNT_EMAIL 'me' is not an e-mail address",
    ]),
    (&[("BITBUCKET_APP_PASSWORD", "s3cr3tvalue"), ("BITBUCKET_USERNAME", "me")], &[
        "BITBUCKET_APP_PASSWORD no longer works: Atlassian removed app passwords in July 2026; give BITBUCKET_ACCESS_TOKEN",
    ]),
    (&[("OUTPUT", "a.bin")], &[
        "OUTPUT is not known; did you mean OUTPUTS?",
    ]),
    (&[("OUTPUT_COUNT", "1"), ("OUTPUT_0", "a.bin")], &[
        "OUTPUT_0 is not known; did you mean the list OUTPUTS?",
        "OUTPUT_COUNT is not known; did you mean the list OUTPUTS?",
    ]),
    (&[("TRAIN_COMAND", "x"), ("TRAIN_COMMAND", "")], &[
        "TRAIN_COMMAND is missing: The training's commands, run by the machine's shell in the repository's folder. The first that fails ends the training.",
        "TRAIN_COMAND is not known; did you mean TRAIN_COMMAND?",
    ]),
    (&[("train_command", "x")], &[
        "train_command is not known; did you mean TRAIN_COMMAND?",
    ]),
    (&[("TRAIN-COMMAND", "x")], &[
        "TRAIN-COMMAND is not known; did you mean TRAIN_COMMAND?",
    ]),
    (&[("BITBUCKET_ACESS_TOKEN", "s3cr3tvalue")], &[
        "BITBUCKET_ACESS_TOKEN is not known; did you mean BITBUCKET_ACCESS_TOKEN?",
    ]),
    (&[("CHECKPOINT", "x")], &[
        "CHECKPOINT is not known; did you mean CHECKPOINTS?",
    ]),
    (&[("MAXRUNTIME", "1h")], &[
        "MAXRUNTIME is not known; did you mean MAX_RUNTIME?",
    ]),
    (&[("DEBUGG", "true")], &[
        "DEBUGG is not known; did you mean DEBUG?",
    ]),
    (&[("MAX_RUNTIME", "soon"), ("PUBLISH", "merge"), ("OUTPUTS", "/x"), ("DEBUG", "perhaps"), ("BRANCHES", "x")], &[
        "OUTPUTS '/x' is an absolute path; give it relative to the repository's folder",
        "MAX_RUNTIME 'soon' is not a duration; write it like 90s, 45m, 12h or 1h30m",
        "PUBLISH 'merge' is not known; it can be 'pull-request', 'push' or 'none'",
        "DEBUG 'perhaps' is neither true nor false; write 'true' or 'false'",
        "BRANCHES is not known; did you mean BRANCH?",
    ]),
];
