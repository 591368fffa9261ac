# Atlassian's runner as a program of this machine's, with what it needs: Java 11, git 2.35, curl and tar.
git_is_old() {
	version=$(git --version | sed 's/[^0-9]*\([0-9]*\)\.\([0-9]*\).*/\1 \2/')
	[ "${version% *}" -lt 2 ] || { [ "${version% *}" -eq 2 ] && [ "${version#* }" -lt 35 ]; }
}

command -v java >/dev/null || install openjdk-17-jre-headless java-17-amazon-corretto-headless
command -v git >/dev/null || install git git
command -v curl >/dev/null || install curl curl
command -v tar >/dev/null || install tar tar
# That of Ubuntu 22.04 is older than what the runner takes.
if git_is_old && command -v add-apt-repository >/dev/null; then
	as_root add-apt-repository --yes ppa:git-core/ppa >/dev/null
	install git git
fi
if git_is_old; then echo "ERROR $(git --version) is too old: Atlassian's runner needs 2.35; choose another IMAGE" >&2; fi

folder=$HOME/.trainspot/runner
rm -rf "$folder"
mkdir -p "$folder/commands"
echo "fetching $RUNNER_ARCHIVE"
curl --fail --silent --show-error --location --retry 5 "$RUNNER_ARCHIVE" >"$folder/archive"
if [ -n "${RUNNER_ARCHIVE_SHA256-}" ]; then
	printf '%s  %s\n' "$RUNNER_ARCHIVE_SHA256" "$folder/archive" | sha256sum --check --status || {
		echo "ERROR $RUNNER_ARCHIVE does not have the SHA-256 $RUNNER_ARCHIVE_SHA256" >&2
		exit 1
	}
fi
tar -xz -C "$folder" -f "$folder/archive"
rm "$folder/archive"
# The runner's clones call it, but no package brings it.
printf '#!/bin/sh\ncount=$1\nshift\nuntil "$@"; do count=$((count - 1)); [ "$count" -gt 0 ] || exit 1; sleep 2; done\n' >"$folder/commands/retry"
chmod +x "$folder/commands/retry"
command -v retry >/dev/null || PATH=$PATH:$folder/commands
# What steps print is not for this log, where words of theirs could be taken for the runner's.
cat >"$folder/log.xml" <<'XML'
<configuration>
  <appender name="out" class="ch.qos.logback.core.ConsoleAppender">
    <encoder><pattern>[%date{ISO8601}] %message%n</pattern></encoder>
  </appender>
  <root level="INFO"><appender-ref ref="out"/></root>
  <logger name="build" level="OFF"/>
</configuration>
XML
export JAVA_OPTS="-Dlogback.configurationFile=$folder/log.xml"
start=$(find "$folder" -path '*/bin/start.sh' | head -n 1)
cd "$(dirname "$start")"
set -- --accountUuid "$ACCOUNT_UUID" --runnerUuid "$RUNNER_UUID" --OAuthClientId "$OAUTH_CLIENT_ID" \
	--OAuthClientSecret "$OAUTH_CLIENT_SECRET" --runtime linux-shell --workingDirectory ../temp
if [ -n "${REPOSITORY_UUID-}" ]; then set -- "$@" --repositoryUuid "$REPOSITORY_UUID"; fi
# Its arguments hold all that it needs, and steps inherit its environment.
unset ACCOUNT_UUID REPOSITORY_UUID RUNNER_UUID OAUTH_CLIENT_ID OAUTH_CLIENT_SECRET RUNNER_ARCHIVE RUNNER_ARCHIVE_SHA256
exec bash ./start.sh "$@"
