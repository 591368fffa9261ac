# Atlassian's runner as a container that drives the machine's Docker engine.
# What the container gets. Through a pipe: arguments are for everybody to see, and sudo logs variables that it passes on.
variables() {
	printf '%s\n' "ACCOUNT_UUID=$ACCOUNT_UUID" "RUNNER_UUID=$RUNNER_UUID" RUNTIME_PREREQUISITES_ENABLED=true \
		"OAUTH_CLIENT_ID=$OAUTH_CLIENT_ID" "OAUTH_CLIENT_SECRET=$OAUTH_CLIENT_SECRET" WORKING_DIRECTORY=/tmp
	if [ -n "${REPOSITORY_UUID-}" ]; then printf '%s\n' "REPOSITORY_UUID=$REPOSITORY_UUID"; fi
}
name=trainspot-runner

command -v docker >/dev/null || install docker.io docker
if command -v systemctl >/dev/null; then as_root systemctl start docker || true; fi
# Steps' containers see a GPU only where NVIDIA's runtime is the engine's default one.
if command -v nvidia-ctk >/dev/null && command -v nvidia-smi >/dev/null; then
	as_root nvidia-ctk runtime configure --runtime=docker --set-as-default >/dev/null &&
		as_root systemctl restart docker || echo "the steps' containers get no GPU" >&2
fi
echo "pulling $RUNNER_IMAGE"
again as_root docker pull --quiet "$RUNNER_IMAGE" >/dev/null

# Not in place of this shell: what runs as root takes no signal from its user.
trap 'as_root docker stop "$name" >/dev/null 2>&1 || true' TERM
variables | as_root docker run --rm --name "$name" --env-file /dev/stdin -v /tmp:/tmp \
	-v /var/run/docker.sock:/var/run/docker.sock -v /var/lib/docker/containers:/var/lib/docker/containers:ro \
	"$RUNNER_IMAGE" &
status=0
wait $! || status=$?
# The trap ends the first wait.
[ "$status" -le 128 ] || { status=0 && wait $! || status=$?; }
exit "$status"
